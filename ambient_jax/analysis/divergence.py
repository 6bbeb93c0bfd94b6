"""How far apart two laws still are at noise level sigma: total variation, exact and bounded.

Throughout ``x_t = sqrt(1 - sigma^2) x0 + sigma eps`` (variance preserving, sigma in [0, 1]),
p_sigma and q_sigma are the laws of x_t for x0 ~ p0 (clean) and x0 ~ q0 (corrupt), and
``TV = 1/2 integral |p_sigma - q_sigma|`` in [0, 1]. A classifier between them with even classes has
a balanced accuracy of at most (1 + TV) / 2. TV never grows with sigma: noise only adds up.

NumPy in float64 on the host but for ``optimal_probability``. ``sigma`` may be an array in [0, 1];
results have its shape, and levels outside raise ValueError.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf, erfc

from ambient_jax import _checks
from ambient_jax.analysis import spectrum
from ambient_jax.estimates import wilson_interval


class Mixture(NamedTuple):
    """A Gaussian mixture on the line: K weights that sum to 1, means and standard deviations."""

    weights: np.ndarray
    means: np.ndarray
    stds: np.ndarray


class Estimate(NamedTuple):
    """A classifier's estimate of TV with its 95% interval; all three in [0, 1]."""

    tv: float
    low: float
    high: float


def _levels(sigma):
    """(alpha^2, sigma^2) of checked levels; alpha^2 without cancellation near 1."""
    sigma = _checks.level("sigma", np.asarray(sigma, np.float64))
    return (1 - sigma) * (1 + sigma), sigma**2


def _ratio(numerator, denominator):
    """numerator / denominator with 0 / 0 = 0 and x / 0 = inf."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, np.where(numerator > 0, np.inf, 0.0))


def gaussian_tv(mean_difference, covariance, sigma) -> np.ndarray:
    """Exact TV of two noised Gaussians with the same covariance: ``2 Phi(d / 2) - 1``.

    d is the Mahalanobis distance of the noised laws, ``d^2 = alpha^2 m' (alpha^2 S + sigma^2 I)^-1
    m``. A chunk [H, D] counts as its H D numbers.

    Args:
      mean_difference: m [n] (or any shape, flattened), the difference of the means of x0.
      covariance: S of x0, [n, n], or [n] for its diagonal, or a scalar for S I. May be singular.
      sigma: noise level(s).

    Raises:
      ValueError: shapes that do not fit, or a matrix that is no covariance.
    """
    mean = np.ravel(np.asarray(mean_difference, np.float64))
    values, vectors = _spectral(covariance, mean.size)
    power = (vectors.T @ mean) ** 2
    # Rounding must not put the means apart in a direction without width.
    power = np.where(power <= 1e-22 * power.sum(), 0.0, power)
    alpha2, sigma2 = (v[..., None] for v in _levels(sigma))
    squared = np.sum(_ratio(alpha2 * power, alpha2 * values + sigma2), -1)
    return erf(np.sqrt(squared / 8))


def _spectral(covariance, n):
    """Eigenvalues [n] and eigenvectors [n, n] of a scalar, diagonal or full covariance."""
    covariance = np.asarray(covariance, np.float64)
    if covariance.shape in ((), (n,)):
        values, vectors = np.broadcast_to(covariance, (n,)), np.eye(n)
    elif covariance.shape == (n, n) and np.allclose(covariance, covariance.T):
        values, vectors = np.linalg.eigh(covariance)
        tiny = 1e-12 * max(values[-1], 0.0)
        values = np.where(np.abs(values) <= tiny, 0.0, values)
    else:
        raise ValueError(
            f"covariance has shape {covariance.shape}, expected a scalar, ({n},) or a symmetric "
            f"({n}, {n}) for a mean of {n} numbers"
        )
    if not np.all(values >= 0):
        raise ValueError(f"covariance has the eigenvalue {values.min():.4g}, expected all >= 0")
    return values, vectors


def gaussian_tv_1d(m1, v1, m2, v2, sigma) -> np.ndarray:
    """Exact TV of two noised Gaussians on the line with means m and variances v of x0.

    With y = (x - mean_1) / std_1 and ``mu, r`` the second law's mean and variance there, the
    densities cross at the roots of ``(1 - r) y^2 - 2 mu y + mu^2 + r log r``; TV is the difference
    of the two laws' masses between the roots (one of them is infinite when r = 1).

    Raises:
      ValueError: a negative variance.
    """
    m1, v1, m2, v2 = (np.asarray(v, np.float64) for v in (m1, v1, m2, v2))
    if np.any(v1 < 0) or np.any(v2 < 0):
        raise ValueError(f"variances are {v1} and {v2}, expected both >= 0")
    alpha2, sigma2 = _levels(sigma)
    n1, n2, gap = np.broadcast_arrays(
        alpha2 * v1 + sigma2, alpha2 * v2 + sigma2, np.sqrt(alpha2) * (m2 - m1)
    )
    # A law without width is apart from every other law but itself.
    point = (n1 <= 0) | (n2 <= 0)
    apart = (n1 != n2) | (gap != 0)
    n1, n2 = np.where(point, 1.0, n1), np.where(point, 1.0, n2)
    mu, r = gap / np.sqrt(n1), n2 / n1
    excess = (n2 - n1) / n1
    c = mu**2 + r * np.log1p(excess)
    h = mu + np.copysign(np.sqrt(r * (mu**2 + excess * np.log1p(excess))), mu)
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.stack([h / -excess, c / h])
        masses = 0.5 * (erf(roots / math.sqrt(2)) - erf((roots - mu) / np.sqrt(2 * r)))
    # r = 1: the first root is infinite, where both laws have all their mass.
    masses = np.where(np.isinf(roots), 0.0, masses)
    tv = np.abs(masses[0] - masses[1])
    tv = np.where((excess == 0) & (mu == 0), 0.0, tv)
    return np.where(point, apart.astype(np.float64), np.clip(tv, 0, 1))


def _mixture(mixture, name):
    weights, means, stds = np.broadcast_arrays(*(np.atleast_1d(v).astype(float) for v in mixture))
    if np.any(weights < 0) or abs(weights.sum() - 1) > 1e-6 or np.any(stds < 0):
        raise ValueError(
            f"mixture {name} has weights {weights.tolist()} and stds {stds.tolist()}, expected "
            "weights >= 0 that sum to 1 and stds >= 0"
        )
    return weights, means, stds


def mixture_tv_1d(p: Mixture, q: Mixture, sigma) -> np.ndarray:
    """TV of two noised Gaussian mixtures on the line, by quadrature with exact cell masses.

    The line is cut at 200 points per component (mean +- 9 std) and, by bisection, at the sign
    changes of p - q between them; TV is half the sum of |P(cell) - Q(cell)|. Each mass is exact, so
    the result falls short of TV only by cells in which p - q changes sign twice (below 1e-8 in the
    tests). Point masses (std 0) are exact at sigma = 0 when both laws are made of them.
    """
    p, q = _mixture(p, "p"), _mixture(q, "q")
    _levels(sigma)
    return np.vectorize(lambda s: _mixture_tv(p, q, s), otypes=[np.float64])(sigma)


def _mixture_tv(p, q, sigma):
    alpha2, sigma2 = _levels(sigma)
    laws = [(w, np.sqrt(alpha2) * m, np.sqrt(alpha2 * s**2 + sigma2)) for w, m, s in (p, q)]

    def density(x, law):
        """Up to a factor; without point masses."""
        w, m, s = (v[law[2] > 0] for v in law)
        return np.exp(-(((x[:, None] - m) / s) ** 2) / 2) @ (w / s)

    def sign_of_difference(x):
        return np.sign(density(x, laws[0]) - density(x, laws[1]))

    def mass_below(x, law):
        w, m, s = law
        z = (x[:, None] - m) / np.where(s > 0, s, 1.0)
        below = np.where(s > 0, 0.5 * erfc(-z / math.sqrt(2)), z >= 0)
        return below @ w

    _, means, stds = np.concatenate(laws, 1)[..., None]
    edges = np.unique(means + stds * np.linspace(-9, 9, 200))
    sign = sign_of_difference(edges)
    change = sign[:-1] * sign[1:] < 0
    low, high, left = edges[:-1][change], edges[1:][change], sign[:-1][change]
    for _ in range(50):
        middle = (low + high) / 2
        same = sign_of_difference(middle) == left
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    edges = np.unique(np.concatenate([edges, low]))
    apart = mass_below(edges, laws[0]) - mass_below(edges, laws[1])
    return min(1.0, 0.5 * np.sum(np.abs(np.diff(apart, prepend=0.0, append=0.0))))


def from_accuracy(balanced_accuracy) -> np.ndarray:
    """TV as a classifier sees it: ``2 accuracy - 1``, 0 below chance. At most TV in expectation."""
    what = "a share, not a percentage,"
    accuracy = np.asarray(balanced_accuracy, np.float64)
    _checks.level("balanced accuracy", accuracy, what)
    return np.maximum(2 * accuracy - 1, 0.0)


def from_probabilities(c_clean, c_corrupt) -> Estimate:
    """TV from a classifier's outputs on held-out data of one noise level: a lower bound.

    The estimate is P(c > 1/2 | clean) - P(c > 1/2 | corrupt), a tie counting one half, which is
    ``2 balanced accuracy - 1``. The interval is Newcombe's (1998, method 10) for a difference of
    two shares, from the Wilson interval of each; TV itself may lie above it.

    Args:
      c_clean, c_corrupt: P(clean) [N] of clean and of corrupt rows, or [N, K] for K noise draws of
        each row. Rows must be independent (chunks that overlap are not); draws of a row need not.

    Raises:
      ValueError: an empty class, or values that are no probabilities.
    """
    shares, sizes = [], []
    for name, c in (("clean", c_clean), ("corrupt", c_corrupt)):
        c = np.asarray(c, np.float64)
        if c.ndim not in (1, 2) or not c.size:
            raise ValueError(f"c_{name} has shape {c.shape}, expected [N] or [N, draws], N >= 1")
        _checks.level(f"c_{name}", c, "a probability (the sigmoid of a logit)")
        shares.append(np.mean((c > 0.5) + 0.5 * (c == 0.5)))
        sizes.append(len(c))
    (p1, p2), (n1, n2) = shares, sizes
    low1, high1 = wilson_interval(p1, n1)
    low2, high2 = wilson_interval(p2, n2)
    tv = p1 - p2
    low = tv - math.hypot(p1 - low1, high2 - p2)
    high = tv + math.hypot(high1 - p1, p2 - low2)
    return Estimate(*(float(np.clip(v, 0, 1)) for v in (tv, low, high)))


def optimal_probability(x_t, mean_p, covariance_p, mean_q, covariance_q, sigma) -> jax.Array:
    """The exact classifier c(x_sigma, sigma) = p_sigma / (p_sigma + q_sigma) of two Gaussians.

    A classifier trained on even classes converges to it. Works under jit and vmap in x_t, sigma.

    Args:
      x_t: [..., n] noised samples.
      mean_p, mean_q: [n] (concrete); covariance_p, covariance_q: see ``gaussian_tv`` (concrete).
      sigma: noise levels in (0, 1], broadcasting with x_t's leading axes; also 0 when no
        covariance is singular.

    Returns:
      P(clean) [...].
    """
    sigma = jnp.asarray(sigma)[..., None]
    alpha2 = (1 - sigma) * (1 + sigma)
    logs = []
    for mean, covariance in ((mean_p, covariance_p), (mean_q, covariance_q)):
        mean = np.atleast_1d(np.asarray(mean, np.float64))
        values, vectors = _spectral(covariance, mean.size)
        variance = alpha2 * values + sigma**2
        z = (x_t - jnp.sqrt(alpha2) * mean) @ vectors
        logs.append(-0.5 * jnp.sum(z**2 / variance + jnp.log(variance), -1))
    return jax.nn.sigmoid(logs[0] - logs[1])


def spectral_bound(psd_p, psd_q, horizon: int, sigma, *, dims: int = 1, mean_power=0.0):
    """Upper bound on TV of two noised Gaussian processes from their power spectra.

    The real Fourier coefficients are independent Gaussians with variances ``psd`` (a stationary,
    periodic process), and with noise ``v = alpha^2 psd + sigma^2``. With ``r = v_p / v_q``, m^2 the
    power of the difference of the means and multiplicity n_f:

        KL(p_sigma || q_sigma) = 1/2 sum_f n_f dims [r - 1 - log r + alpha^2 m^2 / v_q]

    and ``TV <= sqrt(KL / 2)`` (Pinsker) and ``TV <= sqrt(1 - exp(-KL))`` (Bretagnolle and Huber;
    never above 1). The result is the least of both, for KL either way round. It never grows with
    sigma. Where the spectra are far below s = sigma^2 / alpha^2 a coefficient adds about
    ((psd_p - psd_q) / 2 s)^2 to KL.

    Args:
      psd_p, psd_q: [H // 2 + 1] as in ``spectrum``; 0 at a frequency where both have no power.
      horizon: H of the chunks.
      sigma: noise level(s) in [0, 1].
      dims: number of independent action dimensions with these spectra.
      mean_power: [H // 2 + 1] or scalar, squared difference of the means per real coefficient.

    Raises:
      ValueError: spectra of another length or negative power.
    """
    count = spectrum.multiplicity(horizon) * float(dims)
    spectra = {"psd_p": psd_p, "psd_q": psd_q, "mean_power": mean_power}
    for name, value in spectra.items():
        value = np.asarray(value, np.float64)
        if value.shape not in ((), count.shape) or not np.all(value >= 0):
            raise ValueError(
                f"{name} has shape {value.shape}, expected {count.shape[0]} powers >= 0, one for "
                f"each frequency of horizon {horizon}"
            )
        spectra[name] = np.broadcast_to(value, count.shape)
    alpha2, sigma2 = (v[..., None] for v in _levels(sigma))
    v_p, v_q = (alpha2 * spectra[name] + sigma2 for name in ("psd_p", "psd_q"))
    shift = alpha2 * spectra["mean_power"]
    kl = np.minimum(_kl(v_p, v_q, shift) @ count, _kl(v_q, v_p, shift) @ count)
    return np.minimum(np.sqrt(kl / 2), np.sqrt(-np.expm1(-kl)))


def _kl(first, second, shift):
    """KL of N(0, first) from N(sqrt(shift), second), elementwise; two zero variances are alike."""
    alike = (first <= 0) & (second <= 0)
    point = ((first <= 0) | (second <= 0)) & ~alike
    regular = ~(alike | point)
    excess = np.where(regular, first - second, 0.0) / np.where(regular, second, 1.0)
    gap = np.where(point, np.inf, excess - np.log1p(excess))
    return 0.5 * (gap + _ratio(shift, second))


def power_law_bound(first, second, horizon: int, sigma, *, dims: int = 1) -> np.ndarray:
    """``spectral_bound`` for psd C f^-a: first and second are (exponent a, constant C).

    f = 0 is left out: chunks have no means, or their means follow one law. Only frequencies below
    ``(C / s)^(1/a)``, s = sigma^2 / alpha^2, stand out of the noise.

    Raises:
      ValueError: a constant that is not positive.
    """
    for name, (exponent, constant, *_) in (("first", first), ("second", second)):
        if not constant > 0:
            raise ValueError(f"{name} is (exponent {exponent}, constant {constant}), expected > 0")
    frequency = spectrum.frequencies(horizon)
    psd_p, psd_q = (spectrum.power_law(frequency, *law[:2]) for law in (first, second))
    return spectral_bound(psd_p, psd_q, horizon, sigma, dims=dims)


def coupling_bound(power, sigma) -> np.ndarray:
    """Upper bound on TV of any two noised laws: ``erf(alpha sqrt(power / 8) / sigma)``.

    ``power`` is E||x0 - y0||^2 under any coupling of x0 ~ p0 and y0 ~ q0, such as the power of a
    disturbance that makes corrupt chunks of clean ones: ``sum(multiplicity * psd)`` of it, times D.
    Given (x0, y0) the noised laws have TV ``erf(alpha ||x0 - y0|| / (sqrt(8) sigma))``; TV is
    convex, and erf(sqrt(.)) concave, so averaging gives the bound. Equal to TV for a pure shift.
    """
    power = np.asarray(power, np.float64)
    if np.any(power < 0):
        raise ValueError(f"power is {power}, expected a mean square distance >= 0")
    alpha2, sigma2 = _levels(sigma)
    return erf(np.sqrt(_ratio(alpha2 * power, sigma2) / 8))
