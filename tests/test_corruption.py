"""Noising and re-noising: laws by exact coefficients, and noise that belongs to a sample."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ambient_jax import corruption, schedules, targets

SCHEDULES = ("vp", "cosine", "rectified_flow", "edm")
LEVELS = (0.0, 0.05, 0.3, 0.6, 0.9, 0.98)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", SCHEDULES)
def test_add_noise_is_the_published_process(name, x64):
    for sigma in LEVELS:
        a = np.sqrt(1 - sigma**2)
        alpha, noise = {
            "rectified_flow": (a / (a + sigma), sigma / (a + sigma)),
            "edm": (1.0, sigma / a),
        }.get(name, (a, sigma))
        got = corruption.add_noise(np.eye(2), np.eye(2)[::-1], sigma, schedule=schedules.get(name))
        np.testing.assert_allclose(got, [[alpha, noise], [noise, alpha]], rtol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_renoised_sample_has_the_law_of_the_noised_one(name, x64):
    """On unit vectors of (x0, e, z): the same x0 coefficient, the same noise variance."""
    schedule = schedules.get(name)
    x0, e, z = np.eye(3)
    for sigma_min, sigma in itertools.combinations(LEVELS, 2):
        x_min = corruption.add_noise(x0, e, sigma_min, schedule=schedule)
        x_t = corruption.renoise(x_min, z, sigma, sigma_min, schedule=schedule)
        alpha, noise = schedule.coefficients(sigma)
        np.testing.assert_allclose(x_t[0], alpha, rtol=1e-10)
        np.testing.assert_allclose(x_t[1] ** 2 + x_t[2] ** 2, noise**2, rtol=1e-10)
        # the bridge: x_t depends on x0 through x_min alone
        np.testing.assert_allclose(x_t[:2] / x_min[:2] if sigma_min else x_t[:1], x_t[0] / x_min[0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_renoising_composes(name, x64):
    """Twice through a level between is once: the same coefficient and variance."""
    schedule = schedules.get(name)
    start, first, second = np.eye(3)
    for low, middle, high in itertools.combinations(LEVELS, 3):
        once = corruption.renoise(start, first, high, low, schedule=schedule)
        twice = corruption.renoise(
            corruption.renoise(start, first, middle, low, schedule=schedule),
            second,
            high,
            middle,
            schedule=schedule,
        )
        np.testing.assert_allclose(twice[0], once[0], rtol=1e-10)
        np.testing.assert_allclose(twice[1] ** 2 + twice[2] ** 2, once[1] ** 2, rtol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ends_of_the_bridge(name):
    schedule = schedules.get(name)
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    for sigma in (0.0, 1e-6, 0.4, 1.0):
        np.testing.assert_array_equal(
            corruption.renoise(x, z, sigma, 0.0, schedule=schedule),
            corruption.add_noise(x, z, sigma, schedule=schedule),
        )
    for sigma in (0.1, 0.5, 0.99):
        np.testing.assert_array_equal(corruption.renoise(x, z, sigma, sigma, schedule=schedule), x)
        # below sigma_min no noise is added, and none can be taken away
        below = corruption.renoise(x, z, sigma / 2, sigma, schedule=schedule)
        np.testing.assert_array_equal(
            below, corruption.renoise(x, 0 * z, sigma / 2, sigma, schedule=schedule)
        )
    for sigma_min, sigma in ((1.0, 1.0), (1.0, 0.5), (0.999999, 1.0)):
        assert np.isfinite(corruption.renoise(x, z, sigma, sigma_min, schedule=schedule)).all()


def test_pure_noise_forgets_the_sample():
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    np.testing.assert_allclose(corruption.renoise(x, z, 1.0, 0.3), z, atol=1e-6)
    np.testing.assert_array_equal(corruption.add_noise(x, z, 1.0), z)
    np.testing.assert_array_equal(corruption.add_noise(x, z, 0.0), x)


def test_anchor_level():
    """sigma_min above it; x0 itself at and below it, where only the low band is admissible."""
    sigma = jnp.array([0.1, 0.3, 0.5, 1.0, jnp.nan])
    np.testing.assert_array_equal(
        corruption.anchor_level(sigma, jnp.float32(0.3)), np.float32([0, 0, 0.3, 0.3, 0])
    )
    np.testing.assert_array_equal(corruption.anchor_level(sigma, 0.0), [0.0] * 5)
    np.testing.assert_array_equal(corruption.anchor_level(sigma, 1.0), [0.0] * 5)


def test_fixed_noise_is_a_pure_function_of_the_id():
    key = jax.random.key(4)
    ids = jnp.array(list(itertools.product(range(3), range(4), range(5))))
    noise = jax.jit(jax.vmap(lambda i: corruption.fixed_noise(key, i, (4, 2))))(ids)
    shuffled = np.random.default_rng(0).permutation(len(ids))
    again = jax.vmap(lambda i: corruption.fixed_noise(key, i, (4, 2)))(ids[shuffled])
    np.testing.assert_array_equal(again, noise[shuffled])
    np.testing.assert_array_equal(
        corruption.fixed_noise(key, np.array([2, 3, 4]), (4, 2)), noise[-1]
    )
    # every id its own noise: (0, 1, 2) is not (2, 1, 0), and another key is other noise
    flat = np.asarray(noise).reshape(len(ids), -1)
    assert len(np.unique(flat[:, 0])) == len(ids)
    assert np.abs(np.corrcoef(flat) - np.eye(len(ids))).max() < 0.99
    other = corruption.fixed_noise(jax.random.key(5), ids[0], (4, 2))
    assert not np.allclose(other, noise[0])


def test_fixed_noise_takes_a_key_of_either_type_or_a_seed():
    sample, shape = jnp.arange(3), (4, 2)
    noise = corruption.fixed_noise(jax.random.key(4), sample, shape)
    for key in (jax.random.PRNGKey(4), 4, np.int64(4)):
        np.testing.assert_array_equal(corruption.fixed_noise(key, sample, shape), noise)
    with pytest.raises(ValueError, match="key is 0.5 of type float, expected jax.random.key"):
        corruption.fixed_noise(0.5, sample, shape)


def test_fixed_noise_is_standard_normal():
    ids = jnp.stack([jnp.zeros(2000, int), jnp.arange(2000), jnp.arange(2000) % 7], axis=1)
    noise = jax.jit(jax.vmap(lambda i: corruption.fixed_noise(jax.random.key(0), i, (8, 2))))(ids)
    assert scipy.stats.kstest(np.asarray(noise).ravel(), "norm").pvalue > 1e-3
    steps = np.asarray(noise)[:, 0, 0]
    assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1]) < 0.1


def test_fixed_noise_wants_one_id():
    with pytest.raises(ValueError, match=r"sample_id has shape \(5, 3\), expected \(3,\)"):
        corruption.fixed_noise(jax.random.key(0), jnp.zeros((5, 3), int), (4, 2))
    with pytest.raises(ValueError, match=r"sample_id has shape \(\), expected \(3,\)"):
        corruption.fixed_noise(jax.random.key(0), 3, (4, 2))


HORIZON = 6


def gaussian_chunks(n, rng):
    """Chunks [n, H, 1] of a random walk, and their covariance [H, H]."""
    steps = np.tril(np.ones((HORIZON, HORIZON))) * 0.4
    return (rng.standard_normal((n, HORIZON)) @ steps.T)[..., None], steps @ steps.T


@pytest.mark.parametrize("colour", [-1.0, 0.0, 1.5])
def test_coloured_noise_has_the_power_of_white_noise_and_the_laws_spectrum(colour):
    matrix = corruption.colour_matrix(HORIZON, colour)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.trace(matrix @ matrix) == pytest.approx(HORIZON)
    power = np.sort(np.linalg.eigvalsh(matrix @ matrix))
    f = np.maximum(np.arange(HORIZON), 1.0)  # f = 0 has the power of the lowest frequency
    np.testing.assert_allclose(power, np.sort(f**-colour / (f**-colour).mean()), atol=1e-12)
    if colour == 0:
        np.testing.assert_allclose(matrix, np.eye(HORIZON), atol=1e-12)
        # The diagonalising basis is that of scipy's orthonormal DCT-II.
    else:
        basis = scipy.fft.dct(np.eye(HORIZON), norm="ortho", axis=0)
        inside = basis @ matrix @ basis.T
        np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-12)


def test_white_noise_is_the_argument_itself():
    white = jnp.ones((2, HORIZON, 3))
    assert corruption.coloured(white) is white
    assert corruption.coloured(white, schedules.cosine()) is white


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
@pytest.mark.parametrize("sigma_min", [0.0, 0.35])
def test_targets_of_coloured_noise_have_the_gaussians_posterior_mean(prediction, sigma_min):
    """The regression of a target on x_t of Gaussian chunks is its posterior mean: with S the
    covariance of the data and C = L^2 that of the noise, E[x0 | x_t] = a S (a^2 S + s^2 C)^-1 x_t,
    E[eps | x_t] = (x_t - a E[x0 | x_t]) / s, and v is a eps - s x0. At sigma_min > 0 the ambient
    targets are made of x_min and the bridge's noise alone."""
    n, sigma, colour = 400_000, 0.7, 1.5
    schedule = schedules.vp(colour=colour)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x0, data = gaussian_chunks(n, rng)
        noise = lambda: np.asarray(  # noqa: E731
            corruption.coloured(jnp.asarray(rng.standard_normal(x0.shape)), schedule)
        )
        e, z = noise(), noise()
        x_min = corruption.add_noise(x0, e, sigma_min)
        x_t = np.asarray(corruption.renoise(x_min, z, sigma, sigma_min))[..., 0]
        target, ratio = targets.scaled_ambient_target(
            x_min, jnp.asarray(z), sigma, sigma_min, prediction=prediction, schedule=schedule
        )
        target = np.asarray(target / ratio)[..., 0]
    fitted, *_ = np.linalg.lstsq(x_t, target, rcond=None)
    a, c = np.sqrt(1 - sigma**2), corruption.colour_matrix(HORIZON, colour)
    x0_hat = a * data @ np.linalg.inv(a**2 * data + sigma**2 * c @ c)
    eps_hat = (np.eye(HORIZON) - a * x0_hat) / sigma
    exact = {"x0": x0_hat, "eps": eps_hat, "v": a * eps_hat - sigma * x0_hat}[prediction]
    np.testing.assert_allclose(fitted.T, exact, atol=0.02)


def test_whitened_chunks_have_the_white_process():
    """x_t of x0 with coloured noise is L times x_t of L^-1 x0 with white noise, in float64."""
    with jax.enable_x64(True):
        x0, white = np.random.default_rng(0).standard_normal((2, 5, HORIZON, 2))
        schedule = schedules.vp(colour=2.0)
        matrix = corruption.colour_matrix(HORIZON, 2.0)
        whitened = np.einsum("gh,bhd->bgd", np.linalg.inv(matrix), x0)
        coloured = corruption.add_noise(x0, corruption.coloured(jnp.asarray(white), schedule), 0.4)
        again = np.einsum("gh,bhd->bgd", matrix, corruption.add_noise(whitened, white, 0.4))
        np.testing.assert_allclose(coloured, again, atol=1e-12)
