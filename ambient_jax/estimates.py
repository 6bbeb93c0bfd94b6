"""Means and rates with their 95% intervals."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

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


def mean(values: npt.ArrayLike, **options: Any) -> Estimate:
    """Returns the mean of the values without NaN and its ``bootstrap`` interval; NaN for none."""
    numbers = np.asarray(values, float)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return Estimate(math.nan, math.nan, math.nan, 0)
    return Estimate(float(numbers.mean()), *bootstrap(np.mean, numbers, **options), len(numbers))


def paired(values: npt.ArrayLike, others: npt.ArrayLike, **options: Any) -> Estimate:
    """Returns the mean of the differences ``values - others`` of pairs, see ``mean``."""
    first, second = np.asarray(values, float), np.asarray(others, float)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"values have shape {first.shape} and others {second.shape}, expected the same [N]"
        )
    return mean(first - second, **options)


def bootstrap(
    statistic: Callable[..., Any], *samples: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Returns the ends of the percentile bootstrap's 95% interval.

    A resample draws the same rows of all samples [N]. Resamples for which
    ``statistic(*samples, axis=-1)`` is NaN are excluded.
    """
    if len(samples[0]) == 1:
        return (float(statistic(*samples, axis=-1)),) * 2
    options: dict[str, Any] = dict(paired=True, vectorized=True, method="percentile", batch=100)
    options |= dict(n_resamples=resamples, rng=np.random.default_rng(seed))
    with warnings.catch_warnings():  # about excluded resamples
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        draws = stats.bootstrap(samples, statistic, **options).bootstrap_distribution
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return float(low), float(high)


def wilson(successes: int, trials: int) -> Estimate:
    """Returns a success rate with Wilson's score interval, which holds near 0 and 1 too.

    Raises:
      ValueError: there are no trials, or not ``0 <= successes <= trials``.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"got {successes} successes of {trials} trials, expected 0 <= successes <= trials, "
            "and at least one trial"
        )
    low, high = wilson_interval(successes / trials, trials)
    low, high = 0.0 if successes == 0 else low, 1.0 if successes == trials else high
    return Estimate(successes / trials, low, high, trials)


def wilson_interval(share: float, trials: int) -> tuple[float, float]:
    """Returns the ends of Wilson's interval of a share. Ties may make ``share * trials``
    fractional, which ``scipy.stats.binomtest`` refuses; for whole numbers both agree."""
    z2 = _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials)
    half *= math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return centre - half, centre + half
