"""Times the stream of training batches and watches its memory, beside Grain's own transformations.

Two sources of low-dimensional episodes, noise first, batches of 256, a window of 10,000 chunks a
source. Each row runs in a process of its own: elements/s of the steady stream in one process, and
its resident memory after 20k and 200k elements, which must not grow. The last row chains Grain's
shuffle, flat_map, window shuffle, mix and batch over the same episodes, chunk by chunk (with fixed
shares of the sources: it cannot draw the source by noise level).

    python -m experiments.benchmarks.loader --elements=200000
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import grain
import ml_collections
import numpy as np
from absl import app, flags

from ambient_jax import mixing, schedules
from ambient_jax.data import chunk, pipeline, write
from ambient_jax.train import config as train_config

_ELEMENTS = flags.DEFINE_integer("elements", 200_000, "Elements to draw; memory is compared there.")
_BATCH = flags.DEFINE_integer("batch", 256, "Batch size.")
_WINDOW = flags.DEFINE_integer("window", 10_000, "Shuffle window in chunks, for each source.")
_PROFILE = flags.DEFINE_boolean("profile", False, "Profile the first row instead.")

WARM_UP = 20_000  # elements
EPISODES = {"clean": 100, "corrupt": 3000}
ROWS = {
    "ours, array_record": ("array_record", "ours"),
    "ours, tfrecord": ("tfrecord", "ours"),
    "Grain's transformations, array_record": ("array_record", "grain"),
}


def episodes(count: int, seed: int) -> list[dict[str, Any]]:
    """Random episodes of 40 to 120 steps: a state of 7, a goal of 3 and an action of 7 numbers."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(rng.integers(40, 120))
        vectors = lambda size, length=length: rng.normal(size=(length, size)).astype(np.float32)  # noqa: E731
        steps = {"observation": {"state": vectors(7), "goal": vectors(3)}, "action": vectors(7)}
        for name in ("is_first", "is_last", "is_terminal"):
            steps[name] = np.zeros(length, bool)
        for name in ("reward", "discount"):
            steps[name] = np.zeros(length, np.float32)
        made.append({"steps": steps})
    return made


def build(root: str, file_format: str) -> None:
    """Writes both sources."""
    vector = lambda size: np.zeros(size, np.float32)  # noqa: E731
    features = write.rlds_features({"state": vector(7), "goal": vector(3)}, vector(7))
    for seed, (name, count) in enumerate(EPISODES.items()):
        write.write_dataset(
            os.path.join(root, file_format),
            name=name,
            version="1.0.0",
            features=features,
            episodes=episodes(count, seed),
            file_format=file_format,
            shards=4,
        )


def configure(root: str, file_format: str) -> ml_collections.ConfigDict:
    config = train_config.default().data
    config.root, config.placement = os.path.join(root, file_format), "stream"
    config.observation = ("state", "goal")
    for name in EPISODES:
        bound = 0.0 if name == "clean" else 0.1
        config.sources[name] = train_config.source(name, name, sigma_min=bound)
    return config


def grain_batches(prepared: pipeline.Prepared, batch: int) -> Iterator[Any]:
    """The same chunks by Grain's generic transformations."""
    history, horizon = prepared.config.history, prepared.config.horizon

    class Cut(grain.experimental.FlatMapTransform):
        max_fan_out = 1000

        def flat_map(self, steps):
            length = len(steps["action"])
            return [chunk.gather(steps, t, 0, length, history, horizon, np) for t in range(length)]

    def source(k, name):
        dataset = grain.MapDataset.source(prepared.datasets[name]).shuffle(seed=k).repeat()
        chunks = grain.experimental.FlatMapIterDataset(
            dataset.map(lambda e: prepared.read(k, 0, e)).to_iter_dataset(), Cut()
        )
        return grain.experimental.WindowShuffleIterDataset(
            chunks, window_size=prepared.config.shuffle_window, seed=k
        )

    sources = [source(k, name) for k, name in enumerate(prepared.names)]
    mixed = grain.IterDataset.mix(sources, weights=np.asarray(prepared.sources.weight).tolist())
    return iter(
        grain.experimental.ThreadPrefetchIterDataset(
            mixed.batch(batch), prefetch_buffer_size=prepared.config.prefetch
        )
    )


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(
    root: str,
    file_format: str,
    kind: str,
    batch: int,
    window: int,
    elements: int,
    profile: bool = False,
) -> dict[str, float]:
    """Elements/s, and MiB resident after the warm-up and at the end."""
    config = configure(root, file_format)
    config.shuffle_window = window
    if profile:
        config.prefetch = 0  # in this thread, where the profiler sees it
    law, schedule = mixing.Ambient(), schedules.vp()
    begin = time.perf_counter()
    prepared = pipeline.prepare(config, law, cache=os.path.join(root, f"cache-{kind}"))
    prepare_seconds = time.perf_counter() - begin
    if kind == "ours":
        batches = pipeline.stream_batches(prepared, law, schedule, seed=0, batch_size=batch)
    else:
        batches = grain_batches(prepared, batch)
    for _ in range(-(-WARM_UP // batch)):
        next(batches)
    first, count = resident_mib(), max(1, (elements - WARM_UP) // batch)
    begin = time.perf_counter()
    if profile:
        _profiled(batches, count)
    else:
        for _ in range(count):
            next(batches)
    seconds, last = time.perf_counter() - begin, resident_mib()
    batches.close()
    return {
        "rate": count * batch / seconds,
        "first": first,
        "last": last,
        "steps": float(prepared.chunks.sum()) / prepare_seconds,
    }


def _profiled(batches, count):
    import cProfile
    import pstats

    with cProfile.Profile() as profiler:
        for _ in range(count):
            next(batches)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


def main(argv):
    del argv
    arguments = _BATCH.value, _WINDOW.value, _ELEMENTS.value
    with tempfile.TemporaryDirectory() as root:
        if _PROFILE.value:
            row = next(iter(ROWS.values()))
            build(root, row[0])
            measure(root, *row, *arguments, profile=True)
            return
        print(
            "| stream | elements/s | MiB after 20k | MiB at the end | growth | statistics steps/s |"
        )
        print("|---|---|---|---|---|---|")
        for name, row in ROWS.items():
            if not os.path.exists(os.path.join(root, row[0])):
                _in_process(build, root, row[0])
            found = _in_process(measure, root, *row, *arguments)
            growth = found["last"] / found["first"] - 1
            print(
                f"| {name} | {found['rate']:,.0f} | {found['first']:.0f} | {found['last']:.0f} | "
                f"{growth:+.1%} | {found['steps']:,.0f} |",
                flush=True,
            )


def _in_process(function, *arguments):
    """Runs it in a fresh process, whose memory holds nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    app.run(main)
