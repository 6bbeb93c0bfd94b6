"""Cameras that are found from where episodes end."""

import numpy as np
import pytest

from experiments.shifted import align, shifts
from experiments.shifted.shifts import Shift

GOAL = np.array([0.01, -0.02, 0.1])


def episode(rng, end=GOAL):
    """States [9, 12] with any poses, the last one at the goal."""
    pusher, position = rng.uniform(-0.1, 0.1, (2, 9, 2))
    yaw = rng.uniform(-3, 3, 9)
    position[-1], yaw[-1] = end[:2], end[2]
    return shifts.reported(pusher, position, yaw)


@pytest.mark.parametrize("shift", [Shift(), Shift((0.03, -0.02), 0.4), Shift(bump=(0.05, 0.5))])
def test_a_camera_is_undone_where_episodes_end_at_one_pose(shift):
    rng = np.random.default_rng(0)
    true = episode(rng)
    np.testing.assert_allclose(align.registered(shift(true, rng), GOAL), true, atol=1e-6)


def test_the_outcome_is_that_of_the_last_steps():
    rng = np.random.default_rng(1)
    ends = GOAL + [[0.01, 0, 0.2], [-0.01, 0, -0.2]]
    np.testing.assert_allclose(align.outcome([episode(rng, e) for e in ends]), GOAL, atol=1e-6)


def test_distance_and_angle_of_two_reports():
    one = shifts.reported(np.zeros((2, 2)), np.zeros((2, 2)), np.array([3.1, 0.1]))
    other = shifts.reported(np.zeros((2, 2)), np.array([(0.03, 0.04)] * 2), np.array([-3.1, 0.3]))
    expected = [0.05, (2 * np.pi - 6.2 + 0.2) / 2]
    np.testing.assert_allclose(align.apart(one, other), expected, rtol=1e-5)
