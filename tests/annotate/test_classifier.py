"""The classifier against laws whose total variation is known, and what it may not do."""

import dataclasses

import jax
import numpy as np
import pytest

from ambient_jax import corruption, mixing, schedules
from ambient_jax.analysis import divergence
from ambient_jax.annotate import classifier, thresholds
from ambient_jax.data import device
from ambient_jax.models.classifier import difference_moments, standardised_differences
from tests.analysis import oracles

LEVELS = np.array([0.05, 0.3, 0.6, 0.8, 0.95])
# Tests that share these, and the number of samples and levels, share a compiled program.
POINT = classifier.Options(
    history=1, horizon=1, steps=1000, batch_size=512, features=(32,), dropout=0, learning_rate=5e-3
)
MANY = 20_000


JITTER = 0.02


def make_data(clean, corrupt, length=1):
    """Chunks [N, D] as episodes of ``length`` steps each; every step observes a zero."""
    action = np.concatenate([clean, corrupt]).astype(np.float32)
    at = np.arange(len(action), dtype=np.int32)
    start = at // length * length
    sizes = np.array([len(clean), len(corrupt)], np.int32)
    return device.DeviceData(
        {"action": action, "observation/state": np.zeros((len(action), 1), np.float32)},
        start.astype(np.int32),
        (start + length).astype(np.int32),
        (start // length).astype(np.int32),
        np.array([0, len(clean)], np.int32),
        sizes,
        mixing.make_sources(sizes, [True, False]),
    )


def two_modes(rng, n):
    return np.where(rng.random((n, 1)) < 0.5, 0.8, -0.8) + 0.1 * rng.normal(size=(n, 1))


PAIRS = {
    "gaussian": (
        lambda rng, n: rng.normal(size=(n, 1)),
        lambda rng, n: 1.5 + rng.normal(size=(n, 1)),
        lambda sigma: divergence.gaussian_tv(1.5, 1.0, sigma),
    ),
    "two modes": (
        two_modes,
        lambda rng, n: 0.4 + 0.3 * rng.normal(size=(n, 1)),
        lambda sigma: oracles.mixture_tv_1d(
            ((0.5, 0.5), (0.8, -0.8), (0.1, 0.1)), ((1.0,), (0.4,), (0.3,)), sigma
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_total_variation_within_two_hundredths_at_every_level(name):
    rng, n = np.random.default_rng(0), MANY
    p, q, truth = PAIRS[name]
    data = make_data(p(rng, n), q(rng, n))
    fitted = classifier.fit(data, POINT, progress=False)
    ask = lambda positions: classifier.probabilities(  # noqa: E731
        fitted, data, positions, LEVELS, draws=1, decisions=True, batch_size=MANY
    )
    first, second = ask(np.arange(n)), ask(n + np.arange(n))
    for i, sigma in enumerate(LEVELS):
        estimate = divergence.from_probabilities(first[:, i], second[:, i])
        assert abs(estimate.tv - float(truth(sigma))) < 0.02, sigma


def test_sigma_min_of_a_gaussian_pair_is_the_exact_crossing():
    """The Bayes classifier's mean over q, by quadrature, crosses 0.5 - tau where ours does."""
    rng, n, tau = np.random.default_rng(1), MANY, 0.05
    data = make_data(rng.normal(size=(n, 1)), 1.0 + rng.normal(size=(n, 1)))
    fitted = classifier.fit(data, POINT, progress=False)
    levels = np.linspace(0.05, 0.99, 20)
    ask = lambda some: classifier.probabilities(  # noqa: E731
        fitted, data, n + np.arange(n), some, draws=1, batch_size=MANY
    )
    c = np.concatenate([ask(some).mean(0) for some in levels.reshape(4, 5)])
    # x_t is N(0, 1) or N(d, 1) with d = alpha: P(clean) = sigmoid(d^2 / 2 - d x).
    x = np.linspace(-8, 9, 4001)
    d = np.sqrt(1 - levels**2)[:, None]
    weight = np.exp(-((x - d) ** 2) / 2) / np.sqrt(2 * np.pi)
    exact = np.trapezoid(weight / (1 + np.exp(d * x - d**2 / 2)), x, axis=1)
    want = thresholds.sigma_min(levels, exact, tau=tau)
    assert 0.4 < want < 0.95
    assert abs(thresholds.sigma_min(levels, c, tau=tau) - want) < 0.03


@pytest.mark.slow
def test_only_with_the_observation_is_a_reversed_reaction_seen():
    """p(A) = q(A), but where clean actions follow the observation, corrupt ones oppose it.

    That corrupt observations lie elsewhere must not count: with noise alone left, c is 1/2."""
    rng, n = np.random.default_rng(0), MANY
    seen = rng.choice([-1.0, 1.0], (2 * n, 1))
    reaction = np.where(np.arange(2 * n) < n, 1.0, -1.0)[:, None] * seen
    action = reaction + 0.1 * rng.normal(size=(2 * n, 1))
    data = make_data(action[:n], action[n:])
    elsewhere = rng.normal(size=(2 * n, 1)) + 1.5 * (np.arange(2 * n) >= n)[:, None]
    data.steps["observation/state"] = np.hstack([seen, elsewhere]).astype(np.float32)
    clean = {}
    for observed in (False, True):
        options = dataclasses.replace(POINT, observed=observed)
        fitted = classifier.fit(data, options, progress=False)
        c = classifier.probabilities(fitted, data, n + np.arange(n), LEVELS, batch_size=n)
        clean[observed] = c.mean(0)
    np.testing.assert_allclose(clean[False], 0.5, atol=0.03)
    assert np.all(clean[True][:3] < 0.15) and clean[True][-1] > 0.4


@pytest.mark.slow
def test_what_is_wrong_far_apart_is_not_seen_by_short_crops():
    """Clean episodes keep their sign, corrupt ones change it half-way: each step is the same."""
    rng = np.random.default_rng(0)

    def episodes(count, second):
        sign = rng.choice([-1.0, 1.0], (count, 1))
        way = sign * np.repeat([1.0, second], 8) + 0.1 * rng.normal(size=(count, 16))
        return way.reshape(-1, 1)

    data = make_data(episodes(200, 1.0), episodes(200, -1.0), length=16)
    crossing = 3200 + np.arange(0, 3200, 16) + 4  # chunks of 8 whose middle is the change
    clean = {}
    for crop in (1, 8):
        options = dataclasses.replace(POINT, horizon=8, crop=crop, steps=200)
        fitted = classifier.fit(data, options, progress=False)
        clean[crop] = classifier.probabilities(fitted, data, crossing, LEVELS).mean(0)
    np.testing.assert_allclose(clean[1], 0.5, atol=0.05)
    assert np.all(clean[8][:3] < 0.2) and clean[8][-1] > 0.35


def test_identical_sources_are_told_apart_nowhere():
    """Few data and many steps: a chunk judged by a network that has seen it would be recognised."""
    rng = np.random.default_rng(0)
    data = make_data(rng.normal(size=(60, 4)), rng.normal(size=(60, 4)))
    options = dataclasses.replace(POINT, steps=400, patience=100, evaluate_every=50)
    fitted = classifier.fit(data, options, progress=False)
    c = classifier.probabilities(fitted, data, np.arange(60, 120), LEVELS, draws=8)
    assert thresholds.sigma_min(LEVELS, c.mean(0), tau=0.1) == 0
    # It would have been: by its end training has the sources apart.
    assert min(fitted.trained.history[-1]["train"]) < 0.5


@pytest.mark.slow
def test_disjoint_sources_are_unusable():
    rng = np.random.default_rng(0)
    data = make_data(*(rng.normal(size=(MANY, 1)) + shift for shift in (-50, 50)))
    fitted = classifier.fit(data, POINT, progress=False)
    c = classifier.probabilities(
        fitted, data, MANY + np.arange(MANY), LEVELS, draws=1, batch_size=MANY
    )
    assert thresholds.sigma_min(LEVELS, c.mean(0)) == 1


@pytest.fixture(scope="module")
def jagged():
    """Straight and jagged episodes of 24 steps, and their classifier after a few steps."""
    rng = np.random.default_rng(0)

    def episodes(count, jitter):
        way = rng.uniform(-1, 1, (count, 1, 2)) * np.linspace(0, 1, 24)[:, None]
        return (way + jitter * rng.normal(size=(count, 24, 2))).reshape(-1, 2)

    data = make_data(episodes(300, 0.0), episodes(900, JITTER), length=24)
    options = classifier.Options(
        horizon=8, steps=300, batch_size=128, features=(16,), learning_rate=1e-2, dropout=0.0
    )
    low = schedules.edm(p_mean=-2.5, p_std=1.5)
    return data, classifier.fit(data, options, schedule=low, progress=False)


@pytest.mark.slow
def test_jitter_of_a_hundredth_of_the_range_is_seen_at_low_noise_only(jagged):
    """Second differences tell a straight line's noise from jitter; their law is Gaussian."""
    data, fitted = jagged
    levels, rng = np.array([0.01, 0.02, 0.9]), np.random.default_rng(0)
    exact = []
    for sigma in levels:
        straight, jittered = sigma**2, sigma**2 + (1 - sigma**2) * JITTER**2
        # Of 8 steps in 2 dimensions 6 second differences each are free of the route.
        square = rng.chisquare(12, 20_000) * jittered
        logit = -0.5 * square * (1 / straight - 1 / jittered) - 6 * np.log(straight / jittered)
        exact.append(np.mean(1 / (1 + np.exp(-logit))))
    assert exact[0] < 0.05 and 0.2 < exact[1] < 0.4 and exact[2] > 0.49
    # Whole chunks only: what an episode's end holds is a rest, and looks like no line.
    positions = 7200 + np.flatnonzero(np.arange(21600) % 24 < 17)[::7]
    c = classifier.probabilities(fitted, data, positions, levels).mean(0)
    np.testing.assert_allclose(c, exact, atol=0.1)


@pytest.mark.slow
def test_episodes_are_not_cut_by_folds(jagged):
    data, fitted = jagged
    for start in np.unique(data.start):
        assert len(set(fitted.fold[data.start == start])) == 1
    for source in (slice(0, 7200), slice(7200, 28800)):
        assert np.mean(fitted.fold[source] == 0) == 0.5


@pytest.mark.slow
def test_a_chunks_answer_depends_on_itself_only(jagged):
    data, fitted = jagged
    positions = np.arange(7150, 7250)
    whole = classifier.probabilities(fitted, data, positions, LEVELS)
    some = classifier.probabilities(fitted, data, positions[30:37], LEVELS, batch_size=3)
    np.testing.assert_allclose(some, whole[30:37], atol=1e-5)
    # The same noise at every level: neighbouring levels differ little, other draws more.
    near = classifier.probabilities(fitted, data, positions, LEVELS + 1e-4)
    other = classifier.probabilities(fitted, data, positions, LEVELS, seed=1)
    assert np.abs(near - whole).mean() < 0.1 * np.abs(other - whole).mean()


def test_inputs_have_unit_size_at_every_level():
    rng = np.random.default_rng(0)
    x0 = np.cumsum(0.02 * rng.normal(size=(4000, 16, 2)), 1).astype(np.float32)
    moments = difference_moments(x0)
    for sigma in (0.003, 0.05, 0.7):
        eps = rng.normal(size=x0.shape)
        x_t = np.sqrt(1 - sigma**2) * x0 + sigma * eps
        found = standardised_differences(
            jax.numpy.asarray(x_t), jax.numpy.full(len(x0), sigma), moments
        )
        for k in range(4):
            part = np.asarray(found)[:, k:, 2 * k : 2 * k + 2]
            assert np.mean(part**2) == pytest.approx(1, rel=0.03)


def test_inputs_of_chunks_that_stand_still_are_finite_without_noise():
    x0 = jax.numpy.full((3, 16, 2), 0.7)
    found = standardised_differences(x0, jax.numpy.zeros(3), difference_moments(np.asarray(x0)))
    np.testing.assert_allclose(found[..., :2], 1, rtol=1e-5)
    np.testing.assert_array_equal(found[..., 2:], 0)


def test_inputs_of_coloured_noise_have_unit_mean_square_too():
    rng, matrix = np.random.default_rng(0), corruption.colour_matrix(16, 2.0)
    x_t = np.einsum("gh,bhd->bgd", matrix, rng.normal(size=(4000, 16, 2))).astype(np.float32)
    inputs = jax.numpy.asarray(x_t), jax.numpy.ones(len(x_t)), (1.0,) * 4
    found = np.asarray(standardised_differences(*inputs, 2.0))
    for k in range(4):
        assert np.mean(found[:, k:, 2 * k : 2 * k + 2] ** 2) == pytest.approx(1, rel=0.03)


def test_bad_input():
    with pytest.raises(ValueError, match="folds is 1, expected at least 2"):
        classifier.Options(folds=1)
    with pytest.raises(ValueError, match="crop is 17, expected 0 .* to the horizon 16"):
        classifier.Options(crop=17)
    rng = np.random.default_rng(0)
    data = make_data(rng.normal(size=(30, 1)), rng.normal(size=(1, 1)))
    with pytest.raises(ValueError, match="corrupt sources have 1 episodes, expected at least 2"):
        classifier.fit(data, POINT)
    alone = data._replace(sources=mixing.make_sources([1, 1], [True, True]))
    with pytest.raises(ValueError, match="corrupt sources have 0 episodes"):
        classifier.fit(alone, POINT)
