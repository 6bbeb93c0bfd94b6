"""The excess loss of a wrong law's denoiser against closed forms and quadrature, then learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from ambient_jax import mixing, schedules
from ambient_jax.annotate import classifier, mismatch
from ambient_jax.data import device

LEVELS = 1 / np.hypot(1, np.geomspace(300, 0.005, 200))  # increasing, equidistant in log snr
H = 6
# A smooth chunk: steps are correlated over about three of their neighbours.
COVARIANCE = 0.04 * np.exp(-((np.subtract.outer(np.arange(H), np.arange(H)) / 3) ** 2))
ROUTE = np.linspace(0.2, 1.0, H)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def snr(levels):
    """``(1 - sigma^2) / sigma^2`` of noise levels in (0, 1]."""
    levels = np.asarray(levels, np.float64)
    return (1 - levels) * (1 + levels) / levels**2


def relative_entropy(levels, excess):
    """KL [L] of the noised laws from e [L] at increasing levels, up to that at the last one.

    ``KL(sigma) = 1/2 integral of e over the snr from 0``: trapezoids in log snr up to the last
    level, and beyond it e there times half its snr. Levels below 1.
    """
    gamma, excess = snr(levels), np.asarray(excess, np.float64)
    weighted = gamma * excess
    steps = np.log(gamma[:-1] / gamma[1:]) * (weighted[:-1] + weighted[1:]) / 4
    return np.append(np.cumsum(steps[::-1])[::-1], 0.0) + weighted[-1] / 2


def noised(sigma):
    """alpha and the inverse covariance of a noised chunk."""
    alpha = np.sqrt((1 - sigma) * (1 + sigma))
    return alpha, np.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * np.eye(H))


def mean_of(d, statistic):
    """E of a statistic of t ~ N(d, d), by the trapezoid rule, which is exact to rounding here."""
    z = np.linspace(-12, 12, 20_001)
    return np.trapezoid(scipy.stats.norm.pdf(z) * statistic(d + np.sqrt(d) * z), z)


def two_modes(m, level, statistic):
    """E_p of a statistic of t, where p is at m and q at m and at -m, as often.

    log p/q = -log(1/2 + 1/2 exp(-2t)) with t = alpha m' C^-1 x_t, which under p has mean and
    variance d = alpha^2 m' C^-1 m.
    """
    alpha, inverse = noised(level)
    return mean_of(alpha**2 * m @ inverse @ m, statistic)


def wrong(t):
    """Posterior weight of the wrong mode."""
    return scipy.special.expit(-2 * t)


def excess_of_modes(m, level):
    """The means of x0 given either mode differ by 2 sigma^2 C^-1 m, whatever x_t is."""
    apart = 2 * level**2 * noised(level)[1] @ m
    return apart @ apart * two_modes(m, level, lambda t: wrong(t) ** 2)


def test_gaussians_of_other_means_whatever_the_observations_law(x64):
    """p and q are Gaussian given O; the logit also tells O apart, and that drops out."""
    rng = np.random.default_rng(0)
    gap = rng.normal(size=(3, H))  # of the means of x0, one for each of three observations
    excess, entropy = [], []
    for sigma in LEVELS:
        alpha, inverse = noised(sigma)
        # E[x0 | x_t] = mean + alpha S C^-1 (x_t - alpha mean)
        exact = gap - alpha**2 * gap @ inverse @ COVARIANCE
        excess.append(np.mean(np.sum(exact**2, 1)))
        entropy.append(np.mean(np.sum(gap @ inverse * gap, 1)) * alpha**2 / 2)
        if sigma == LEVELS[75]:
            x_t = rng.normal(size=(3, H))

            def logit(x, m, of_observation, alpha=alpha, inverse=inverse):
                square = lambda y: -(y @ jnp.asarray(inverse) @ y) / 2  # noqa: E731
                return of_observation + square(x - alpha * m) - square(x)

            found = [
                mismatch.tweedie_difference(lambda y, o=o: logit(y, gap[o], 3.0 * o), x_t[o], sigma)
                for o in range(3)
            ]
            np.testing.assert_allclose(found, exact, rtol=1e-10)
    np.testing.assert_allclose(relative_entropy(LEVELS, excess), entropy, rtol=1.5e-3)


def test_gradient_of_the_logit_is_the_difference_of_two_mixtures_denoisers(x64):
    rng, m = np.random.default_rng(1), 0.7 * ROUTE
    for sigma in (0.2, 0.6, 0.95):
        alpha, inverse = noised(sigma)
        x_t = rng.normal(size=(20, H))

        def logit(x, alpha=alpha, inverse=inverse):
            return -jnp.log(0.5 + 0.5 * jnp.exp(-2 * alpha * m @ inverse @ x))

        found = jax.vmap(lambda x, s=sigma, f=logit: mismatch.tweedie_difference(f, x, s))(x_t)
        # q's denoiser, mode by mode: weights by the densities, means by Gaussian conditioning.
        modes = np.stack([m, -m])
        noise = np.linalg.inv(inverse)
        log_density = np.stack(
            [scipy.stats.multivariate_normal(alpha * k, noise).logpdf(x_t) for k in modes]
        )
        weight = scipy.special.softmax(log_density, 0)
        means = [k + alpha * (x_t - alpha * k) @ inverse @ COVARIANCE for k in modes]
        exact = means[0] - np.einsum("kn,knd->nd", weight, means)
        np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-12)


def test_two_modes_excess_is_the_slope_of_the_relative_entropy():
    m = 0.7 * ROUTE
    excess = [excess_of_modes(m, sigma) for sigma in LEVELS]
    entropy = [
        two_modes(m, sigma, lambda t: np.log(2) - np.logaddexp(0, -2 * t)) for sigma in LEVELS
    ]
    np.testing.assert_allclose(relative_entropy(LEVELS, excess), entropy, rtol=1.5e-3)
    np.testing.assert_allclose(relative_entropy(LEVELS, excess)[0], entropy[0], rtol=1e-5)
    # All the disagreement is left at sigma = 1, and log 2 = one coin is to be known at sigma = 0.
    np.testing.assert_allclose(excess[-1], m @ m, rtol=1e-3)
    np.testing.assert_allclose(mismatch.lost(entropy)[0], 0, atol=1e-12)
    np.testing.assert_allclose(entropy[0], np.log(2), rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_sigma_max_of_two_points_hangs_on_how_far_apart_whole_chunks_are(steps):
    """Without spread, d = snr ||m||^2 and the share is 4 E[wrong^2]: one d solves it."""
    share = lambda d: 4 * mean_of(d, lambda t: wrong(t) ** 2)  # noqa: E731
    far = 0.25 * steps  # ||m||^2 of a chunk of that many steps, each 0.5 from the middle
    shares = [share(far * ratio) for ratio in snr(LEVELS)]
    for tau in (0.05, 0.2):
        d = scipy.optimize.brentq(lambda d, tau=tau: share(d) - tau, 1e-3, 50)
        exact = 1 / np.sqrt(1 + d / far)
        assert abs(mismatch.sigma_max(LEVELS, shares, tau=tau) - exact) < 2e-3


def test_sigma_max_of_made_up_curves():
    levels = [0.1, 0.3, 0.5, 0.9]
    assert mismatch.sigma_max(levels, [0, 0, 2, 4], tau=0.25) == pytest.approx(0.4)
    # The first crossing counts, whatever comes after it.
    assert mismatch.sigma_max(levels, [0, 2, 0, 4], tau=0.25) == pytest.approx(0.2)
    assert mismatch.sigma_max(levels, [4, 4, 4, 4]) == 0.1
    assert mismatch.sigma_max(levels, [0, 0, 0, 0]) == 1.0
    with pytest.raises(ValueError, match=r"\[L\], levels increasing"):
        mismatch.sigma_max(levels, [1, 2, 3])
    with pytest.raises(ValueError, match="finite values"):
        mismatch.sigma_max(levels, [1, 2, np.nan, 4])


def test_lost_share_of_a_noisy_relative_entropy_increases():
    found = mismatch.lost([1.0, 1.02, 0.5, 0.55, -0.01])
    assert np.all(np.diff(found) >= 0) and found[0] == 0 and found[-1] == 1
    np.testing.assert_allclose(found[2], 1 - 0.525 / 1.01)
    assert mismatch.lost([0.0, -0.1, 0.0]).tolist() == [1, 1, 1]


@pytest.mark.slow
def test_observed_classifier_finds_the_excess_loss_and_sigma_max():
    """p goes where the colour says, q to either side: p(A) = q(A), only p(A | O) differs."""
    rng, n, m, spread = np.random.default_rng(0), 6000, 0.6, 0.1
    colour = rng.choice([-1.0, 1.0], 2 * n)
    side = np.where(np.arange(2 * n) < n, colour, rng.choice([-1.0, 1.0], 2 * n))
    action = (m * side + spread * rng.normal(size=2 * n))[:, None].astype(np.float32)
    at = np.arange(2 * n, dtype=np.int32)
    sizes = np.array([n, n], np.int32)
    # Observations of corrupt data lie elsewhere, which the classifier sees and e must not.
    seen = np.stack([colour + 0.1 * rng.normal(size=2 * n), rng.normal(size=2 * n) + at // n], 1)
    data = device.DeviceData(
        {"action": action, "observation/state": seen.astype(np.float32)},
        *(at, at + 1, at, np.array([0, n], np.int32), sizes),
        mixing.make_sources(sizes, [True, False]),
    )
    options = classifier.Options(
        *(1, 1),
        **dict(observed=True, encoder=(0, 32, 1), features=(32,), dropout=0),
        **dict(steps=400, batch_size=512, learning_rate=5e-3, patience=3),
    )
    schedule = schedules.edm(p_mean=-1.5, p_std=2.2)  # the annotation's, which visits high levels
    fitted = classifier.fit(data, options, schedule=schedule, progress=False)
    levels = 1 / np.hypot(1, np.geomspace(10, 0.05, 14))
    judged = mismatch.by_classifier(fitted, data, np.arange(0, n, 3), levels, draws=4)

    def exact(sigma):
        alpha2 = (1 - sigma) * (1 + sigma)
        noise = alpha2 * spread**2 + sigma**2
        d = alpha2 * m**2 / noise
        return (2 * m * sigma**2 / noise) ** 2 * mean_of(d, lambda t: wrong(t) ** 2)

    truth, found = [exact(sigma) for sigma in levels], judged.excess.mean(0)
    # Its scale is that of the temperature, fitted on few rows, squared; sigma_max needs a shape.
    clear = np.array(truth) > 0.05 * max(truth)
    np.testing.assert_allclose(found[clear], np.array(truth)[clear], rtol=0.5)
    assert abs(mismatch.sigma_max(levels, found) - mismatch.sigma_max(levels, truth)) < 0.06
    # KL of a coin is log 2 where its side is seen, and none is left in noise.
    entropy = judged.logit.mean(0)
    assert abs(entropy[0] - np.log(2)) < 0.1 and abs(entropy[-1]) < 0.02
