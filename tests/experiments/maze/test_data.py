import numpy as np
import pytest

from ambient_jax.data.rlds import open_dataset
from experiments.maze import data, planners, rollout
from experiments.maze.env import WORLD

SIZES = {"clean": 2, "corrupt": 12, "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("maze")
    return root, data.build(root, **SIZES)


@pytest.mark.parametrize(("name", "count"), [("gcs", 2), ("rrt", 12)])
def test_episodes_read_back(built, name, count):
    dataset = open_dataset(built[1][name])
    plans = planners.generate(name, count, workers=1, progress=False)
    assert (dataset.name, dataset.version, len(dataset)) == (f"maze_{name}", "1.0.0", count)
    for index, path in enumerate(plans.positions):
        episode = dataset[index]
        steps, metadata = episode["steps"], episode["episode_metadata"]
        goal = plans.goals[index].astype(np.float32)
        observation, action = steps["observation"], steps["action"]
        np.testing.assert_array_equal(observation["state"], path[:-1].astype(np.float32))
        np.testing.assert_array_equal(action, path[1:].astype(np.float32))
        np.testing.assert_array_equal(observation["state"][1:], action[:-1])
        np.testing.assert_array_equal(observation["state"][0], np.float32(WORLD.start))
        np.testing.assert_array_equal(observation["goal"], np.tile(goal, (len(action), 1)))
        np.testing.assert_array_equal(action[-1], goal)
        assert steps["is_first"].nonzero()[0].tolist() == [0]
        for flag in ("is_last", "is_terminal", "reward"):
            assert steps[flag].nonzero()[0].tolist() == [len(action) - 1]
        np.testing.assert_array_equal(steps["discount"], 1 - steps["is_terminal"])
        assert metadata["planner"] in (name, name.encode())
        assert (metadata["seed"], metadata["index"]) == (0, plans.attempts[index])
        np.testing.assert_array_equal(metadata["goal"], goal)


def test_replayed_actions_succeed_in_the_environment(built):
    paths = data.load_positions(built[1]["gcs"]) + data.load_positions(built[1]["rrt"])
    longest = max(map(len, paths))
    whole = np.stack([np.pad(p, ((0, longest - len(p)), (0, 0)), "edge") for p in paths])
    goals = np.array([p[-1] for p in paths])
    result = rollout.Simulator(lambda plans, *_: plans)(whole[:, 1:], goals)
    assert result.success.all()


def stamp(directory):
    return (directory / "dataset_info.json").stat().st_mtime_ns


def test_same_arguments_are_cached_and_others_rebuilt(tmp_path, monkeypatch):
    first = data.build(tmp_path, **SIZES)
    before = {name: stamp(path) for name, path in first.items()}
    with monkeypatch.context() as patch:
        patch.setattr(planners, "generate", None)  # planning again would raise
        assert data.build(tmp_path, **SIZES) == first
    again = data.build(tmp_path, **{**SIZES, "corrupt": 13})
    assert again == first
    assert stamp(again["gcs"]) == before["gcs"]
    assert stamp(again["rrt"]) != before["rrt"]
    assert len(open_dataset(again["rrt"])) == 13


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def dies_half_way(*args):
        yield from list(real(*args))[:6]
        raise KeyboardInterrupt

    real = data.episodes
    with monkeypatch.context() as patch:
        patch.setattr(data, "episodes", dies_half_way)
        with pytest.raises(KeyboardInterrupt):
            data.build(tmp_path, **{**SIZES, "clean": 8})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_seed_changes_the_data(built, tmp_path):
    other = data.build(tmp_path, **{**SIZES, "seed": 1})
    first = data.load_positions(built[1]["rrt"])[0]
    assert not np.array_equal(first[-1], data.load_positions(other["rrt"])[0][-1])


@pytest.mark.parametrize("wrong", [{"clean": 0}, {"corrupt": -1}, {"seed": -1}])
def test_bad_input(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected at least 1 and a non-negative seed"):
        data.build(tmp_path, **{**SIZES, **wrong})


def test_load_positions_names_a_missing_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        data.load_positions(tmp_path / "absent")
