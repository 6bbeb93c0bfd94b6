"""What is reported of maze rollouts: success and its interval, smoothness, time to goal.

Smoothness is that of the executed positions at 0.1 s: finite differences of order 2
(acceleration) and 3 (jerk) over ``dt`` to that order, squared Euclidean norm, averaged over the
time steps of one path and then over paths, so that a long path does not count for more. Policies
are judged on their successful rollouts only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments.maze.env import DT
from experiments.maze.rollout import Rollouts

_Z95 = 1.959963984540054  # 97.5% quantile of the standard normal law


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval, and the number of samples behind it."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (n={self.count})"


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
    """Mean over time of ||d^order/dt^order||^2 of positions [T + 1, D]; NaN if T < order."""
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
    """Mean squared jerk [m^2/s^6] of paths [T + 1, D]; paths shorter than 3 steps are left out."""
    return mean([squared_derivative(path, 3, dt) for path in paths])


def mean_squared_acceleration(paths: Sequence[np.ndarray], dt: float = DT) -> Estimate:
    """Mean squared acceleration [m^2/s^4] of paths [T + 1, D]; those below 2 steps are left out."""
    return mean([squared_derivative(path, 2, dt) for path in paths])


def mean(values: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of the non-NaN values, with a percentile bootstrap interval (jerk is far from normal).

    NaN throughout if there is no value; the interval is the value itself if there is one.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def wilson(successes: int, trials: int) -> Estimate:
    """A success rate with Wilson's 95% score interval, which holds near 0 and 1 too.

    Raises:
      ValueError: no trials, or not ``0 <= successes <= trials``.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"got {successes} successes of {trials} trials, expected 0 <= successes <= trials, "
            "and at least one trial"
        )
    rate, z2 = successes / trials, _Z95**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials)
    half *= math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Estimate(rate, low, high, trials)


def summarise(rollouts: Rollouts) -> Summary:
    """The table row of one policy."""
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
