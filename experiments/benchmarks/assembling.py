"""Where a host's processor time goes while it assembles batches, and more processes that do.

**Time by part.** One process draws and assembles batches of 256 rows; the time of each part is that
of its thread alone, without the parts that it calls. "the rest" is what the process used beyond
them: JAX's threads, the interpreter, the prefetching thread.

**Rate by processes.** ``config.data.assemblers`` of 1, 2 and 4, in turn on the same cores, each
side stopped during the turns of the others. Both data sets have four shards.

images   those of ``images``: two data sets of 256x256 jpegs, TFRecord, with actions and states.
numbers  those of ``loader``: two data sets of actions and states alone, array_record.

    python -m experiments.benchmarks.assembling --repeats=7
"""

import collections
import contextlib
import functools
import os
import pathlib
import platform
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
import simplejpeg
from absl import flags

from ambient_jax import mixing, schedules
from ambient_jax.cli import console, report
from ambient_jax.data import (
    assembler,
    chunk,
    example_proto,
    images,
    mixture,
    noise_first,
    pipeline,
    records,
    stream,
)
from ambient_jax.open_x import source
from experiments.benchmarks import images as images_lib
from experiments.benchmarks import loader, sides

_KIND = flags.DEFINE_multi_enum("kind", [], ("images", "numbers"), "Data; all by default.")
_SIDE = flags.DEFINE_integer("side", 0, "Be the side of so many assemblers.")
# --repeats, --seconds and --workers (threads that decode, and the cores) are those of ``images``.
_FLAGS = flags.FLAGS

BATCH, SHARDS = 256, 4
PARTS = {  # name: the functions whose own time it is
    "draw (sigma, group)": [(noise_first.HostDraws, "__call__")],
    "read a record": [(records.TFRecords, "read"), (records.ArrayRecords, "read")],
    "parse it": [(example_proto.EpisodeDecoder, "__call__")],
    "bring it to the common form": [(source.OpenXSource, "_common")],
    "normalise": [(mixture.Mixture, "read_all")],
    "join episodes to windows": [(stream.ChunkStream, "_load")],
    "cut chunks": [(chunk, "gather"), (assembler.Assembler, "_cut")],
    "place them in the batch": [(assembler.Assembler, "assemble")],
    "decode images": [(images, "_decode_all")],
    "put": [(jax, "device_put")],
}
COUNTS = (1, 2, 4)


class Clock:
    """Adds up the processor time of functions, without that of measured functions inside."""

    def __init__(self):
        self.seconds: collections.Counter[str] = collections.Counter()
        self._local, self._lock = threading.local(), threading.Lock()

    def measured(self, name, function):
        @functools.wraps(function)
        def timed(*arguments, **options):
            inside, self._local.inside = getattr(self._local, "inside", 0.0), 0.0
            begin = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.thread_time() - begin
                with self._lock:
                    self.seconds[name] += spent - self._local.inside
                self._local.inside = inside + spent

        return timed

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Measures ``PARTS`` inside of the context."""
        before = [
            (owner, name, getattr(owner, name)) for part in PARTS.values() for owner, name in part
        ]
        for part, functions in PARTS.items():
            for owner, name in functions:
                setattr(owner, name, self.measured(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)


def configure(kind: str, root: str, threads: int):
    """Returns the data section of a kind of data."""
    if kind == "images":
        return images_lib.configure("loader, TFRecord, 256x256", root, threads)
    config = loader.configure(os.path.join(root, "numbers"), "array_record")
    config.shuffle_window = 2000
    return config


def open_stream(kind, root, threads, assemblers, **options):
    config, law = configure(kind, root, threads), mixing.Ambient()
    config.assemblers = assemblers
    opened = pipeline.open_mixture(config, law, cache=os.path.join(root, "cache"))
    options |= {"seed": 0, "batch_size": BATCH, "shards": SHARDS}
    return pipeline.stream_batches(opened, law, schedules.vp(), **options)


def profile(kind: str, root: str, threads: int, seconds: float) -> dict[str, float]:
    """Returns microseconds of processor time a row, by part."""
    clock = Clock()
    put = lambda batch: jax.block_until_ready(jax.device_put(batch))  # noqa: E731
    with clock.watching():
        batches = open_stream(kind, root, threads, 1, put=put)
        for _ in range(16):
            next(batches)
        clock.seconds.clear()
        begin, process, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begin < seconds or count < 16:
            next(batches)
            count += 1
        spent = dict(clock.seconds)
        spent["the rest"] = time.process_time() - process - sum(spent.values())
        batches.close()
    return {name: value / count / BATCH * 1e6 for name, value in spent.items()}


def rows_of(kind: str, root: str, threads: int, assemblers: int) -> Iterator[np.ndarray]:
    """Yields images, or actions, of all batches."""
    for batch in open_stream(kind, root, threads, assemblers):
        yield batch["observation"]["image_primary"] if kind == "images" else batch["action"]


def floor() -> str:
    """Returns a line: what libjpeg-turbo alone takes for the images, in full and at an eighth."""
    blobs = [images_lib.scene(256, 256, seed) for seed in range(64)]
    spent = []
    for sizes in ({}, {"min_height": 1, "min_width": 1}):
        rounds = []
        for _ in range(7):
            begin = time.thread_time()
            for blob in blobs:
                simplejpeg.decode_jpeg(blob, "RGB", **sizes)
            rounds.append((time.thread_time() - begin) / len(blobs) * 1e6)
        spent.append(min(rounds))
    return (
        f"libjpeg-turbo: {spent[0]:.0f} us an image, {spent[1]:.0f} at an eighth of the size, "
        "little more than its entropy code (least of 7 rounds)"
    )


def processor() -> str:
    """Returns the processor's name."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def profile_table(root: str, kinds: list[str]) -> str:
    found = [profile(kind, root, _FLAGS.workers, _FLAGS.seconds) for kind in kinds]
    rows = []
    for part in (*PARTS, "the rest"):
        cells = [part]
        for spent in found:
            share = spent.get(part, 0.0) / sum(spent.values())
            cells += [f"{spent.get(part, 0.0):.1f}", f"{share:.0%}"]
        rows.append(cells)
    rows.append(["in all", *(c for s in found for c in (f"{sum(s.values()):.1f}", ""))])
    columns = [c for kind in kinds for c in (f"{kind}, us a row", "share")]
    return report.markdown(("part", *columns), rows)


def rate_table(root: str, kinds: list[str]) -> str:
    rows = []
    for kind in kinds:
        given = [f"--root={root}", f"--kind={kind}", f"--workers={_FLAGS.workers}"]
        commands = [sides.of_module(__spec__.name, f"--side={count}", *given) for count in COUNTS]
        with sides.started(commands) as each:
            assert len({side.mean for side in each}) == 1  # the same batches
            turns = sides.take_turns(each, _FLAGS.repeats, _FLAGS.seconds, BATCH)
        for i, count in enumerate(COUNTS):
            rates, spent = turns["rate"], turns["cpu"]
            ratios = rates[:, i] / rates[:, 0]
            cells = [sides.cell(rates[:, i], ",.0f"), sides.cell(ratios, ".2f")]
            rows.append([f"{kind}, {count}", *cells, sides.cell(spent[:, i], ".0f")])
    return report.markdown(("assemblers", "rows/s", "to 1", "processor time a row, us"), rows)


@console.one_line_errors()
def main(argv):
    del argv
    console.setup()
    cores = sorted(os.sched_getaffinity(0))[: _FLAGS.workers]
    os.sched_setaffinity(0, cores)
    kinds = _KIND.value or ["images", "numbers"]
    if _SIDE.value:
        sides.serve(rows_of(kinds[0], _FLAGS.root, _FLAGS.workers, _SIDE.value), 8)
        return
    with images_lib.data_folder() as root:
        if "images" in kinds:
            images_lib.build(root, "tfrecord")
        numbers = os.path.join(root, "numbers")
        if "numbers" in kinds and not os.path.exists(numbers):
            loader.build(numbers, "array_record")
        print(f"{len(cores)} cores of {processor()}, batches of {BATCH} rows\n")
        print(profile_table(root, kinds), floor(), rate_table(root, kinds), sep="\n\n")


if __name__ == "__main__":
    console.run(main)
