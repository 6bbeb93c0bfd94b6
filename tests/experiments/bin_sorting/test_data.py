import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ambient_jax.data.rlds import open_dataset
from experiments.bin_sorting import data, expert
from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.scene import Scene

ROOT = pathlib.Path(__file__).parents[3]
SCENE = Scene(red=1, blue=1)
SIZES = {"correct": 2, "arbitrary": 3, "opposite": 2, "held_out": 1}
SIZES |= {"scene": SCENE, "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return data.build(tmp_path_factory.mktemp("bins"), **SIZES)


@pytest.mark.parametrize(("rule", "count"), [("correct", 2), ("arbitrary", 3), ("opposite", 2)])
def test_episodes_read_back(built, rule, count):
    dataset = open_dataset(built[rule])
    found = data.demonstrations(rule, count, scene=SCENE, workers=1, progress=False)
    assert (dataset.name, dataset.version, len(dataset)) == (f"bins_{rule}", "1.0.0", count)
    for number, (index, demo) in enumerate(found):
        episode = dataset[number]
        steps, metadata = episode["steps"], episode["episode_metadata"]
        np.testing.assert_array_equal(steps["observation"]["state"], demo.states)
        np.testing.assert_array_equal(steps["action"], demo.actions)
        task = [1, 0] if rule == "correct" else [0, 1]
        np.testing.assert_array_equal(
            steps["observation"]["task"], np.tile(task, (len(demo.actions), 1))
        )
        assert steps["is_first"].nonzero()[0].tolist() == [0]
        for flag in ("is_last", "is_terminal", "reward"):
            assert steps[flag].nonzero()[0].tolist() == [len(demo.actions) - 1]
        assert metadata["rule"] in (rule, rule.encode()) and metadata["index"] == index
        np.testing.assert_array_equal(metadata["bins"], demo.placements)


def test_replayed_actions_end_the_episode(built):
    """The scene is not on disk but its seed is: the recorded actions complete it."""
    episode = open_dataset(built["opposite"])[1]
    index = int(episode["episode_metadata"]["index"])
    again = data.attempt(SCENE, "opposite", "", 0, index)
    np.testing.assert_array_equal(again.states, episode["steps"]["observation"]["state"])


def test_held_out_scenes_are_others(built):
    first = open_dataset(built["correct"])[0]["steps"]["observation"]["state"]
    held_out = open_dataset(built["correct_held_out"])[0]["steps"]["observation"]["state"]
    opposite = open_dataset(built["opposite"])[0]["steps"]["observation"]["state"]
    assert (first[0] != held_out[0]).any() and (first[0] != opposite[0]).any()


def stamp(directory):
    return (directory / "dataset_info.json").stat().st_mtime_ns


def test_same_arguments_are_cached_and_others_rebuilt(tmp_path, monkeypatch):
    sizes = {**SIZES, "held_out": 0}
    first = data.build(tmp_path, **sizes)
    before = {name: stamp(path) for name, path in first.items()}
    with monkeypatch.context() as patch:
        patch.setattr(expert, "demonstrate", None)  # doing it again would raise
        assert data.build(tmp_path, **sizes) == first
    again = data.build(tmp_path, **{**sizes, "arbitrary": 4})
    assert stamp(again["correct"]) == before["correct"]
    assert stamp(again["arbitrary"]) != before["arbitrary"]
    assert len(open_dataset(again["arbitrary"])) == 4


def test_workers_do_not_change_the_demonstrations():
    options = dict(scene=SCENE, progress=False)
    one = list(data.demonstrations("arbitrary", 3, workers=1, **options))
    two = list(data.demonstrations("arbitrary", 3, workers=2, **options))
    for (index, demo), (other_index, other) in zip(one, two, strict=True):
        assert index == other_index
        np.testing.assert_array_equal(demo.states, other.states)


def test_failed_attempts_are_replaced_and_too_many_refused(monkeypatch):
    real = data.attempt
    monkeypatch.setattr(data, "attempt", lambda *a: real(*a) if a[-1] != 1 else None)
    options = dict(scene=SCENE, workers=1, progress=False)
    found = data.demonstrations("correct", 3, **options)
    assert [index for index, _ in found] == [0, 2, 3]
    monkeypatch.setattr(data, "attempt", lambda *a: None)
    with pytest.raises(ValueError, match="12 of 12 demonstrations failed"):
        list(data.demonstrations("correct", 6, **options))


def test_images_are_written(tmp_path):
    try:
        BinSortingEnv(SCENE, camera="top").reset(seed=0)
    except OSError as error:
        pytest.skip(f"no OpenGL here: {error}")
    sizes = {**SIZES, "correct": 1, "arbitrary": 0, "opposite": 0, "held_out": 0}
    built = data.build(tmp_path, **sizes, camera="top")
    steps = open_dataset(built["correct"])[0]["steps"]
    demo = data.attempt(SCENE, "correct", "top", 0, 0)
    np.testing.assert_array_equal(steps["observation"]["image"], demo.images)


@pytest.mark.parametrize("wrong", [{"correct": -1}, {"held_out": -1}, {"seed": -1}])
def test_bad_input(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected no negative count and a seed in 0 to 600"):
        data.build(tmp_path, **{**SIZES, **wrong})


def test_command_line_tells_bad_input_in_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.bin_sorting.data", f"--root={tmp_path}"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    options = dict(env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    done = subprocess.run([*command, "--seed=601"], **options)
    assert done.returncode == 1 and "error: asked for" in done.stderr
    assert "Traceback" not in done.stderr
