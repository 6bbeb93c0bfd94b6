"""Shifts of reported poses, against the environment's own state."""

import numpy as np
import pytest

from experiments.planar_pushing.env import PlanarPushingEnv, pose
from experiments.shifted import shifts
from experiments.shifted.shifts import Shift


@pytest.fixture(scope="module")
def states():
    """States [T, 12] of the pusher at several places, and the slider's poses [T, 3]."""
    env, rng = PlanarPushingEnv(), np.random.default_rng(0)
    observed, poses = [], []
    for seed in range(5):
        observation, _ = env.reset(seed=seed, options={"pusher": rng.uniform(-0.1, 0.1, 2)})
        observed.append(observation["state"])
        poses.append(pose(env.data.qpos))
    return np.array(observed), np.array(poses)


def test_no_shift_reports_the_state(states):
    got = Shift()(states[0], np.random.default_rng(0))
    np.testing.assert_allclose(got, states[0], atol=1e-6)


def test_a_moved_camera_reports_the_slider_where_it_sees_it(states):
    """The environment's own state with the slider at the moved pose, and the pusher where it is."""
    turn, offset = 0.3, np.array([0.02, -0.01])
    got = Shift(offset=tuple(offset), turn=turn)(states[0], np.random.default_rng(0))
    env = PlanarPushingEnv()
    c, s = np.cos(turn), np.sin(turn)
    for state, (x, y, yaw), reported in zip(*states, got, strict=True):
        moved = [c * x - s * y + offset[0], s * x + c * y + offset[1], yaw + turn]
        there, _ = env.reset(options={"slider": moved, "pusher": state[:2]})
        np.testing.assert_allclose(reported, there["state"], atol=1e-5)


def test_noise_is_drawn_per_step_and_bumps_per_episode(states):
    many = np.repeat(states[0][:1], 4000, 0)
    jitter = Shift(jitter=(0.02, 0.1))(many, np.random.default_rng(0))
    assert jitter[:, 2:4].std(0) == pytest.approx([0.02] * 2, rel=0.05)
    bump = Shift(bump=(0.02, 0.1))(many, np.random.default_rng(0))
    assert np.ptp(bump, axis=0).max() == 0
    assert np.abs(bump[0] - many[0]).max() > 1e-3


def test_a_late_report_is_that_of_earlier_steps(states):
    late = Shift(delay=2)(states[0], np.random.default_rng(0))
    np.testing.assert_allclose(late[:, 2:6], states[0][[0, 0, 0, 1, 2], 2:6], atol=1e-6)
    np.testing.assert_array_equal(late[:, :2], states[0][:, :2])


def test_split_parts_make_the_state(states):
    parts = shifts.split(states[0])
    assert {name: part.shape[-1] for name, part in parts.items()} == {"pusher": 2, "slider": 10}
    np.testing.assert_array_equal(np.concatenate(list(parts.values()), -1), states[0])
