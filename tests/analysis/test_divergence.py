"""Total variation against quadrature, simulation and one another; bounds against exact values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from ambient_jax.analysis import divergence, spectrum
from tests.analysis import oracles

LEVELS = np.array([0.0, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0])


def quadrature(p, q, sigma):
    """TV of two mixtures by adaptive quadrature of |p - q|."""
    alpha = np.sqrt(1 - sigma**2)

    def density(x, law):
        w, m, s = map(np.asarray, law)
        return w @ scipy.stats.norm.pdf(x, alpha * m, np.sqrt(alpha**2 * s**2 + sigma**2))

    cuts = np.linspace(-12, 12, 49)
    pieces = [
        scipy.integrate.quad(lambda x: abs(density(x, p) - density(x, q)), a, b, limit=200)[0]
        for a, b in zip(cuts[:-1], cuts[1:], strict=True)
    ]
    return 0.5 * sum(pieces)


@pytest.mark.parametrize(
    "p,q",
    [
        ((0.0, 1.0), (1.0, 1.0)),
        ((0.0, 1.0), (0.5, 0.04)),
        ((0.3, 0.5), (0.3, 2.0)),
        ((-1.0, 0.2), (1.0, 0.2000001)),
    ],
)
def test_line_against_quadrature(p, q):
    for sigma in (0.0, 0.3, 0.8):
        laws = [([1.0], [m], [np.sqrt(v)]) for m, v in (p, q)]
        want = quadrature(*laws, sigma)
        assert oracles.gaussian_tv_1d(*p, *q, sigma) == pytest.approx(want, abs=2e-8)
        assert oracles.mixture_tv_1d(*laws, sigma) == pytest.approx(want, abs=2e-8)


def test_equal_covariances_agree_with_the_line():
    got = divergence.gaussian_tv([0.7], 0.3, LEVELS)
    np.testing.assert_allclose(got, oracles.gaussian_tv_1d(0, 0.3, 0.7, 0.3, LEVELS), atol=1e-12)
    assert got.shape == LEVELS.shape
    assert got[-1] == 0 and np.all(np.diff(got) < 0)
    # 2 Phi(1/2) - 1 at distance 1
    assert divergence.gaussian_tv([1.0], 1.0, 0.0) == pytest.approx(0.3829249225, abs=1e-9)


def test_near_equal_variances_are_continuous():
    for r in (1 + 1e-12, 1 + 1e-6, 1.0):
        got = oracles.gaussian_tv_1d(0.0, 1.0, 0.5, r, 0.2)
        assert got == pytest.approx(float(divergence.gaussian_tv([0.5], 1.0, 0.2)), abs=1e-6)
        same = oracles.gaussian_tv_1d(0.5, 1.0, 0.5, r, 0.2)
        assert 0 <= same < 1e-6


def test_full_covariance_is_the_rotated_diagonal():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    values, mean = np.array([0.0, 0.1, 0.5, 1.0, 2.0]), rng.normal(size=5)
    got = divergence.gaussian_tv(rotation @ mean, rotation * values @ rotation.T, LEVELS)
    np.testing.assert_allclose(got, divergence.gaussian_tv(mean, values, LEVELS), atol=1e-10)
    assert got[0] == 1  # apart in a direction without width


def test_laws_without_width():
    assert oracles.gaussian_tv_1d(0, 0, 1, 0, 0.0) == 1
    assert oracles.gaussian_tv_1d(1, 0, 1, 0, 0.0) == 0
    assert oracles.gaussian_tv_1d(0, 0, 0, 1, 0.0) == 1
    p = oracles.Mixture([0.5, 0.5], [0.0, 1.0], [0.0, 0.0])
    q = oracles.Mixture([0.25, 0.75], [-1.0, 0.0], [0.0, 0.0])
    assert oracles.mixture_tv_1d(p, q, 0.0) == pytest.approx(0.5)


def test_two_modes_against_quadrature():
    p = oracles.Mixture([0.5, 0.5], [-1.0, 1.0], [0.1, 0.1])
    q = oracles.Mixture([0.2, 0.5, 0.3], [-1.0, 0.8, 2.0], [0.3, 0.1, 0.02])
    got = oracles.mixture_tv_1d(p, q, LEVELS)
    for level, value in zip(LEVELS, got, strict=True):
        assert value == pytest.approx(quadrature(p, q, level), abs=1e-7)
    assert np.all(np.diff(got) <= 1e-9)


def test_classifier_estimate_recovers_the_truth():
    """The exact classifier's balanced accuracy gives TV within 0.02, and within its interval."""
    rng = np.random.default_rng(1)
    mean, covariance = np.array([0.4, -0.2, 0.3]), np.array([0.3, 0.1, 0.2])
    n, covered = 20_000, 0
    levels = [0.05, 0.2, 0.4, 0.6, 0.8, 0.95]
    for sigma in levels:
        alpha = np.sqrt(1 - sigma**2)
        spread = np.sqrt(alpha**2 * covariance + sigma**2)
        rows = [alpha * m + spread * rng.normal(size=(n, 3)) for m in (mean, 0 * mean)]
        c = [
            np.asarray(
                oracles.optimal_probability(x, mean, covariance, 0 * mean, covariance, sigma)
            )
            for x in rows
        ]
        truth = float(divergence.gaussian_tv(mean, covariance, sigma))
        estimate = divergence.from_probabilities(*c)
        assert estimate.tv == pytest.approx(truth, abs=0.02)
        accuracy = ((c[0] > 0.5).mean() + (c[1] < 0.5).mean()) / 2
        assert estimate.tv == pytest.approx(2 * accuracy - 1, abs=1e-12)
        covered += estimate.low <= truth <= estimate.high
    assert covered >= len(levels) - 1


@pytest.mark.parametrize(
    "p1,p2,n1,n2", [(0.9, 0.2, 40, 60), (0.5, 0.4, 100, 100), (0.98, 0.5, 30, 30)]
)
def test_interval_covers(p1, p2, n1, n2):
    rng = np.random.default_rng(2)
    hits, repeats = 0, 2000
    for k1, k2 in zip(rng.binomial(n1, p1, repeats), rng.binomial(n2, p2, repeats), strict=True):
        rows = [(np.arange(n) < k).astype(float) for k, n in ((k1, n1), (k2, n2))]
        estimate = divergence.from_probabilities(*rows)
        hits += estimate.low <= p1 - p2 <= estimate.high
    assert 0.93 <= hits / repeats <= 0.985


def test_ties_count_half_and_draws_are_averaged():
    half = np.full(10, 0.5)
    assert divergence.from_probabilities(half, half).tv == 0
    one = divergence.from_probabilities([0.9, 0.1], [0.2, 0.1])
    many = divergence.from_probabilities([[0.9, 0.9], [0.1, 0.1]], [[0.2, 0.2], [0.1, 0.1]])
    assert one == many and one.tv == 0.5  # draws do not count as rows


@pytest.mark.parametrize("matrix", [False, True])
def test_optimal_probability_is_bayes(matrix):
    rng = np.random.default_rng(3)
    x, sigma = rng.normal(size=(7, 2)), 0.4
    means = rng.normal(size=(2, 2))
    roots = rng.normal(size=(2, 2, 2))
    covariances = [r @ r.T + 0.1 * np.eye(2) if matrix else np.array([0.5, 1.5]) for r in roots]
    alpha = np.sqrt(1 - sigma**2)
    p, q = (
        scipy.stats.multivariate_normal(
            alpha * m, alpha**2 * (c if matrix else np.diag(c)) + sigma**2 * np.eye(2)
        ).pdf(x)
        for m, c in zip(means, covariances, strict=True)
    )
    classify = jax.jit(
        lambda x, s: oracles.optimal_probability(
            x, means[0], covariances[0], means[1], covariances[1], s
        )
    )
    np.testing.assert_allclose(classify(jnp.asarray(x), sigma), p / (p + q), atol=2e-5)
    np.testing.assert_allclose(classify(jnp.asarray(x), 1.0), 0.5, atol=1e-6)
    levels = jnp.full(7, sigma)
    np.testing.assert_allclose(classify(jnp.asarray(x), levels), p / (p + q), atol=2e-5)


def exact_spectral_tv(first, second, horizon, sigma, n, rng):
    """TV of power-law Gaussians by simulation of max(0, 1 - q/p) under p; and its error."""
    count = spectrum.multiplicity(horizon)[1:]
    f = spectrum.frequencies(horizon)[1:]
    v = [np.repeat((1 - sigma**2) * c * f**-a + sigma**2, count) for a, c in (first, second)]
    x = np.sqrt(v[0]) * rng.normal(size=(n, len(v[0])))
    log_ratio = 0.5 * np.sum(x**2 / v[0] + np.log(v[0]) - x**2 / v[1] - np.log(v[1]), 1)
    sample = np.maximum(0, 1 - np.exp(np.minimum(log_ratio, 1)))
    return sample.mean(), sample.std() / np.sqrt(n)


@pytest.mark.parametrize(
    "first,second",
    [((2.0, 0.02), (1.5, 0.03)), ((1.2, 0.05), (3.0, 0.001)), ((2.0, 0.01), (2.0, 0.02))],
)
def test_power_law_bound_bounds(first, second):
    rng = np.random.default_rng(4)
    levels = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
    bound = divergence.power_law_bound(first, second, 16, levels)
    assert np.all(np.diff(bound) < 0) and np.all(bound <= 1)
    for sigma, value in zip(levels, bound, strict=True):
        truth, error = exact_spectral_tv(first, second, 16, sigma, 20_000, rng)
        assert truth - 4 * error <= value
        if value < 0.5:  # and is no more than some 2.5 times too large where it says something
            assert value <= 2.5 * truth + 4 * error
    assert divergence.power_law_bound(first, second, 16, 1.0) == 0
    assert divergence.power_law_bound(first, first, 16, 0.3) == 0
    more = divergence.power_law_bound(first, second, 16, 0.8, dims=3)
    assert more > bound[3]


def test_spectral_bound_of_one_coefficient_and_of_a_shift():
    for sigma in LEVELS:
        # horizon 2 without power at f = 0: the one coefficient of f = 1/2
        psd = [np.array([0.0, v]) for v in (1.0, 0.2)]
        bound = divergence.spectral_bound(*psd, 2, sigma)
        assert bound >= oracles.gaussian_tv_1d(0, 1.0, 0, 0.2, sigma)
    psd = np.array([0.3, 0.3])
    shift = divergence.spectral_bound(psd, psd, 2, LEVELS, mean_power=np.array([0.49, 0.0]))
    exact = divergence.gaussian_tv([0.7], 0.3, LEVELS)
    # KL = d^2 / 2: Pinsker gives d / 2, Bretagnolle and Huber the other; TV is erf(d / sqrt(8))
    d2 = (1 - LEVELS**2) * 0.49 / ((1 - LEVELS**2) * 0.3 + LEVELS**2)
    np.testing.assert_allclose(shift, np.minimum(np.sqrt(d2) / 2, np.sqrt(1 - np.exp(-d2 / 2))))
    assert np.all(shift >= exact)
    apart = divergence.spectral_bound(np.array([0.0, 1.0]), np.array([0.0, 0.0]), 2, [0.0, 0.5])
    assert apart[0] == 1 and apart[1] < 1


def test_coupling_bound():
    levels = np.array([0.05, 0.3, 0.6, 0.9, 1.0])
    # a pure shift of point masses: equality
    exact = divergence.gaussian_tv([0.3, 0.4], 0.0, levels)
    np.testing.assert_allclose(divergence.coupling_bound(0.25, levels), exact, atol=1e-12)
    # corrupt = clean + independent noise of variance 0.09, on the line
    bound = divergence.coupling_bound(0.09, levels)
    truth = oracles.gaussian_tv_1d(0, 0.5, 0, 0.59, levels)
    assert np.all(bound >= truth) and np.all(np.diff(bound) < 0)
    assert divergence.coupling_bound(0.0, 0.0) == 0 and divergence.coupling_bound(1.0, 0.0) == 1


@pytest.mark.parametrize(
    "call,match",
    [
        (
            lambda: divergence.gaussian_tv([1.0, 2.0], np.eye(3), 0.5),
            r"covariance has shape \(3, 3\)",
        ),
        (lambda: divergence.gaussian_tv([1.0], -1.0, 0.5), "eigenvalue -1, expected all >= 0"),
        (lambda: divergence.gaussian_tv([1.0], 1.0, 1.5), r"sigma is 1.5, expected a noise level"),
        (lambda: oracles.gaussian_tv_1d(0, -1, 0, 1, 0.5), "variances are -1.0 and 1.0"),
        (lambda: divergence.from_probabilities([], [0.5]), r"c_clean has shape \(0,\)"),
        (lambda: divergence.from_probabilities([0.5], [3.0]), r"c_corrupt.*3.0.*sigmoid"),
        (
            lambda: oracles.mixture_tv_1d(([0.5, 0.6], [0, 1], [1, 1]), ([1], [0], [1]), 0.1),
            r"mixture p has weights \[0.5, 0.6\]",
        ),
        (lambda: divergence.power_law_bound((2, 1), (2, 0), 16, 0.1), "second is .*expected > 0"),
        (
            lambda: divergence.spectral_bound(np.ones(4), np.ones(9), 16, 0.1),
            r"psd_p has shape \(4,\)",
        ),
        (lambda: divergence.coupling_bound(-1, 0.1), "power is -1.0"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
