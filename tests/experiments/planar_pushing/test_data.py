import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ambient_jax.data.rlds import open_dataset
from experiments import demos
from experiments.planar_pushing import data, expert
from experiments.planar_pushing.env import PlanarPushingEnv
from experiments.planar_pushing.scene import SOURCE, TARGET, Physics, Scene, between

ROOT = pathlib.Path(__file__).parents[3]
SIZES = {"target": 2, "source": 3, "held_out": 1, "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return data.build(tmp_path_factory.mktemp("push"), **SIZES)


@pytest.mark.parametrize(("world", "count"), [("target", 2), ("source", 3)])
def test_episodes_read_back_and_replay(built, world, count):
    dataset = open_dataset(built[world])
    found = data.demonstrations(world, count, workers=1, progress=False)
    env = PlanarPushingEnv(physics={"target": TARGET, "source": between(1.0)}[world])
    assert (dataset.name, dataset.version, len(dataset)) == (f"push_{world}", "1.0.0", count)
    for number, (index, demo) in enumerate(found):
        episode = dataset[number]
        steps, metadata = episode["steps"], episode["episode_metadata"]
        np.testing.assert_array_equal(steps["observation"]["state"], demo.states)
        np.testing.assert_array_equal(steps["action"], demo.actions)
        domain = [1, 0] if world == "target" else [0, 1]
        np.testing.assert_array_equal(
            steps["observation"]["domain"], np.tile(domain, (len(demo.actions), 1))
        )
        assert steps["is_first"].nonzero()[0].tolist() == [0]
        for flag in ("is_last", "is_terminal", "reward"):
            assert steps[flag].nonzero()[0].tolist() == [len(demo.actions) - 1]
        assert metadata["world"] in (world, world.encode()) and metadata["index"] == index
        # What is on disk ends the episode in the world it was made for, at its last step.
        begin = 1_000_000 * (1 + data.WORLDS.index(world)) + index
        again = expert.replay(env, int(begin), steps["action"])
        assert again.success and len(again.actions) == len(demo.actions)


def test_held_out_starts_are_others(built):
    firsts = [open_dataset(path)[0]["steps"]["observation"]["state"][0] for path in built.values()]
    assert len(firsts) == 4 and len({tuple(first) for first in firsts}) == 4


def test_what_it_was_built_from_is_remembered(tmp_path, monkeypatch):
    stamp = lambda path: (path / "dataset_info.json").stat().st_mtime_ns  # noqa: E731
    sizes = {**SIZES, "held_out": 0}
    first = data.build(tmp_path, **sizes)
    before = {name: stamp(path) for name, path in first.items()}
    with monkeypatch.context() as patch:
        patch.setattr(expert, "demonstrate", None)  # doing it again would raise
        assert data.build(tmp_path, **sizes) == first
    again = data.build(tmp_path, **sizes, gap=0.5)  # the source's physics alone
    assert stamp(again["target"]) == before["target"]
    assert stamp(again["source"]) != before["source"]


def test_workers_do_not_change_the_demonstrations():
    one = list(data.demonstrations("source", 3, workers=1, progress=False))
    two = list(data.demonstrations("source", 3, workers=2, progress=False))
    for (index, demo), (other_index, other) in zip(one, two, strict=True):
        assert index == other_index
        np.testing.assert_array_equal(demo.states, other.states)


def test_failed_attempts_are_left_out():
    assert data.attempt(Scene(max_steps=5), SOURCE, "source", "", 0, 0) is None
    assert data.attempt(Scene(), SOURCE, "source", "", 0, 0).success


@pytest.mark.parametrize("wrong", [{"source": -1}, {"held_out": -1}, {"seed": 901}])
def test_bad_input(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected no negative count and a seed in 0 to 900"):
        data.build(tmp_path, **{**SIZES, **wrong})
    with pytest.raises(ValueError, match="world"):
        next(data.demonstrations("moon", 1))


def test_images_are_written(tmp_path):
    try:
        PlanarPushingEnv(camera="top").reset(seed=0)
    except OSError as error:
        pytest.skip(f"no OpenGL here: {error}")
    sizes = {**SIZES, "target": 1, "source": 0, "held_out": 0}
    steps = open_dataset(data.build(tmp_path, **sizes, camera="top")["target"])[0]["steps"]
    images, state = steps["observation"]["image"], steps["observation"]["state"]
    assert images.shape == (len(state), 96, 96, 3) and images.dtype == np.uint8
    demo = data.attempt(Scene(), TARGET, "target", "top", 0, 0)
    np.testing.assert_array_equal(images, demo.images)
    np.testing.assert_array_equal(state, demo.states)
    # The pusher comes from the bottom of the image to where the slider is, and both move.
    assert (images[0] != images[-1]).any(-1).sum() > 50


@pytest.mark.parametrize("knobs", ["lag,delay", "drag"])
def test_command_line(tmp_path, knobs):
    counts = ("--target=0", "--source=1", "--held_out=0")
    command = [sys.executable, "-m", "experiments.planar_pushing.data", f"--root={tmp_path}"]
    done = subprocess.run(
        [*command, *counts, f"--knobs={knobs}"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if knobs == "drag":
        assert done.returncode == 1 and "error: unknown knobs ['drag']" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        built = demos.built_from(tmp_path / "push_source" / data.VERSION)
        assert Physics(**built["physics"]) == between(1.0, ("lag", "delay"))
