"""Means and rates with their 95% intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

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


def paired(values: Sequence[float], others: Sequence[float], **options: Any) -> Estimate:
    """Mean of the differences ``values - others`` of samples that belong together, see ``mean``."""
    values, others = np.asarray(values, float), np.asarray(others, float)
    if values.shape != others.shape or values.ndim != 1:
        raise ValueError(
            f"values have shape {values.shape} and others {others.shape}, expected the same [N]"
        )
    return mean(values - others, **options)
