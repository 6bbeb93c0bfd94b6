"""LeRobot's own package, in a process of its own, beside our reader and our writer.

``AMBIENT_JAX_LEROBOT_PYTHON`` names a Python that has it; ``lerobot_recipe.py`` says how to make
one.
"""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

from ambient_jax.data import storage
from ambient_jax.data.features import flatten
from ambient_jax.data.storage.lerobot_schema import path_of
from ambient_jax.data.storage.lerobot_write import write_lerobot
from tests.data.storage import lerobot_folders, lerobot_recipe

pytestmark = pytest.mark.slow
VARIABLE = "AMBIENT_JAX_LEROBOT_PYTHON"
RECIPE = pathlib.Path(lerobot_recipe.__file__)
LENGTHS = (12, 5, 9, 2, 7)


@pytest.fixture(scope="module")
def package():
    """``package(job, folder, ...)`` runs the recipe by LeRobot's Python."""
    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"{VARIABLE} names no Python that has lerobot ({RECIPE} says how to make one)")

    def run(*arguments):
        environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
        command = [python, str(RECIPE), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    return run


@pytest.fixture(scope="module", params=["libsvtav1", "h264"])
def theirs(package, request, tmp_path_factory):
    """A data set that LeRobot wrote, and all that its reader gives."""
    root = tmp_path_factory.mktemp("theirs")
    package("write", root / "data", request.param)
    package("read", root / "data", root / "read.npz")
    return root / "data", np.load(root / "read.npz")


def rows_of(data):
    """(flat episode, its rows in the whole set) one after another."""
    first = 0
    for position in range(len(data)):
        flat = flatten(data[position])
        length = len(flat["steps/action"])
        yield flat, slice(first, first + length)
        first += length


def assert_reads_alike(data, read, but=()):
    """Our episodes hold what LeRobot's reader gave, bit for bit, and nothing is left over."""
    count = 0
    for flat, rows in rows_of(data):
        for name in set(read.files) - {"task", "stats", "episodes", *but}:
            got, expected = flat[path_of(name)], read[name][rows]
            if isinstance(got, storage.video.Clip):
                got = got.decode()
            elif got.dtype == object and isinstance(got[0], bytes) and expected.ndim == 4:
                got = np.stack([lerobot_folders.unpng(blob) for blob in got])
            elif got.dtype == object:
                got = np.array([t.decode() for t in got])
            else:  # their reader makes float32 of float64
                got = got.astype(expected.dtype)
            np.testing.assert_array_equal(got, expected.reshape(got.shape), err_msg=name)
        language = [t.decode() for t in flat["steps/language_instruction"]]
        assert language == read["task"][rows].tolist()
        count = rows.stop
    assert count == len(read["action"]) and len(data) == read["episodes"]


def test_what_lerobot_wrote_is_read_as_lerobot_reads_it(theirs):
    folder, read = theirs
    data = storage.open_dataset(folder)
    assert data.hz == lerobot_recipe.HZ
    assert_reads_alike(data, read)


def test_what_lerobot_wrote_is_what_it_was_given(theirs):
    data = storage.open_dataset(theirs[0])
    assert [len(flat["steps/action"]) for flat, _ in rows_of(data)] == list(LENGTHS)
    for episode, (flat, _) in enumerate(rows_of(data)):
        for step in range(LENGTHS[episode]):
            for name, value in lerobot_recipe.values(episode, step).items():
                got = flat[path_of(name)][step]
                got = got.decode() if isinstance(got, bytes) else got
                np.testing.assert_array_equal(got, np.reshape(value, np.shape(got)))
        text = lerobot_recipe.TASKS[episode % 2].encode()
        assert set(flat["steps/language_instruction"]) == {text}
        for number, camera in enumerate((lerobot_recipe.FRONT, lerobot_recipe.WRIST)):
            given = [
                lerobot_recipe.shades(episode, step, 64, 64, number)
                for step in range(LENGTHS[episode])
            ]
            pictures = flat[path_of(camera)].decode().astype(float)
            assert np.mean((pictures - np.stack(given)) ** 2) < 255**2 / 10**2.5  # 25 dB at crf 30


def test_videos_and_tables_of_lerobot_break_at_other_episodes(theirs):
    folder, _ = theirs
    meta = storage.open_dataset(folder).meta
    if not meta.is_v3:
        return
    tables = [row["data/file_index"] for row in meta.episodes]
    videos = [row[f"videos/{lerobot_recipe.FRONT}/file_index"] for row in meta.episodes]
    assert tables != videos and len(set(tables)) > 1


def test_lerobot_reads_what_we_write(theirs, package, tmp_path):
    data = storage.open_dataset(theirs[0])
    for videos in ("lossless", "h264", "av1", ""):
        path = write_lerobot(tmp_path / (videos or "tables"), data, videos=videos)
        if not data.meta.is_v3:  # a package of that age cannot read v3.0
            continue
        package("read", path, tmp_path / f"{path.name}.npz")
        read = np.load(tmp_path / f"{path.name}.npz")
        new = storage.open_dataset(path)
        assert_reads_alike(new, read)
        if videos in ("", "lossless"):
            assert_reads_alike(data, read)
        # Their statistics of numbers are those of the numbers.
        stats = json.loads(str(read["stats"]))
        actions = np.concatenate([flat["steps/action"] for flat, _ in rows_of(data)])
        np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), rtol=1e-6)
        np.testing.assert_allclose(stats["action"]["std"], actions.std(0), rtol=1e-6)
