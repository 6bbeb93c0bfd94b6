"""Times shuffled pictures of videos beside LeRobot's own loader, on the same data and cores.

Both read one LeRobot v3.0 data set of 256x256 pictures that LeRobot wrote (a key picture at every
second one), and hand out batches of 64 in random order. They take turns, each stopped during the
other's; the spread is that of all turns. Processor time is that of all processes of a side.

ours    ``pipeline.stream_batches``: episodes in random order, decoded from front to back; their
        steps are shuffled among ``WINDOW``; with each picture comes a normalised chunk of 16
        actions and a noise level. uint8 [64, h, w, 3].
theirs  ``LeRobotDataset`` with its decoder in a ``DataLoader`` of two workers, ``shuffle=True``:
        one seek a picture. float32 [64, 3, h, w], which its items always are.

    AMBIENT_JAX_LEROBOT_PYTHON=<a Python with lerobot> python -m experiments.benchmarks.videos

tests/data/storage/lerobot_recipe.py says how to make one.
"""

import glob
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from ambient_jax import mixing, schedules
from ambient_jax.cli import console, report
from ambient_jax.data import pipeline
from ambient_jax.train import config as train_config
from experiments.benchmarks.videos_lerobot import BATCH

_REPEATS = flags.DEFINE_integer("repeats", 7, "Turns of each side.")
_SECONDS = flags.DEFINE_float("seconds", 5.0, "Length of a turn, in about.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Our threads, their processes, the cores of both.")
_EPISODES = flags.DEFINE_integer("episodes", 40, "Episodes of the data set.")
_CODECS = flags.DEFINE_multi_enum("codec", ["libsvtav1", "h264"], ["libsvtav1", "h264"], "Rows.")
_SERVE = flags.DEFINE_string("serve", "", "Be our side, for this data set.")

VARIABLE = "AMBIENT_JAX_LEROBOT_PYTHON"
CAMERA = "observation.images.front"
SIZE, WINDOW, HORIZON, AHEAD = 256, 1000, 16, 4
COLUMNS = ("", "ours/s", "LeRobot/s", "ours / LeRobot", "ours, us", "LeRobot, us", "LeRobot / ours")
_ROOT = pathlib.Path(__file__).parents[2]
RECIPE = _ROOT / "tests" / "data" / "storage" / "lerobot_recipe.py"


def build(python: str, folder: str, codec: str) -> None:
    """LeRobot writes the data set: episodes of 60 to 120 steps."""
    lengths = np.random.default_rng(0).integers(60, 121, _EPISODES.value).tolist()
    command = [python, str(RECIPE), "write", folder, codec, str(SIZE), json.dumps(lengths)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ChildProcessError(f"LeRobot wrote no data set: {done.stderr[-1000:]}")


def pictures(folder: str, workers: int) -> Iterator[np.ndarray]:
    """Batches [64, h, w, 3] without end, of ``pipeline.stream_batches``."""
    config = train_config.default().data
    config.placement, config.history, config.horizon = "stream", 1, HORIZON
    config.shuffle_window, config.prefetch = WINDOW, AHEAD
    form = config.open_x
    form.cameras, form.image_size, form.workers = ("primary",), (SIZE, SIZE), workers
    form.action_width = form.state_width = 8
    spec = {
        "hz": 10,
        "action": "joint action[0:3]",
        "state": "observation/state",
        "primary": "observation/images.front",
    }
    config.sources.videos = train_config.source(folder, "clean", open_x=spec)
    law = mixing.Ambient()
    cache = os.path.join(os.path.dirname(folder), "cache")
    mixture = pipeline.open_mixture(config, law, cache=cache)
    batches = pipeline.stream_batches(mixture, law, schedules.vp(), seed=0, batch_size=BATCH)
    for batch in batches:
        yield batch["observation"]["image_primary"][:, 0]


def serve(folder: str) -> None:
    """Our side: as ``videos_lerobot`` answers."""
    side = pictures(folder, _WORKERS.value)
    print(json.dumps(np.mean([next(side).mean() for _ in range(8)])), flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            assert next(side).shape == (BATCH, SIZE, SIZE, 3)
        print(json.dumps(True), flush=True)


class Side:
    """A side in a group of processes of its own, which run only during its turns."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.mean = self._answer()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            status, command = self.process.wait(), " ".join(self.process.args)
            raise ChildProcessError(f"{command} ended with status {status}")
        os.killpg(self.process.pid, signal.SIGSTOP)
        return json.loads(line)

    def _processor(self) -> float:
        """Seconds of processor time of all its processes, and of those that they waited for."""
        ticks = 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                fields = pathlib.Path(path).read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[2]) == self.process.pid:
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def turn(self, count: int) -> dict[str, float]:
        """Pictures/s, and processor time of a picture in us."""
        before, begin = self._processor(), time.perf_counter()
        os.killpg(self.process.pid, signal.SIGCONT)
        print(count, file=self.process.stdin, flush=True)
        self._answer()
        seconds, number = time.perf_counter() - begin, count * BATCH
        return {"rate": number / seconds, "cpu": (self._processor() - before) / number * 1e6}

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def compare(python: str, root: str, codec: str) -> list[str]:
    """The row of a codec."""
    folder = os.path.join(root, codec)
    build(python, folder, codec)
    workers = str(_WORKERS.value)
    ours = [sys.executable, "-m", "experiments.benchmarks.videos", f"--serve={folder}"]
    theirs = [python, str(pathlib.Path(__file__).with_name("videos_lerobot.py")), folder]
    sides = [Side([*ours, f"--workers={workers}"]), Side([*theirs, CAMERA, workers])]
    try:
        assert abs(sides[0].mean - sides[1].mean) < 4  # the same pictures
        counts = [8, 8]
        for _ in range(2):
            rates = [side.turn(count)["rate"] for side, count in zip(sides, counts, strict=True)]
            counts = [max(4, int(_SECONDS.value * rate / BATCH)) for rate in rates]
        pairs = [
            [s.turn(n) for s, n in zip(sides, counts, strict=True)] for _ in range(_REPEATS.value)
        ]
    finally:
        for side in sides:
            side.close()
    cells = [codec]
    for measure, ahead in (("rate", 0), ("cpu", 1)):
        values = np.array([[side[measure] for side in pair] for pair in pairs])
        ratios = values[:, ahead] / values[:, 1 - ahead]
        for numbers, form in ((values[:, 0], ",.0f"), (values[:, 1], ",.0f"), (ratios, ".2f")):
            low, high = f"{min(numbers):{form}}", f"{max(numbers):{form}}"
            cells.append(f"{np.median(numbers):{form}} ({low} to {high})")
    return cells


@console.one_line_errors()
def main(argv):
    del argv
    cores = sorted(os.sched_getaffinity(0))[: _WORKERS.value]
    os.sched_setaffinity(0, cores)  # and so of all processes from here on
    if _SERVE.value:
        serve(_SERVE.value)
        return
    python = os.environ.get(VARIABLE)
    if not python:
        print(f"needs {VARIABLE}, a Python that has lerobot: {RECIPE} says how to make one")
        return
    print(
        f"{len(cores)} cores; pictures/s and microseconds of processor time a picture: median "
        f"(least to most) of {_REPEATS.value} turns\n"
    )
    with tempfile.TemporaryDirectory() as root:
        rows = [compare(python, root, codec) for codec in dict.fromkeys(_CODECS.value)]
    print(report.markdown(COLUMNS, rows))


if __name__ == "__main__":
    console.run(main)
