"""Times the stream of training batches and watches its memory.

**Beside Grain's own transformations.** Two sources of low-dimensional episodes, noise first,
batches of 256, a window of 10,000 chunks a source. Each row runs in a process of its own and has
elements/s of the steady stream, and the resident memory after 20k and 200k elements, which must not
grow. The last row chains Grain's shuffle, flat_map, window shuffle, mix and batch over the same
episodes, chunk by chunk, with fixed shares of the sources.

    python -m experiments.benchmarks.loader --elements=200000

**Memory over a long run.** ``--open_x`` data sets of Open-X's wide mixture (those of the smallest
steps), array_record and TFRecord in turn, as fixtures with their true features. Their images have
few pixels, so that a million elements take minutes, and ``IMAGE_BYTES`` bytes, as those of cameras
have. No episode is larger than ``--largest``, as copies made while one is read stay with the
process, which would hide a leak. The windows turn over many times: the data are several times
``config.data.shuffle_memory``. Images are decoded by a thread. Memory is the process's private
pages and its share of common ones (PSS) in MiB; the slope is that of a least-squares line through
the last 80% of the samples, with its 95% interval.

    python -m experiments.benchmarks.loader --open_x=48 --elements=1000000 --memory=0.25 --memory=1
"""

import io
import math
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import grain
import ml_collections
import numpy as np
import PIL.Image
from absl import flags

from ambient_jax import mixing, schedules
from ambient_jax.cli import console, report
from ambient_jax.data import chunk, pipeline, write
from ambient_jax.open_x import fixtures, registry
from ambient_jax.train import config as train_config
from experiments import demos
from experiments.benchmarks import harness
from experiments.open_x import config as open_x_config

_ELEMENTS = flags.DEFINE_integer("elements", 200_000, "Elements to draw; memory is compared there.")
_BATCH = flags.DEFINE_integer("batch", 256, "Batch size.")
_WINDOW = flags.DEFINE_integer("window", 10_000, "Shuffle window in chunks, for each source.")
_OPEN_X = flags.DEFINE_integer("open_x", 0, "Data sets of Open-X's wide mixture: their memory.")
_MEMORY = flags.DEFINE_multi_float("memory", [0.25, 1.0], "Values of shuffle_memory in GiB.")
_DATA = flags.DEFINE_float("data", 1.5, "Size of all these data sets in GiB.")
_LARGEST = flags.DEFINE_float("largest", 4, "Largest of their episodes in MiB on disk.")
_SAMPLES = flags.DEFINE_integer("samples", 20, "How often memory is looked at.")

COLUMNS = ("stream", "elements/s", "MiB after 20k", "MiB at the end", "growth")
COLUMNS += ("statistics steps/s",)
MEMORY_COLUMNS = ("shuffle_memory", "before", "first", "peak", "last", "slope in 10^6 elements")
MEMORY_COLUMNS += ("descriptors", "elements/s")
WARM_UP = 20_000  # elements
EPISODES = {"clean": 100, "corrupt": 3000}
IMAGE_BYTES, SIDE = 8192, 16
ROWS = {
    "ours, array_record": ("array_record", "ours"),
    "ours, tfrecord": ("tfrecord", "ours"),
    "Grain's transformations, array_record": ("array_record", "grain"),
}


def episodes(count: int, seed: int) -> list[dict[str, Any]]:
    """Yields random episodes of 40 to 120 steps: state [7], goal [3] and action [7]."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        length = int(rng.integers(40, 120))
        vectors = lambda size, length=length: rng.normal(size=(length, size)).astype(np.float32)  # noqa: E731
        observation = {"state": vectors(7), "goal": vectors(3)}
        result.append({"steps": demos.steps(observation, vectors(7))})
    return result


def build(root: str, file_format: str) -> None:
    """Writes both sources."""
    vector = lambda size: np.zeros(size, np.float32)  # noqa: E731
    features = write.rlds_features({"state": vector(7), "goal": vector(3)}, vector(7))
    data = {name: episodes(count, seed) for seed, (name, count) in enumerate(EPISODES.items())}
    harness.write_sources(root, file_format, features, data)


def configure(root: str, file_format: str) -> ml_collections.ConfigDict:
    config = train_config.default().data
    config.root, config.placement = os.path.join(root, file_format), "stream"
    config.observation = ("state", "goal")
    for name in EPISODES:
        bound = 0.0 if name == "clean" else 0.1
        config.sources[name] = train_config.source(name, name, sigma_min=bound, last_step="keep")
    return config


def grain_batches(mixture: pipeline.Mixture, batch: int) -> Iterator[Any]:
    """Yields the same chunks by Grain's generic transformations."""
    history, horizon = mixture.config.history, mixture.config.horizon

    class Cut(grain.experimental.FlatMapTransform):
        max_fan_out = 1000

        def flat_map(self, steps):
            length = len(steps["action"])
            return [chunk.gather(steps, t, 0, length, history, horizon, np) for t in range(length)]

    def source(k, name):
        dataset = grain.MapDataset.source(mixture.datasets[name]).shuffle(seed=k).repeat()
        chunks = grain.experimental.FlatMapIterDataset(
            dataset.map(lambda e: mixture.read(k, 0, e)).to_iter_dataset(), Cut()
        )
        return grain.experimental.WindowShuffleIterDataset(
            chunks, window_size=mixture.config.shuffle_window, seed=k
        )

    sources = [source(k, name) for k, name in enumerate(mixture.names)]
    mixed = grain.IterDataset.mix(sources, weights=np.asarray(mixture.sources.weight).tolist())
    return iter(
        grain.experimental.ThreadPrefetchIterDataset(
            mixed.batch(batch), prefetch_buffer_size=mixture.config.prefetch
        )
    )


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(
    root: str, file_format: str, transformations: str, batch: int, window: int, elements: int
) -> list[str]:
    """Returns elements/s, MiB resident after the warm-up and at the end, the growth, and steps/s of
    the statistics."""
    config = configure(root, file_format)
    config.shuffle_window = window
    law, schedule = mixing.Ambient(), schedules.vp()
    begin = time.perf_counter()
    cache = os.path.join(root, f"cache-{transformations}")
    mixture = pipeline.open_mixture(config, law, cache=cache)
    prepare_seconds = time.perf_counter() - begin
    if transformations == "ours":
        batches = pipeline.stream_batches(mixture, law, schedule, seed=0, batch_size=batch)
    else:
        batches = grain_batches(mixture, batch)
    for _ in range(-(-WARM_UP // batch)):
        next(batches)
    first, count = resident_mib(), max(1, (elements - WARM_UP) // batch)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    seconds, last = time.perf_counter() - begin, resident_mib()
    batches.close()
    rate, steps = count * batch / seconds, float(mixture.chunks.sum()) / prepare_seconds
    return [
        *(f"{rate:,.0f}", f"{first:.0f}", f"{last:.0f}"),
        *(f"{last / first - 1:+.1%}", f"{steps:,.0f}"),
    ]


def step_bytes(name: str) -> int:
    """Returns the approximate size of a step as ``build_wide`` writes it."""
    fields = fixtures.schema(name).values()
    return sum(IMAGE_BYTES if kind == "jpeg" else 4 * math.prod(shape) for kind, shape in fields)


def wide(count: int) -> list[str]:
    """Returns the ``count`` data sets of the wide mixture with the smallest steps."""
    return sorted(sorted(registry.mixture("wide"), key=step_bytes)[:count])


def build_wide(root: str, names: list[str], size: float, largest: float) -> None:
    """Writes data sets of ``size`` bytes in all; the largest is thirty times the smallest.

    Episodes have 30 to 69 steps, fewer where they would be larger than ``largest`` bytes.
    """
    rng = np.random.default_rng(0)
    shares = np.geomspace(1, 30, len(names))
    shares = rng.permutation(shares / shares.sum()) * size
    images = []
    for pixels in rng.integers(0, 256, (64, SIDE, SIDE, 3), np.uint8):
        out = io.BytesIO()
        PIL.Image.fromarray(pixels).save(out, "JPEG")
        images.append(out.getvalue().ljust(IMAGE_BYTES, b"\0"))  # zeros are padding
    for i, (name, share) in enumerate(zip(names, shares, strict=True)):
        cameras = [path for path, (kind, _) in fixtures.schema(name).items() if kind == "jpeg"]
        written = []
        while share > 0:
            length = max(3, min(int(rng.integers(30, 70)), int(largest / step_bytes(name))))
            episode = fixtures.episode(name, length, len(written))
            observation = episode["steps"]["observation"]
            for path in cameras:
                chosen = [images[j] for j in rng.integers(0, len(images), length)]
                observation[path.removeprefix("steps/observation/")] = chosen
            written.append(episode)
            share -= length * step_bytes(name)
        write.write_dataset(
            root,
            name=fixtures.folder(name),
            version=registry.get(name).version or "0.1.0",
            features=fixtures.features(name),
            episodes=written,
            file_format=("array_record", "tfrecord")[i % 2],
            shards=6,
        )


def watch(
    root: str, names: list[str], memory: float, batch: int, elements: int, samples: int
) -> dict[str, Any]:
    """Measures elements/s and the ``footprint`` before the stream and at equal distances in it."""
    clean = "+".join(names[::6])
    config = open_x_config.get_config(f"wide,size=debug,clean={clean}").data
    for name in set(config.sources) - set(names):
        del config.sources[name]
    for name in names:
        config.sources[name].path = fixtures.folder(name)
    config.root, config.history, config.shuffle_memory = root, 1, memory
    config.open_x.hz, config.open_x.image_size = None, (SIDE, SIDE)
    config.open_x.state_width, config.shuffle_window = 14, 10**6
    law, schedule = mixing.Ambient(), schedules.vp()
    mixture = pipeline.open_mixture(config, law, cache=os.path.join(root, "cache"))
    sizes = [s.num_steps * s.step_bytes for s in mixture.statistics.values()]
    before, seen = harness.footprint(), []
    batches = pipeline.stream_batches(mixture, law, schedule, seed=0, batch_size=batch)
    drawn, begin = 0, time.perf_counter()
    for i in range(1, samples + 1):
        while drawn < elements * i // samples:
            drawn += len(next(batches)["source"])
        seen.append(harness.footprint())
    rate = drawn / (time.perf_counter() - begin)
    state = batches.get_state()["taken"]["0"]
    batches.close()
    epochs = np.array(state) / mixture.chunks
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        **{"rate": rate, "before": before, "seen": seen, "drawn": drawn, "epochs": epochs},
        **{"data": sum(sizes) / 2**20, "maximum": limit},
    }


def memory_table(root: str) -> None:
    """Prints a table with a row for each value of shuffle_memory, and the samples."""
    names, elements, samples = wide(_OPEN_X.value), _ELEMENTS.value, _SAMPLES.value
    harness.in_process(build_wide, root, names, _DATA.value * 2**30, _LARGEST.value * 2**20)
    rows, notes = [], []
    for memory in _MEMORY.value:
        run = harness.in_process(watch, root, names, memory, _BATCH.value, elements, samples)
        mebibytes = [f["memory"] for f in run["seen"]]
        rise, error = harness.slope(mebibytes[samples // 5 :], run["drawn"] / samples / 1e6)
        rows.append(
            [
                *(f"{memory * 1024:.0f}", f"{run['before']['memory']:.0f}", f"{mebibytes[0]:.0f}"),
                *(f"{max(mebibytes):.0f}", f"{mebibytes[-1]:.0f}", f"{rise:+.0f} +- {error:.0f}"),
                f"{run['seen'][0]['descriptors']} to {run['seen'][-1]['descriptors']}",
                f"{run['rate']:,.0f}",
            ]
        )
        notes.append(
            f"{memory * 1024:.0f} MiB, {run['data']:.0f} MiB of data in {len(names)} data sets, "
            f"{run['drawn']:,} elements, {run['epochs'].min():.1f} to {run['epochs'].max():.1f} "
            f"epochs, at most {run['maximum']:.0f} MiB resident in the process, samples: "
            + " ".join(f"{m:.0f}" for m in mebibytes)
        )
    print(report.markdown(MEMORY_COLUMNS, rows), *notes, sep="\n\n")


def main(argv):
    del argv
    arguments = _BATCH.value, _WINDOW.value, _ELEMENTS.value
    rows = []
    with tempfile.TemporaryDirectory() as root:
        if _OPEN_X.value:
            memory_table(root)
            return
        for name, row in ROWS.items():
            if not os.path.exists(os.path.join(root, row[0])):
                harness.in_process(build, root, row[0])
            run = harness.in_process(measure, root, *row, *arguments)
            rows.append([name, *run])
    print(report.markdown(COLUMNS, rows))


if __name__ == "__main__":
    console.run(main)
