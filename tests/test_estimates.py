import math

import numpy as np
import pytest
from scipy import stats

from ambient_jax import estimates


def test_bootstrap_interval_covers():
    # 95% intervals of the mean of 50 exponentials: the percentile bootstrap covers about 92%.
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        estimate = estimates.mean(rng.exponential(size=50), resamples=300)
        covered += estimate.low <= 1.0 <= estimate.high
    assert 0.86 <= covered / 200 <= 0.98


def test_mean_of_nothing_and_of_one():
    assert math.isnan(estimates.mean([]).value) and estimates.mean([math.nan]).count == 0
    assert estimates.mean([2.0]) == estimates.Estimate(2.0, 2.0, 2.0, 1)


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (13, 20), (199, 200), (20, 20)])
def test_wilson_ends_solve_the_score_equation(successes, trials):
    # Definition: the ends are the rates p at which |rate - p| = z sqrt(p (1 - p) / n).
    estimate = estimates.wilson(successes, trials)
    for end in (estimate.low, estimate.high):
        deviation = 1.959963984540054 * math.sqrt(end * (1 - end) / trials)
        assert abs(estimate.value - end) == pytest.approx(deviation, abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_intervals_are_scipys():
    found = estimates.wilson(13, 20)
    known = stats.binomtest(13, 20).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-15)
    # The draws of numpy's generator, one resample after the other: those of the committed tables.
    values, rng = np.random.default_rng(1).exponential(size=57), np.random.default_rng(3)
    means = [rng.choice(values, len(values)).mean() for _ in range(2000)]
    found = estimates.mean(values, seed=3)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-15)


def test_more_successes_than_trials():
    with pytest.raises(ValueError, match="got 3 successes of 2 trials"):
        estimates.wilson(3, 2)


def test_paired_differences():
    rng = np.random.default_rng(0)
    common, gain = rng.normal(scale=10, size=300), rng.normal(1, 0.1, size=300)
    found = estimates.paired(common + gain, common)
    assert found.value == pytest.approx(gain.mean()) and 0 < found.high - found.low < 0.05
    with pytest.raises(ValueError, match=r"\(3,\) and others \(2,\)"):
        estimates.paired([1, 2, 3], [1, 2])
