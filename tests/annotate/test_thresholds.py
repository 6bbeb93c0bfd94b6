"""From classifier curves to sigma_min: the isotonic fit, crossings, their bias, bad input."""

import numpy as np
import pytest
import scipy.special
from scipy import optimize

from ambient_jax.annotate import thresholds

LEVELS = np.linspace(0.025, 0.975, 20)


def pool_adjacent_violators(values):
    """The textbook loop: merge neighbouring blocks while they decrease."""
    blocks = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (m0, n0), (m1, n1) = blocks[-2:]
            blocks[-2:] = [[(m0 * n0 + m1 * n1) / (n0 + n1), n0 + n1]]
    return np.concatenate([np.full(n, m) for m, n in blocks])


def first_crossing(levels, curve, threshold):
    above = np.flatnonzero(curve > threshold)
    if not above.size or above[0] == 0:
        return 0.0 if above.size else 1.0
    return float(np.interp(threshold, curve[above[0] - 1 :][:2], levels[above[0] - 1 :][:2]))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 20])
def test_isotonic_is_pool_adjacent_violators(length):
    values = np.random.default_rng(length).random((3, 40, length))
    values[0] = np.round(values[0], 1)  # ties
    values[1] = np.sort(values[1])[..., ::-1] if length % 2 else np.sort(values[1])
    fit = thresholds.isotonic(values)
    want = np.array([[pool_adjacent_violators(v) for v in block] for block in values])
    np.testing.assert_allclose(fit, want, atol=1e-12)
    scipy_fit = optimize.isotonic_regression(values[2, 0]).x
    np.testing.assert_allclose(fit[2, 0], scipy_fit, atol=1e-12)


def test_isotonic_keeps_what_increases_and_the_mean():
    values = np.random.default_rng(0).random((50, 9))
    fit = thresholds.isotonic(values)
    assert (np.diff(fit) >= -1e-12).all()
    np.testing.assert_allclose(fit.mean(axis=1), values.mean(axis=1))
    np.testing.assert_allclose(thresholds.isotonic(fit), fit)
    np.testing.assert_allclose(
        thresholds.isotonic(values[:, ::-1])[:, ::-1], -thresholds.isotonic(-values)
    )


@pytest.mark.parametrize("rule", thresholds.RULES)
@pytest.mark.parametrize("tau", [0.02, 0.05, 0.2])
def test_crossing_of_an_exact_curve(rule, tau):
    rate = np.array([[2.0, 4.0, 8.0], [16.0, 5.0, 10.0]])
    curve = 0.5 * (1 - np.exp(-rate[..., None] * LEVELS))
    exact = -np.log(2 * tau) / rate
    found = thresholds.sigma_min(LEVELS, curve, tau=tau, rule=rule)
    assert found.shape == rate.shape
    step = LEVELS[1] - LEVELS[0]
    inside = exact < LEVELS[-1]
    # Linear interpolation of a curve with second derivative f'' errs by f'' step^2 / (8 f').
    error = np.abs(found - exact)
    assert (error[inside] <= rate[inside] * step**2 / 8 * 1.5 + 1e-9).all()
    assert error[inside].max() < step / 4
    np.testing.assert_array_equal(found[~inside], 1.0)


def test_rules_on_one_curve():
    levels = np.array([0.2, 0.4, 0.6, 0.8])
    curve = np.array([0.35, 0.5, 0.4, 0.5])
    # Last: between 0.6 and 0.8, half way. Isotonic: 0.35, 0.45, 0.45, 0.5, just above 0.45 at 0.8.
    np.testing.assert_allclose(thresholds.sigma_min(levels, curve, rule="last"), 0.7)
    np.testing.assert_allclose(thresholds.sigma_min(levels, curve, tau=0.06), 0.2 + 0.2 * 0.9)
    np.testing.assert_allclose(thresholds.sigma_min(levels, curve, tau=0.06, rule="last"), 0.68)
    assert thresholds.sigma_min(levels, curve).shape == ()


def test_a_dip_at_the_last_level():
    curve = np.array([0.4, 0.5, 0.5, 0.5, 0.44])
    levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    assert thresholds.sigma_min(levels, curve, rule="last") == 1.0
    assert 0.1 < thresholds.sigma_min(levels, curve) < 0.3


@pytest.mark.parametrize("rule", thresholds.RULES)
def test_limits(rule):
    same, disjoint = np.full(20, 0.5), np.zeros(20)
    better = np.linspace(0.9, 0.5, 20)  # a corrupt sample that looks cleaner than clean ones
    found = thresholds.sigma_min(LEVELS, np.stack([same, disjoint, better]), rule=rule)
    np.testing.assert_array_equal(found, [0.0, 1.0, 0.0])
    # The threshold itself is not above the threshold.
    assert thresholds.sigma_min([0.5], [0.25], tau=0.25, rule=rule) == 1.0
    assert thresholds.sigma_min([0.5], [0.26], tau=0.25, rule=rule) == 0.0
    assert thresholds.sigma_min(LEVELS, np.zeros((0, 20)), rule=rule).shape == (0,)


def test_mean_of_the_best_classifier_over_q_increases_to_a_half():
    """What the module rests on, for q a mixture with modes on both sides of p."""
    x = np.linspace(-9, 9, 6001)

    def density(modes, scale, sigma):
        keep, width = np.sqrt(1 - sigma**2), np.sqrt((1 - sigma**2) * scale**2 + sigma**2)
        parts = [np.exp(-0.5 * ((x - keep * m) / width) ** 2) / width for m in modes]
        total = sum(parts)
        return total / total.sum()

    curve, identity = [], []
    for sigma in np.linspace(0, 1, 21):
        p, q = density([0.4], 0.3, sigma), density([-1.0, 1.2], 0.4, sigma)
        both = np.maximum(p + q, 1e-300)
        curve.append((q * p / both).sum())
        identity.append(0.5 - 0.25 * ((p - q) ** 2 / both).sum())
    np.testing.assert_allclose(curve, identity, atol=1e-12)
    assert (np.diff(curve) > 0).all() and curve[-1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "curve, exact",
    [
        (lambda s: 0.5 * np.sqrt(s), 0.81),
        (lambda s: 0.5 * np.tanh(3 * s), np.arctanh(0.9) / 3),
        (lambda s: 0.5 * (1 - np.exp(-8 * s)), np.log(10) / 8),
    ],
)
def test_isotonic_is_the_least_biased_or_nearly(curve, exact):
    """20 levels, noise of 0.03 in c, 4000 repetitions: standard errors of the means below 0.006."""
    rng = np.random.default_rng(1)
    curve = np.clip(curve(LEVELS) + 0.03 * rng.normal(size=(4000, 20)), 0, 1)
    first = np.array([first_crossing(LEVELS, c, 0.45) for c in curve])
    last = thresholds.sigma_min(LEVELS, curve, rule="last")
    isotonic = thresholds.sigma_min(LEVELS, curve)
    assert first.mean() < exact - 0.004 and last.mean() > exact + 0.04
    assert abs(isotonic.mean() - exact) < 0.02
    step = LEVELS[1] - LEVELS[0]
    assert (first - step <= isotonic).all()
    assert ((isotonic <= last + step) | (last == 1)).all()


def test_round_up():
    levels = [0.1, 0.3, 0.7]
    values = np.array([0.0, 1e-6, 0.1, 0.1001, 0.3, 0.69, 0.7, 0.71, 1.0])
    want = [0.0, 0.1, 0.1, 0.3, 0.3, 0.7, 0.7, 1.0, 1.0]
    np.testing.assert_array_equal(thresholds.round_up(values, levels), want)
    stored = thresholds.round_up(np.float32([[0.3], [0.7]]), levels)
    assert stored.dtype == np.float32 and stored.shape == (2, 1)
    np.testing.assert_array_equal(stored, np.float32([[0.3], [0.7]]))
    random = np.random.default_rng(0).random(1000)
    up = thresholds.round_up(random, LEVELS)
    assert (up >= random).all() and len(np.unique(up)) <= LEVELS.size + 2
    assert thresholds.round_up(1, levels) == 1.0 and thresholds.round_up(0, levels) == 0.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rule": "isotonik"}, "rule is 'isotonik'.*did you mean 'isotonic'"),
        ({"tau": 0.5}, r"tau is 0.5, expected a number in \(0, 0.5\)"),
        ({"tau": 0.0}, "tau is 0.0, expected"),
        ({"tau": np.nan}, "tau is nan, expected"),
        ({"levels": [0.1, 0.3, 0.2]}, "levels must increase: level 2 is 0.2 after 0.3"),
        ({"levels": [0.1, 0.1, 0.2]}, "levels must increase: level 1 is 0.1 after 0.1"),
        ({"levels": [0.1, 0.3, 1.2]}, r"levels at index 2 is 1.2, expected a noise level in"),
        ({"levels": [0.1, np.nan, 0.2]}, "levels at index 1 is nan"),
        ({"levels": [[0.1, 0.3]]}, r"levels has shape \(1, 2\), expected \[L\]"),
        ({"levels": []}, r"levels has shape \(0,\)"),
        ({"levels": [0.1, 0.3]}, r"clean_probability has shape \(2, 3\), expected \[..., 2\]"),
        ({"c": 0.5}, r"clean_probability has shape \(\), expected \[..., 3\]"),
        ({"c": [[0.1, 0.2, 0.3], [0.1, np.nan, 2]]}, r"at index \(1, 1\) is nan"),
        ({"c": [0.1, 0.2, 1.3]}, "clean_probability at index 2 is 1.3, expected a probability"),
    ],
)
def test_bad_input(change, message):
    given = {"levels": [0.1, 0.2, 0.3], "c": np.full((2, 3), 0.4)} | change
    with pytest.raises(ValueError, match=message):
        thresholds.sigma_min(given.pop("levels"), given.pop("c"), **given)


def test_round_up_refuses_what_is_no_level():
    with pytest.raises(ValueError, match="sigma_min at index 1 is nan, expected a noise level"):
        thresholds.round_up([0.1, np.nan], LEVELS)
    with pytest.raises(ValueError, match="sigma_min is 1.5, expected"):
        thresholds.round_up(1.5, LEVELS)
    with pytest.raises(ValueError, match="levels must increase"):
        thresholds.round_up(0.5, LEVELS[::-1])


GAP, WIDTH = 1.5, 0.5  # of the means of two Gaussians, and their standard deviation


def mean_curves(x0, levels):
    """E[c(x_t, sigma) | x0] [N, L] by the exact classifier of two Gaussians at 0 and at -GAP."""
    eps, weight = np.polynomial.hermite_e.hermegauss(31)
    alpha2 = (1 - levels) * (1 + levels)
    x_t = np.sqrt(alpha2)[:, None] * x0[:, None, None] + levels[:, None] * eps
    mean, variance = -np.sqrt(alpha2) * GAP / 2, alpha2 * WIDTH**2 + levels**2
    logit = ((np.sqrt(alpha2) * GAP / variance)[:, None]) * (x_t - mean[:, None])
    return scipy.special.expit(logit) @ (weight / weight.sum())


def test_rejection_uses_the_share_of_the_ratio_at_every_level():
    """Curves of single datapoints rise to 1/2, or fall to it: r increases, no fit is needed."""
    levels, tau = np.linspace(0.002, 0.98, 21), 0.01
    rng, n = np.random.default_rng(0), 5000
    curves = mean_curves(rng.normal(-GAP, WIDTH, n), levels)
    lot = 1 - rng.random(n)
    low = thresholds.sigma_min(levels, curves, tau=thresholds.rejection_tau(lot, tau))
    ratio = np.minimum(1, curves / (1 - curves))
    for k in (0, 4, 8, 12, 16, 20):
        r = np.where(curves[:, k] > 0.5 - tau, 1, ratio[:, k])
        # The lots are the only chance that is left, given the datapoints.
        error = np.sqrt(np.sum(r * (1 - r))) / n
        assert abs(np.mean(low <= levels[k]) - r.mean()) <= 4 * error + 1e-3
    # Without noise it is E_q min(1, p/q) = 1 - TV(p, q) = 2 Phi(-GAP / (2 WIDTH)).
    overlap = 2 * scipy.special.ndtr(-GAP / (2 * WIDTH))
    assert abs(np.mean(low == 0) - overlap) < 4 * np.sqrt(overlap * (1 - overlap) / n)
    # One threshold for all admits nothing there, as half of the samples look corrupt.
    assert thresholds.sigma_min(levels, curves.mean(0), tau=tau) > 0.5


def test_a_lot_that_no_curve_reaches_counts_from_where_nothing_can_be_told():
    levels = [0.1, 0.5, 0.9]
    curve = [0.1, 0.3, 0.48]  # calibrated, a little below 1/2 at the last level
    low = lambda u, tau: thresholds.sigma_min(  # noqa: E731
        levels, curve, tau=thresholds.rejection_tau(u, tau)
    )
    assert low(1.0, 0.05) == low(0.99, 0.05) == thresholds.sigma_min(levels, curve, tau=0.05) < 0.9
    assert low(1.0, 0.01) == 1 and low(0.95, 0.01) == 1  # c / (1 - c) is 0.92 at most
    np.testing.assert_allclose(low(3 / 7, 0.05), 0.5, atol=1e-9)  # 0.3 / 0.7
    assert low(1e-3, 0.05) == 0
    with pytest.raises(ValueError, match=r"lot has values from 0.0 to 2.0, expected all in \(0, 1"):
        thresholds.rejection_tau([0.0, 2.0])


def test_each_unit_may_have_its_own_tau():
    levels, curves = np.linspace(0, 1, 11), np.tile(np.linspace(0, 0.5, 11), (3, 1))
    np.testing.assert_allclose(
        thresholds.sigma_min(levels, curves, tau=np.array([0.05, 0.25, 0.4])), [0.9, 0.5, 0.2]
    )
    with pytest.raises(ValueError, match=r"tau has shape \(2,\), expected .* one per unit, \(3,\)"):
        thresholds.sigma_min(levels, curves, tau=np.array([0.05, 0.25]))
