"""Metrics of the arm's rollouts: success and its interval, smoothness, length of the path.

Smoothness: finite differences of the configurations of order 2 (acceleration) and 3 (jerk), squared
Euclidean norm over the 7 joints, averaged over one plan and then over plans. Policies are judged on
their successful rollouts only.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ambient_jax.estimates import Estimate, mean, wilson
from experiments.arm.rollout import Rollouts
from experiments.arm.timing import DT
from experiments.table.smoothness import squared_derivative


@dataclasses.dataclass(frozen=True)
class Summary:
    """``success`` in [0, 1]; ``acceleration`` in rad^2/s^4, ``jerk`` in rad^2/s^6 and ``length`` of
    the path in rad, each over successful rollouts; ``collided``, ``limits`` and ``missed`` the goal
    in [0, 1]."""

    success: Estimate
    acceleration: Estimate
    jerk: Estimate
    length: Estimate
    collided: float
    limits: float
    missed: float


def smoothness(paths: Sequence[np.ndarray], order: int) -> Estimate:
    """Returns the mean of ``squared_derivative`` over plans [T + 1, 7]."""
    return mean([squared_derivative(path, order, DT) for path in paths])


def lengths(paths: Sequence[np.ndarray]) -> Estimate:
    """Returns the mean length of paths in rad (Euclidean norm)."""
    return mean([float(np.linalg.norm(np.diff(p, axis=0), axis=1).sum()) for p in paths])


def summarise(rollouts: Rollouts) -> Summary:
    """Returns the table row of one policy."""
    success = np.asarray(rollouts.success, bool)
    paths = rollouts.paths(success)
    failed = rollouts.collided | rollouts.limits
    return Summary(
        success=wilson(int(success.sum()), len(success)),
        acceleration=smoothness(paths, 2),
        jerk=smoothness(paths, 3),
        length=lengths(paths),
        collided=float(rollouts.collided.mean()),
        limits=float(rollouts.limits.mean()),
        missed=float((~success & ~failed).mean()),
    )
