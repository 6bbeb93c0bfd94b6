"""The experiment on {-1, 0, 1}: closed forms against enumeration, drawing, and training."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from ambient_jax.analysis import assignment
from tests.analysis import oracles

CLEAN_LAW, CORRUPT_LAW = np.array([0.0, 0.5, 0.5]), np.array([0.5, 0.5, 0.0])
POINTS = {  # p0 and q0 as mixtures of point masses
    "p": oracles.Mixture([0.5, 0.5], [0.0, 1.0], [0.0, 0.0]),
    "q": oracles.Mixture([0.5, 0.5], [-1.0, 0.0], [0.0, 0.0]),
}


def admissible_law(levels, sources, laws):
    """Law of x0 over (-1, 0, 1) among the ambient law's training draws at each level, [L, 3]."""
    return assignment._probabilities(levels, sources) @ laws


def generated_law(sources, laws, steps=200):
    """What the sampler returns whose denoiser is E[x0 | x_t] of ``admissible_law`` at every level.

    The limit of infinite training. The flow of the line is monotone: quantiles of noise give the
    shares without Monte Carlo.
    """
    levels = assignment._levels(steps)
    law = admissible_law(levels, sources, laws)
    alpha = np.sqrt((1 - levels) * (1 + levels))

    def denoise(x, i):
        exponent = -0.5 * ((x[:, None] - alpha[i] * assignment.VALUES) / levels[i]) ** 2
        weight = law[i] * np.exp(exponent - exponent[:, law[i] > 0].max(1, keepdims=True))
        return weight @ assignment.VALUES / weight.sum(1)

    return assignment._sample(denoise, levels, 2000)


def test_classifier_is_bayes_and_its_mean_is_right():
    x = np.linspace(-3, 3, 13)
    for sigma in (0.2, 0.7, 0.999):
        alpha = np.sqrt(1 - sigma**2)
        left, middle, right = (scipy.stats.norm.pdf(x, alpha * v, sigma) for v in (-1, 0, 1))
        want = (middle + right) / (left + 2 * middle + right)
        np.testing.assert_allclose(assignment.clean_probability(x, sigma), want, atol=1e-9)
        for x0 in (-1, 0, 1):
            mean = scipy.integrate.quad(
                lambda e, a=alpha, s=sigma, v=x0: (
                    assignment.clean_probability(a * v + s * e, s) * scipy.stats.norm.pdf(e)
                ),
                -9,
                9,
            )[0]
            assert assignment.expected_probability(x0, sigma) == pytest.approx(mean, abs=1e-7)
    np.testing.assert_allclose(assignment.expected_probability([-1, 0, 1], 0.0), [0, 0.5, 1])


def test_sigma_min_is_the_crossing():
    tau = 0.05
    for fraction in (0.15, 0.5, 1.0):
        level = assignment.sigma_min_of(fraction, tau)
        unit = fraction * assignment.expected_probability(-1, level) + (1 - fraction) / 2
        assert unit == pytest.approx(0.5 - tau, abs=1e-4)
    levels = np.linspace(0, 1, 200)
    assert np.all(np.diff(assignment.expected_probability(-1, levels)) >= -1e-12)  # one crossing
    np.testing.assert_allclose(assignment.expected_probability(0, levels), 0.5, atol=1e-9)
    np.testing.assert_array_equal(assignment.sigma_min_of([0.0, 0.05, 0.1], tau), 0)
    # a single -1 is bad at nearly every level, the more so the smaller tau
    ends = [float(assignment.sigma_min_of(1.0, t)) for t in (0.05, 0.01, 0.001)]
    assert ends[0] > 0.9 and ends[1] > 0.98 and ends[2] > 0.997
    assert assignment.sigma_min_of(0.1001, tau) > 2 * assignment.LOW


def enumerated(name, n_p, n_q, bucket, tau):
    """Expected law by listing every pair of data sets, each unit judged by the curve of c."""
    size = {"dataset": n_q, "datapoint": 1, "rejection": 1}.get(name, bucket)
    levels = np.linspace(0.0, 1, 401)[1:]
    c = {x0: assignment.expected_probability(x0, levels) for x0 in (-1, 0)}
    total = np.zeros(3)
    for d_q in itertools.product((0, -1), repeat=n_q):
        d_q = sorted(d_q, reverse=True) if name == "ordered" else list(d_q)
        kept = []
        for start in range(0, n_q, size):
            unit = d_q[start : start + size]
            if np.all(np.mean([c[v] for v in unit], 0) > 0.5 - tau - 1e-9):
                kept += unit
        for d_p in itertools.product((0, 1), repeat=n_p):
            everything = kept + list(d_p)
            total += np.array([everything.count(v) for v in (-1, 0, 1)]) / len(everything)
    return total / 2 ** (n_p + n_q)


@pytest.mark.parametrize("name", assignment.ASSIGNMENTS)
@pytest.mark.parametrize("bucket,tau", [(3, 0.05), (3, 0.2), (2, 0.26), (4, 0.2)])
def test_closed_form_is_the_enumeration(name, bucket, tau):
    got = assignment.trained_law(name, 2, 7, bucket=bucket, tau=tau)  # last bucket is smaller
    np.testing.assert_allclose(got, enumerated(name, 2, 7, bucket, tau), atol=1e-12)
    assert got.sum() == pytest.approx(1)


def test_the_table():
    """Share of 0 by n_q: datapoints drift to 1, data set and random buckets keep 1/2."""
    shares = {
        name: [assignment.trained_law(name, 50, n)[1] for n in (10, 100, 1000, 10_000, 100_000)]
        for name in assignment.ASSIGNMENTS
    }
    drift = shares["datapoint"]
    assert np.all(np.diff(drift) > 0) and drift[-1] > 0.999
    # K of n_q zeros join: 1 - (n_p / 2) / (n_p + n_q / 2), and Jensen's 1 / x at large n_q is small
    np.testing.assert_allclose(
        drift[2:], [1 - 25 / (50 + n / 2) for n in (1e3, 1e4, 1e5)], rtol=1e-4
    )
    np.testing.assert_allclose(shares["dataset"], 0.5, atol=2e-3)
    np.testing.assert_allclose(shares["bucket"], 0.5, atol=2e-3)
    assert shares["ordered"][-1] > 0.999  # ordered buckets are datapoints in disguise
    assert shares["rejection"] == drift  # min(p, q) has all of 0 and nothing of 1


def test_small_random_buckets_drift():
    """Buckets must be large: at size 5 one in 32 is all 0, joins, and they add up."""
    by_size = [assignment.trained_law("bucket", 50, 10_000, bucket=b)[1] for b in (1, 2, 5, 50)]
    assert np.all(np.diff(by_size) < 0)
    assert by_size[0] == pytest.approx(assignment.trained_law("datapoint", 50, 10_000)[1], abs=1e-9)
    # 2000 buckets, 62.5 of them, 312.5 zeros
    assert by_size[2] == pytest.approx((25 + 312.5) / (50 + 312.5), abs=2e-3)
    assert by_size[3] == pytest.approx(0.5, abs=1e-4)


def compared(rng, name, n_q, bucket, repeats):
    simulated, error = assignment.simulate(rng, name, 50, n_q, bucket=bucket, repeats=repeats)
    exact = assignment.trained_law(name, 50, n_q, bucket=bucket)
    return {"exact": exact, "simulated": simulated, "standard_error": error}


def test_closed_form_and_simulation_agree():
    rng = np.random.default_rng(0)
    options = {"bucket": 8, "repeats": 100}  # buckets small enough to join now and then
    rows = []
    for name in assignment.ASSIGNMENTS:
        rows += [compared(rng, name, n, **options) for n in (10, 100, 1000, 10_000)]
    for name in assignment.ASSIGNMENTS[:3]:
        rows.append(compared(rng, name, 100_000, bucket=100, repeats=15))
    scores = []
    for row in rows:
        moving = row["standard_error"] > 1e-12
        np.testing.assert_allclose(row["simulated"][~moving], row["exact"][~moving], atol=1e-3)
        # shares that hardly ever move (a rare unit joins) have no normal error
        moving &= row["exact"] > 1e-3
        z = (row["simulated"] - row["exact"])[moving] / row["standard_error"][moving]
        assert np.all(np.abs(z) < 4), row
        scores.append(z[-1])  # one of each row: a law's shares depend on one another
    assert len(scores) == 23
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 1.6  # neither biased nor padded


def test_rejection_uses_each_value_at_the_rate_of_the_ratio():
    """Of a mean -1 it is (1/2 - g) / (1/2 + g); from 1/2 - tau on it counts as 1."""
    n, tau = 200_000, 0.02
    rng = np.random.default_rng(3)
    minus, zeros, sigma_min = assignment.draw_units(rng, "rejection", n, tau=tau)
    assert np.all(sigma_min[zeros == 1] == 0)
    bounds = sigma_min[minus == 1]
    for level in (0.3, 0.5, 0.7, 0.9, 0.99):  # multiples of 1 / 200, to which bounds are rounded up
        c = assignment.expected_probability(-1.0, level)
        ratio = c / (1 - c) if c < 0.5 - tau else 1.0
        used = np.mean(bounds <= level + 1e-9)
        assert abs(used - ratio) <= 4 * np.sqrt(ratio * (1 - ratio) / len(bounds)) + 1e-4
    # The threshold per datapoint uses none of them at 0.9, where rejection uses most.
    assert assignment.sigma_min_of(1.0, tau) > 0.9 and np.mean(bounds <= 0.9) > 0.5


@pytest.mark.parametrize("name", ["dataset", "datapoint", "bucket", "rejection"])
def test_training_reaches_the_exact_laws(name):
    trained = assignment.train(np.random.default_rng(1), name, 50, 1000, draws=1_000_000)
    law = admissible_law([assignment.LOW], trained.sources, trained.laws)[0]
    error = np.sqrt(law * (1 - law) / trained.low_noise_draws)
    assert np.all(np.abs(trained.low_noise - law) <= 4 * error)
    assert trained.low_noise_draws > 10_000
    limit = generated_law(trained.sources, trained.laws, steps=200)
    np.testing.assert_allclose(trained.generated, limit, atol=0.04)
    if name in ("datapoint", "rejection"):
        assert trained.generated[1] > 0.93
    else:
        assert trained.generated[1] < 0.85


def exact_sources(name, n_p, n_q, tau):
    """Sources that hold p0 and q0 themselves in place of draws."""
    if name == "dataset":
        bounds, laws, weight = [assignment.sigma_min_of(0.5, tau)], [CORRUPT_LAW], [n_q]
    else:
        bounds, laws = assignment.sigma_min_of([0.0, 1.0], tau), np.eye(3)[[1, 0]]
        weight = [n_q / 2, n_q / 2]
    sources = assignment.mixing.make_sources(
        [n_p, *weight],
        [True, *[False] * len(weight)],
        [0.0, *map(float, bounds)],
        [1.0, *[0.0] * len(weight)],
    )
    return sources, np.stack([CLEAN_LAW, *laws])


def test_what_is_generated_per_data_set_is_bounded_by_tv_at_sigma_min():
    """However large D_q, the generated law stays within TV(p_sigma, q_sigma) of p0 at sigma_min."""
    previous = 1.0
    for tau in (0.05, 0.01, 0.002):
        level = float(assignment.sigma_min_of(0.5, tau))
        bound = float(oracles.mixture_tv_1d(*POINTS.values(), level))
        for n_q in (100, 100_000):
            sources, laws = exact_sources("dataset", 50, n_q, tau)
            law = generated_law(sources, laws, steps=200)
            assert 0.5 * np.abs(law - CLEAN_LAW).sum() <= n_q / (n_q + 50) * bound + 0.01
        bias = law[1] - 0.5
        assert 0.02 < bias < previous  # real, and falling with tau
        previous = bias
    sources, laws = exact_sources("datapoint", 50, 100_000, 0.002)
    assert generated_law(sources, laws, steps=200)[1] > 0.99  # no tau helps here


def test_units_hold_every_point_once():
    rng = np.random.default_rng(2)
    for name, units in (("dataset", 1), ("datapoint", 105), ("bucket", 11), ("ordered", 11)):
        minus, zeros, sigma_min = assignment.draw_units(rng, name, 105, bucket=10)
        assert len(minus) == len(zeros) == len(sigma_min) == units
        assert minus.sum() + zeros.sum() == 105
        if name == "ordered":
            assert np.all(np.diff(sigma_min[:-1]) >= 0)
        sources, laws = assignment.unit_sources(rng, name, 50, 105, bucket=10)
        np.testing.assert_allclose(laws.sum(1), 1)
        assert float(sources.weight[0]) == pytest.approx(50 / 155)


@pytest.mark.parametrize(
    "call,match",
    [
        (lambda: assignment.trained_law("data_set", 5, 5), "did you mean 'dataset'"),
        (lambda: assignment.trained_law("dataset", 5, 0), "n_q 0.*expected sizes >= 1"),
        (lambda: assignment.trained_law("dataset", 5, 5, tau=0.6), "tau 0.6"),
        (lambda: assignment.simulate(None, "dataset", 5, 5, repeats=1), "repeats is 1"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
