"""Metrics of maze rollouts: success and its interval, smoothness, time to goal.

Smoothness: finite differences of order 2 (acceleration) and 3 (jerk) of the positions at 0.1 s,
squared Euclidean norm, averaged over one path and then over paths. Policies are judged on their
successful rollouts only.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ambient_jax.estimates import Estimate, mean, wilson
from experiments.maze.env import DT
from experiments.maze.rollout import Rollouts


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


def squared_derivative(path: np.ndarray, order: int, dt: float = DT) -> float:
    """Returns the mean over time of ||d^order/dt^order||^2 of [T + 1, D]; NaN if T < order."""
    path = np.asarray(path, float)
    if path.ndim != 2 or order < 1:
        raise ValueError(
            f"got positions of shape {path.shape} and order {order}, expected [T + 1, D] and an "
            "order of at least 1"
        )
    if len(path) <= order:
        return math.nan
    return float((np.diff(path, order, axis=0) ** 2).sum(-1).mean() / dt ** (2 * order))


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
