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

import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import numpy as np
from absl import flags

from ambient_jax import mixing, schedules
from ambient_jax.cli import console, report
from ambient_jax.data import pipeline
from ambient_jax.train import config as train_config
from experiments.benchmarks import sides
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


def compare(python: str, root: str, codec: str) -> list[str]:
    """The row of a codec."""
    folder = os.path.join(root, codec)
    build(python, folder, codec)
    workers, script = str(_WORKERS.value), pathlib.Path(__file__).with_name("videos_lerobot.py")
    ours = sides.of_module(__spec__.name, f"--serve={folder}", f"--workers={workers}")
    with sides.started([ours, [python, str(script), folder, CAMERA, workers]]) as pair:
        assert abs(pair[0].mean - 255 * pair[1].mean) < 4  # the same pictures
        turns = sides.take_turns(pair, _REPEATS.value, _SECONDS.value, BATCH)
    return [codec, *sides.pair_cells(turns)]


@console.one_line_errors()
def main(argv):
    del argv
    cores = sorted(os.sched_getaffinity(0))[: _WORKERS.value]
    os.sched_setaffinity(0, cores)  # and so of all processes from here on
    if _SERVE.value:
        sides.serve(pictures(_SERVE.value, _WORKERS.value), 8)
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
