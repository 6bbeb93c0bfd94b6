import numpy as np
import pytest

from experiments.maze import metrics
from experiments.maze.rollout import Rollouts


def cubic(steps, dt=0.1):
    t = np.arange(steps + 1) * dt
    return np.stack([t**3, 2 * t**3], 1)  # third derivative (6, 12): squared norm 180


def test_mean_is_over_paths_not_steps_and_leaves_out_short_ones():
    still = np.zeros((101, 2))
    estimate = metrics.mean_squared_jerk([cubic(10), still, np.zeros((3, 2))])
    assert estimate.value == pytest.approx(90.0)
    assert estimate.count == 2
    assert metrics.mean_squared_acceleration([np.zeros((3, 2))]).count == 1


def test_summary_judges_smoothness_on_successes_only():
    positions = np.stack([cubic(10), np.random.default_rng(0).normal(size=(11, 2)), cubic(10)])
    rollouts = Rollouts(
        positions=positions,
        lengths=np.array([10, 10, 10]),
        success=np.array([True, False, False]),
        collided=np.array([False, True, False]),
        goals=np.zeros((3, 2)),
    )
    summary = metrics.summarise(rollouts)
    assert summary.jerk.value == pytest.approx(180.0)
    assert summary.time.value == pytest.approx(1.0)
    assert summary.success.value == summary.collided == summary.timed_out == pytest.approx(1 / 3)


def test_padding_does_not_count():
    path = cubic(10)
    padded = np.concatenate([path, np.tile(path[-1], (5, 1))])[None]
    one = np.array([True])
    rollouts = Rollouts(padded, np.array([10]), one, ~one, np.zeros((1, 2)))
    assert metrics.summarise(rollouts).jerk.value == pytest.approx(180.0)
