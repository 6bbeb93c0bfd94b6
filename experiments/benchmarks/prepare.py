"""Times the pass for statistics: in one process, and on Apache Beam with 1, 2 and 4 processes.

Fixtures of the registry's data sets with camera images, in shards, as the common form reads them;
the processes start, import and connect within the time. All passes take turns, each into an empty
cache, and must leave the same files, byte for byte. The last row is what remains for a training:
opening the sources with the cache.

    python -m experiments.benchmarks.prepare
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags

from ambient_jax import mixing
from ambient_jax.cli import console, report
from ambient_jax.data import mixture, write
from ambient_jax.open_x import fixtures, registry
from ambient_jax.train import config as train_config
from ambient_jax.train import mixtures
from experiments.benchmarks import harness

_REPEATS = flags.DEFINE_integer("repeats", 1, "Turns.", lower_bound=1)
_SHARDS = flags.DEFINE_integer("shards", 16, "Shards of each data set.", lower_bound=1)
_EPISODES = flags.DEFINE_integer("episodes", 8, "Episodes of a shard.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "", "Folder for table.md and results.json; none by default.")

NAMES, LENGTH = ("bridge_orig", "taco_play"), 40  # data sets, steps of an episode
PROCESSES = (0, 1, 2, 4)
_ALL_BYTES = 4.9 * 2**40  # of Magic Soup++, by the sizes of the TFDS catalogue
COLUMNS = ("pass", "seconds", "single pass / it", "95% interval")


def build(root: str, shards: int, episodes: int) -> None:
    """Writes the data sets; all shards of one hold the same episodes."""
    for number, name in enumerate(NAMES):
        few = [fixtures.episode(name, LENGTH, 100 * number + i) for i in range(episodes)]
        write.write_dataset(
            os.path.join(root, "data"),
            name=fixtures.folder(name),
            version=registry.get(name).version or "0.1.0",
            features=fixtures.features(name),
            episodes=few * shards,
            file_format=("tfrecord", "array_record")[number % 2],
            shards=shards,
        )


def section(root: str):
    """Returns the data section, in the form of the Open-X mixtures."""
    data = train_config.default().data
    data.root, data.placement = os.path.join(root, "data"), "stream"
    data.open_x.update(mixtures.FORM)
    mixtures.add(data, dict.fromkeys(NAMES, 1.0))
    for name, source in data.sources.items():
        source.path = fixtures.folder(name)
    return data


def command(root: str, processes: int, turn: int) -> pathlib.Path:
    """Runs the command into an empty cache, which it returns."""
    cache = pathlib.Path(root, f"cache-{processes}-{turn}")
    config = pathlib.Path(root, "config.py")
    config.write_text(
        "from ambient_jax.train import config as train_config\n"
        "from experiments.benchmarks import prepare\n\n"
        "def get_config():\n"
        "    config = train_config.default()\n"
        f"    config.data = prepare.section({root!r})\n"
        "    return config\n"
    )
    _quietly("ambient_jax.data.prepare", f"--config={config}", f"--cache={cache}", processes)
    return cache


def _quietly(module, *arguments):
    *given, processes = arguments
    line = [sys.executable, "-m", module, *given, f"--processes={processes}"]
    ended = subprocess.run(line, capture_output=True, text=True)
    if ended.returncode:
        raise ValueError(f"{' '.join(line)} ended with {ended.returncode}: {ended.stderr[-2000:]}")


def measure(root: str, repeats: int) -> tuple[np.ndarray, float]:
    """Returns seconds [passes, repeats], and those of opening the sources with the cache."""
    seconds = np.zeros((len(PROCESSES), repeats))
    first: dict[str, bytes] = {}
    for turn in range(repeats):
        for row, processes in zip(seconds, PROCESSES, strict=True):
            begin = time.perf_counter()
            cache = command(root, processes, turn)
            row[turn] = time.perf_counter() - begin
            found = {p.name: p.read_bytes() for p in cache.glob("statistics-*")}
            first = first or found
            if found != first or len(found) != len(NAMES):
                raise ValueError(f"{processes} processes left other files than the single pass")
    data, law = section(root), mixing.CoTraining()
    os.environ["AMBIENT_JAX_CACHE"] = os.fspath(cache)
    begin = time.perf_counter()
    mixture.open_mixture(data, law)
    return seconds, time.perf_counter() - begin


def main(argv: list[str]) -> None:
    console.setup()
    with tempfile.TemporaryDirectory() as root:
        build(root, _SHARDS.value, _EPISODES.value)
        size = sum(p.stat().st_size for p in pathlib.Path(root).rglob("*") if p.is_file())
        seconds, opening = measure(root, _REPEATS.value)
    rows = []
    results: dict[str, Any] = {"bytes": size, "opening": opening, "passes": {}}
    for processes, taken in zip(PROCESSES, seconds, strict=True):
        pair = np.stack([taken, seconds[0]])
        middle, low, high = harness.ratio(pair)
        name = f"Beam, processes: {processes}" if processes else "this process, without Beam"
        interval = f"{low:.2f} to {high:.2f}" if _REPEATS.value > 1 else ""
        rows.append((name, f"{np.median(taken):.1f}", f"{middle:.2f}", interval))
        results["passes"][str(processes)] = taken.tolist()
    rows.append(("opening with the cache", f"{opening:.2f}", "", ""))
    count = _SHARDS.value * _EPISODES.value * len(NAMES)
    rate = count / float(np.median(seconds[0]))
    hours = _ALL_BYTES / (size / float(np.median(seconds[0]))) / 3600
    caption = (
        f"{count} episodes of {LENGTH} steps in {_SHARDS.value * len(NAMES)} shards, "
        f"{size / 2**20:.0f} MiB, {os.cpu_count()} cores, {_REPEATS.value} turns. The single pass "
        f"measures {rate:.3g} episodes/s, start included. At its rate in bytes the 4.9 TiB of "
        f"Magic Soup++ would take one process {hours:.3g} hours."
    )
    print(report.markdown(COLUMNS, rows), f"\n\n{caption}")
    if _OUT.value:
        report.write(pathlib.Path(_OUT.value), COLUMNS, rows, caption, results)


if __name__ == "__main__":
    console.run(main)
