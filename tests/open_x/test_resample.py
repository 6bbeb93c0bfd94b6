"""Resampling: motions compose exactly, commands stand, nothing of the episode is lost."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax.open_x import resample, standardize
from ambient_jax.open_x.spec import parse

LENGTH = 11


def make_episode(length=LENGTH, seed=0):
    rng = np.random.default_rng(seed)
    action = rng.uniform(-0.6, 0.6, (length, 7))
    action[:, 6] = rng.uniform(0, 1, length)
    return {
        "steps": {
            "observation": {"image": np.arange(length)[:, None, None, None] * np.ones((2, 2, 3))},
            "action": action,
            "number": np.arange(length),
            "is_terminal": np.arange(length) == length - 1,
            "reward": np.arange(length, dtype=np.float32),
            "discount": np.full(length, 0.5, np.float32),
        }
    }


def make_spec(rotation="rotvec", frame="base", **lines):
    action = f"xyz action[0:3]; {rotation} action[3:6]; grip action[6]"
    return parse({"hz": 10, "frame": frame, "action": action, "state": "number", **lines}, "mine")


def walk(action, frame):
    """Poses along an episode [T + 1], from homogeneous matrices."""
    pose = np.eye(4)
    path = [pose]
    for a in action:
        turn = Rotation.from_rotvec(a[3:6]).as_matrix()
        step = np.eye(4)
        if frame == "tool":
            step[:3, :3], step[:3, 3] = turn, a[:3]
            pose = pose @ step
        else:
            step[:3, :3], step[:3, 3] = turn @ pose[:3, :3], pose[:3, 3] + a[:3]
            pose = step
        path.append(pose)
    return path


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("every", [2, 3, 5])
def test_deltas_compose_exactly(frame, every):
    """The poses reached at the new steps are those of the source, to rounding."""
    episode = make_episode()
    out = standardize.standardise(
        make_spec(frame=frame), episode, hz=10 / every, rotation="rotvec"
    )["steps"]
    count = -(-LENGTH // every)
    assert len(out["action"]) == count
    fine = walk(episode["steps"]["action"], frame)
    coarse = walk(out["action"].astype(np.float64), frame)
    for n in range(count + 1):
        reached = fine[min(n * every, LENGTH)]
        np.testing.assert_allclose(coarse[n], reached, atol=2e-6)
    # Gripper: the last command given inside each new step.
    ends = [min((n + 1) * every, LENGTH) - 1 for n in range(count)]
    np.testing.assert_array_equal(
        out["action"][:, 6], episode["steps"]["action"][ends, 6].astype(np.float32)
    )
    np.testing.assert_array_equal(out["observation"]["state"][:, 0], np.arange(0, LENGTH, every))


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("hz", [4.0, 7.0, 25.0, 40.0])
def test_any_rate_reaches_the_same_end(frame, hz):
    episode = make_episode()
    out = standardize.standardise(make_spec(frame=frame), episode, hz=hz, rotation="rotvec")
    out = out["steps"]
    end = walk(episode["steps"]["action"], frame)[-1]
    np.testing.assert_allclose(walk(out["action"].astype(np.float64), frame)[-1], end, atol=1e-5)
    assert len(out["action"]) == int(np.ceil(LENGTH * hz / 10))


def test_up_by_four_splits_each_motion_in_four():
    episode = make_episode()
    out = standardize.standardise(make_spec(), episode, hz=40, rotation="rotvec")["steps"]
    wanted = np.repeat(episode["steps"]["action"], 4, axis=0)
    np.testing.assert_allclose(out["action"][:, :6], wanted[:, :6] / 4, atol=1e-6)
    np.testing.assert_allclose(out["action"][:, 6], wanted[:, 6], atol=1e-6)
    np.testing.assert_array_equal(out["observation"]["state"][:, 0], np.arange(44) // 4)


@pytest.mark.parametrize("hz", [10 / 3, 2.0, 25.0, None])
def test_rewards_ends_and_discounts_are_kept(hz):
    episode = make_episode()
    out = standardize.standardise(make_spec(), episode, hz=hz)["steps"]
    assert out["reward"].sum() == episode["steps"]["reward"].sum()
    np.testing.assert_allclose(np.prod(out["discount"]), 0.5**LENGTH)
    np.testing.assert_array_equal(np.flatnonzero(out["is_first"]), [0])
    np.testing.assert_array_equal(np.flatnonzero(out["is_last"]), [len(out["action"]) - 1])
    assert out["is_terminal"].sum() == 1 and out["is_terminal"][-1]


def test_the_reward_of_a_dropped_last_step_moves_to_the_new_last():
    spec = parse({"action": "djoint action[0:2] | diff", "drop": "first"}, "mine")
    out = standardize.standardise(spec, make_episode())["steps"]
    assert len(out["action"]) == LENGTH - 2
    assert out["is_terminal"][-1]
    np.testing.assert_array_equal(out["reward"], [1, 2, 3, 4, 5, 6, 7, 8, 9 + 10])


def test_absolute_joints_stand_and_their_differences_add():
    episode = make_episode()
    spec = parse({"hz": 10, "action": "joint action[0:2]; djoint action[2:4]; base action[4:6]"})
    out = standardize.standardise(spec, episode, hz=5)["steps"]["action"]
    raw = episode["steps"]["action"]
    np.testing.assert_allclose(out[:, :2], raw[[1, 3, 5, 7, 9, 10], :2], atol=1e-7)
    pairs = np.vstack([raw, np.zeros((1, 7))]).reshape(6, 2, 7).sum(1)
    np.testing.assert_allclose(out[:, 2:], pairs[:, 2:6], atol=1e-6)


def test_differences_then_rate_equals_every_third_position():
    """What public loaders do with 30 Hz joints: every third step, differences recomputed."""
    joints = np.cumsum(np.random.default_rng(0).normal(size=(13, 7)), 0)
    spec = parse({"hz": 30, "action": "djoint joints | diff"}, "mine")
    out = standardize.standardise(spec, {"steps": {"joints": joints}}, hz=10)["steps"]
    np.testing.assert_allclose(out["action"], np.diff(joints[::3], axis=0), atol=1e-6)


def test_rates_without_an_exact_float():
    """0.1 + 0.1 + 0.1 is not 0.3: an output step must not see the step before its own."""
    grid = resample.grid(3000, 30.0, 3.0)
    np.testing.assert_array_equal(grid.steps, np.arange(0, 3000, 10))
    np.testing.assert_array_equal(grid.commands, np.arange(9, 3000, 10))
    grid = resample.grid(300, 3.0, 30.0)
    np.testing.assert_array_equal(grid.steps, np.arange(3000) // 10)
    np.testing.assert_array_equal(grid.commands, np.arange(3000) // 10)


def test_its_own_rate_changes_nothing():
    episode = make_episode()
    spec = make_spec("rpy")
    same = standardize.standardise(spec, episode, hz=10)["steps"]["action"]
    np.testing.assert_array_equal(same, episode["steps"]["action"].astype(np.float32))


def test_what_cannot_be_resampled():
    episode = make_episode()
    spec = parse({"action": "joint action"}, "mine")
    with pytest.raises(ValueError, match="mine: its control rate is unknown: keep"):
        standardize.standardise(spec, episode, hz=5)
    spec = parse({"hz": 10, "action": "base action[0:2]", "frame": "tool"}, "mine")
    standardize.standardise(spec, episode)
    with pytest.raises(ValueError, match="mine: its displacements are in the frame of a base"):
        standardize.standardise(spec, episode, hz=5)
    with pytest.raises(ValueError, match="mine: hz is -1"):
        standardize.standardise(make_spec(), episode, hz=-1)
