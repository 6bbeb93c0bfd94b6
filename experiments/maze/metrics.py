"""Metrics of maze rollouts: success and its interval, smoothness, time to goal.

Smoothness: finite differences of order 2 (acceleration) and 3 (jerk) of the positions at 0.1 s,
squared Euclidean norm, averaged over one path and then over paths. Policies are judged on their
successful rollouts only.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ambient_jax.estimates import Estimate, mean, wilson
from experiments.maze.env import DT
from experiments.maze.rollout import Rollouts
from experiments.table.smoothness import squared_derivative


@dataclasses.dataclass(frozen=True)
class Summary:
    """``success`` in [0, 1]; ``jerk`` in m^2/s^6, ``acceleration`` in m^2/s^4, ``time`` in s, each
    over successful rollouts; ``collided`` and ``timed_out`` in [0, 1]."""

    success: Estimate
    jerk: Estimate
    acceleration: Estimate
    time: Estimate
    collided: float
    timed_out: float


def mean_squared_jerk(paths: Sequence[np.ndarray], dt: float = DT) -> Estimate:
    """Returns the mean squared jerk [m^2/s^6] of paths [T + 1, D] with at least 3 steps."""
    return mean([squared_derivative(path, 3, dt) for path in paths])


def mean_squared_acceleration(paths: Sequence[np.ndarray], dt: float = DT) -> Estimate:
    """Returns the mean squared acceleration [m^2/s^4] of paths [T + 1, D] with 2 steps or more."""
    return mean([squared_derivative(path, 2, dt) for path in paths])


def summarise(rollouts: Rollouts) -> Summary:
    """Returns the table row of one policy."""
    success = np.asarray(rollouts.success, bool)
    collided = np.asarray(rollouts.collided, bool)
    paths = rollouts.paths(success)
    return Summary(
        success=wilson(int(success.sum()), len(success)),
        jerk=mean_squared_jerk(paths),
        acceleration=mean_squared_acceleration(paths),
        time=mean(rollouts.lengths[success] * DT),
        collided=float(collided.mean()),
        timed_out=float((~success & ~collided).mean()),
    )
