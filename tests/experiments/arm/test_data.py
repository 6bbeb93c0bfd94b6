"""Data sets: what is written is what was planned, and again backwards."""

import numpy as np
import pytest

from ambient_jax.data.rlds import open_dataset
from experiments.arm import data, planners, scene, timing

QUIET = dict(workers=1, progress=False)
COUNTS = dict(clean=1, corrupt=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return data.build(tmp_path_factory.mktemp("arm"), **COUNTS, **QUIET)


def test_episodes_hold_plans_both_ways(built):
    made = planners.generate("rrt", 2, data.stream("rrt", 0), **QUIET)
    dataset = open_dataset(built["rrt"])
    assert len(dataset) == 4
    hand = scene.hand_position()
    for number, (index, (problem, plan)) in enumerate(made):
        there, back = (dataset[2 * number + i] for i in (0, 1))
        seen, action = there["steps"]["observation"], there["steps"]["action"]
        assert action.shape == (1, timing.STEPS * scene.JOINTS)
        np.testing.assert_allclose(action.reshape(timing.STEPS, scene.JOINTS), plan[1:], atol=1e-6)
        np.testing.assert_allclose(seen["start"][0], problem.start, atol=1e-6)
        np.testing.assert_allclose(seen["scene"][0], problem.scene, atol=1e-6)
        np.testing.assert_allclose(seen["hands"][0, 3:], hand(problem.goal), atol=1e-6)
        turned = back["steps"]["action"].reshape(timing.STEPS, scene.JOINTS)
        np.testing.assert_allclose(turned, plan[-2::-1], atol=1e-6)
        np.testing.assert_array_equal(back["steps"]["observation"]["start"], seen["goal"])
        assert there["episode_metadata"]["index"] == index
        assert bool(back["episode_metadata"]["backwards"])


def test_plans_are_read_back_once(built):
    plans = data.load_plans(built["rrt"])
    assert len(plans) == 2
    assert all(plan.shape == (timing.STEPS + 1, scene.JOINTS) for plan in plans)
    steps = open_dataset(built["rrt"])[2]["steps"]
    np.testing.assert_array_equal(plans[1][0], steps["observation"]["start"][0])


def test_data_are_built_once(built, monkeypatch):
    monkeypatch.setattr(planners, "generate", None)  # planning again would raise
    assert data.build(built["rrt"].parents[1], **COUNTS, **QUIET) == built


def test_wrong_counts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="asked for 0 smooth, 2 rrt"):
        data.build(tmp_path, clean=0, corrupt=2)
