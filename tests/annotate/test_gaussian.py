"""The head start against densities in closed form, and what it does where data are few."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ambient_jax.annotate import gaussian
from ambient_jax.annotate import pairs as pairs_lib
from tests.annotate.test_pairs import make_data

LEVELS = np.array([0.004, 0.05, 0.3, 0.7, 0.95])
OPTIONS = types.SimpleNamespace(history=1, horizon=4, length=4)


def start_of(sides):
    """A head start of one pair from the mean [d] and covariance [d, d] of both sides."""
    values, vectors = zip(*(np.linalg.eigh(c) for _, c in sides), strict=True)
    mean, vectors, values = (
        np.asarray(v, np.float32)[None] for v in ([m for m, _ in sides], vectors, values)
    )
    middles = np.array([-1.0, 1.0], np.float32)
    return gaussian.HeadStart(mean, vectors, values, middles, np.zeros((1, 2), np.float32))


def random_walks(rng, count, step, shift):
    """Mean and covariance of 4 steps in 2 dimensions, and draws [count, 4, 2]."""
    sums = np.kron(np.tril(np.ones((4, 4))), np.eye(2))
    mean, covariance = np.full(8, shift), step**2 * sums @ sums.T + 1e-4 * np.eye(8)
    draws = rng.multivariate_normal(mean, covariance, count)
    return (mean, covariance), draws.reshape(count, 4, 2)


def noised(law, sigma):
    alpha2 = 1 - sigma**2
    covariance = alpha2 * law[1] + sigma**2 * np.eye(len(law[0]))
    return scipy.stats.multivariate_normal(np.sqrt(alpha2) * law[0], covariance)


@pytest.mark.parametrize("sigma", LEVELS)
def test_the_logit_of_two_gaussians_and_its_curve_are_exact(sigma):
    """Against densities in float64; beyond its bound of 20 the logit only keeps its sign."""
    rng = np.random.default_rng(0)
    (p, x_p), (q, x_q) = (random_walks(rng, 2000, *of) for of in ((0.3, 0.0), (0.36, 0.2)))
    x0 = np.concatenate([x_p, x_q])
    x_t = np.sqrt(1 - sigma**2) * x0 + sigma * rng.normal(size=x0.shape)
    flat = x_t.reshape(len(x_t), -1)
    exact = noised(p, sigma).logpdf(flat) - noised(q, sigma).logpdf(flat)
    inputs = jnp.float32(x_t), jnp.full(len(x_t), sigma), jnp.zeros(len(x_t), int)
    found = np.asarray(jax.jit(gaussian.logit)(start_of([p, q]), *inputs), np.float64)
    np.testing.assert_allclose(found, 20 * np.tanh(exact / 20), atol=2e-3)
    curves = [scipy.special.expit(logit[2000:]).mean() for logit in (found, exact)]
    assert abs(curves[0] - curves[1]) < 1e-3


def test_a_large_batch_is_judged_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    sides = [random_walks(rng, 37, *of) for of in ((0.3, 0.0), (0.5, 0.2))]
    inputs = jnp.float32(sides[0][1]), jnp.linspace(0.01, 0.99, 37), jnp.zeros(37, int)
    whole = gaussian.logit(start_of([law for law, _ in sides]), *inputs)
    monkeypatch.setattr(gaussian, "_GATHERED", 2 * 8**2 * 5)
    parts = gaussian.logit(start_of([law for law, _ in sides]), *inputs)
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def measured(*steps, dims=None, length=8):
    """The head start of sources of steps [N, D], the first clean, in episodes of ``length``."""
    dims = dims or [[1] * steps[0].shape[1]] * len(steps)
    data = make_data(*steps, dims=dims, length=length)
    pairs = pairs_lib.make(data)
    # Of two folds the second holds nothing out.
    training = pairs_lib.split(data, np.zeros(len(data.start), np.int32), 2)[0]
    part = {name: jax.tree.map(lambda x: x[1], value) for name, value in training.items()}
    return pairs, gaussian.measure(data, part, pairs, np.array([-1.0, 1.0]), OPTIONS)


def logits(start, chunks, sigma, pair=0):
    inputs = jnp.float32(chunks), jnp.full(len(chunks), sigma), jnp.full(len(chunks), pair)
    return np.asarray(gaussian.logit(start, *inputs))


def test_means_and_covariances_are_those_of_each_sources_chunks():
    """Chunks of 4 held steps are the step four times: covariances of rank 2, up to the prior."""
    rng = np.random.default_rng(0)
    clean, near, far = (rng.normal(size=(20_000, 2)) * [1, 2] + m for m in (0.0, 1.0, 3.0))
    _, start = measured(clean, near, far, length=1)
    assert start.mean.shape == (2, 2, 8) and start.vectors.dtype == np.float32
    for k, shift in enumerate((1.0, 3.0)):
        np.testing.assert_allclose(start.mean[k, 0], 0.0, atol=0.06)
        np.testing.assert_allclose(start.mean[k, 1], shift, atol=0.12)
        for side in (0, 1):
            vectors, values = start.vectors[k, side], start.values[k, side]
            covariance = (vectors * values) @ vectors.T
            want = np.kron(np.ones((4, 4)), np.diag([1.0, 4.0]))
            np.testing.assert_allclose(covariance, want, atol=0.25)


def test_equal_data_have_logit_0_at_every_level():
    steps = np.random.default_rng(0).normal(size=(400, 2))
    _, start = measured(steps, steps)
    for sigma in LEVELS:
        x_t = np.random.default_rng(1).normal(size=(50, 4, 2))
        np.testing.assert_allclose(logits(start, x_t, sigma), 0.0, atol=2e-3)


def test_dimensions_that_are_not_shared_do_not_count():
    """A pair with its second dimension masked has the logit of the first dimension alone."""
    rng = np.random.default_rng(0)
    clean, corrupt = rng.normal(size=(2, 800, 2)) * [[[1.0, 9.0]], [[1.3, 0.1]]]
    pairs, start = measured(clean, corrupt, dims=[[1, 1], [1, 0]])
    _, alone = measured(clean[:, :1], corrupt[:, :1])
    chunks = rng.normal(size=(50, 4, 2))
    for sigma in LEVELS:
        found = logits(start, chunks * pairs.mask[0], sigma)
        want = logits(alone, chunks[..., :1], sigma)
        # The prior counts as many episodes as a chunk has numbers, those masked included.
        np.testing.assert_allclose(found, want, atol=0.05 * np.abs(want).max() + 1e-3)


def test_two_episodes_do_not_explode():
    """Their covariance has rank 2 of 8, yet chunks of the same law are no certain strangers."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(4000, 2))
    _, start = measured(clean, rng.normal(size=(16, 2)))
    for sigma in LEVELS:
        found = logits(start, np.sqrt(1 - sigma**2) * rng.normal(size=(500, 4, 2)), sigma)
        assert np.isfinite(found).all() and np.abs(found).max() <= 20
        assert np.abs(found).mean() < 2.5
    # A side that never moves is as flat as chunks can be.
    _, start = measured(clean, np.zeros((16, 2)))
    assert np.isfinite(logits(start, rng.normal(size=(20, 4, 2)), 0.004)).all()


def test_the_temperature_of_a_pair_divides_its_logit():
    rng = np.random.default_rng(0)
    _, start = measured(*(rng.normal(size=(400, 2)) * s for s in (1.0, 1.5, 2.0)))
    chunks = rng.normal(size=(20, 4, 2))
    cold = start._replace(log_temperature=np.log([[1.0, 1.0], [4.0, 4.0]]).astype(np.float32))
    for pair, by in enumerate((1, 4)):
        want = logits(start, chunks, 0.3, pair) / by
        np.testing.assert_allclose(logits(cold, chunks, 0.3, pair), want, rtol=1e-5)
