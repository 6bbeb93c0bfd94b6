"""Total variation (TV) of two laws at noise level sigma: exact, bounded and estimated.

``x_t = sqrt(1 - sigma^2) x0 + sigma eps`` is variance preserving; p_sigma and q_sigma are the laws
of x_t for x0 ~ p0 (clean) and x0 ~ q0 (corrupt), and ``TV = 1/2 integral |p_sigma - q_sigma|``. A
classifier with even classes has a balanced accuracy of at most (1 + TV) / 2. TV never grows with
sigma.

The functions use NumPy in float64 on the host. ``sigma`` may be an array in [0, 1]; results have
its shape, and levels outside raise ValueError.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import erf

from ambient_jax import _checks
from ambient_jax.analysis import spectrum
from ambient_jax.estimates import wilson_interval


class Estimate(NamedTuple):
    """A classifier's estimate of TV with its 95% interval; all three in [0, 1]."""

    tv: float
    low: float
    high: float


def _levels(sigma):
    """Checks levels; returns (alpha^2, sigma^2), without cancellation near sigma = 1."""
    sigma = _checks.level("sigma", np.asarray(sigma, np.float64))
    return (1 - sigma) * (1 + sigma), sigma**2


def _ratio(numerator, denominator):
    """Returns numerator / denominator with 0 / 0 = 0 and x / 0 = inf."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, np.where(numerator > 0, np.inf, 0.0))


def gaussian_tv(mean_difference, covariance, sigma) -> np.ndarray:
    """Returns the exact TV of two noised Gaussians with the same covariance: ``2 Phi(d / 2) - 1``.

    d is their Mahalanobis distance: ``d^2 = alpha^2 m' (alpha^2 S + sigma^2 I)^-1 m``. The
    difference m of the means of x0 is [n] (or any shape, flattened). The covariance S is [n, n],
    [n] for a diagonal, or a scalar; it may be singular.

    Raises:
      ValueError: the shapes disagree, or the matrix is not a covariance.
    """
    mean = np.ravel(np.asarray(mean_difference, np.float64))
    values, vectors = _spectral(covariance, mean.size)
    power = (vectors.T @ mean) ** 2
    # Rounding must not separate the means in a direction without variance.
    power = np.where(power <= 1e-22 * power.sum(), 0.0, power)
    alpha2, sigma2 = (v[..., None] for v in _levels(sigma))
    squared = np.sum(_ratio(alpha2 * power, alpha2 * values + sigma2), -1)
    return erf(np.sqrt(squared / 8))


def _spectral(covariance, n):
    """Returns eigenvalues [n] and eigenvectors [n, n] of a scalar, diagonal or full covariance."""
    covariance = np.asarray(covariance, np.float64)
    if covariance.shape in ((), (n,)):
        values, vectors = np.broadcast_to(covariance, (n,)), np.eye(n)
    elif covariance.shape == (n, n) and np.allclose(covariance, covariance.T):
        values, vectors = np.linalg.eigh(covariance)
        values = np.where(np.abs(values) <= 1e-12 * max(values[-1], 0.0), 0.0, values)
    else:
        raise ValueError(
            f"covariance has shape {covariance.shape}, expected a scalar, ({n},) or a symmetric "
            f"({n}, {n}) for a mean of {n} numbers"
        )
    if not np.all(values >= 0):
        raise ValueError(f"covariance has the eigenvalue {values.min():.4g}, expected all >= 0")
    return values, vectors


def from_probabilities(c_clean, c_corrupt) -> Estimate:
    """Estimates the TV that a classifier reaches at one noise level: a lower bound on TV.

    The estimate is P(c > 1/2 | clean) - P(c > 1/2 | corrupt) on held-out data; a tie counts one
    half. Its interval is Newcombe's (1998, method 10) from the Wilson interval of each share; TV
    may lie above it.

    Args:
      c_clean, c_corrupt: P(clean) [N] of clean and of corrupt rows, or [N, K] for K noise draws of
        each row. Rows must be independent (overlapping chunks are not); draws of a row need not be.

    Raises:
      ValueError: a class is empty, or values are not probabilities.
    """
    shares, intervals = [], []
    for name, c in (("clean", c_clean), ("corrupt", c_corrupt)):
        c = np.asarray(c, np.float64)
        if c.ndim not in (1, 2) or not c.size:
            raise ValueError(f"c_{name} has shape {c.shape}, expected [N] or [N, draws], N >= 1")
        _checks.level(f"c_{name}", c, "a probability (the sigmoid of a logit)")
        shares.append(np.mean((c > 0.5) + 0.5 * (c == 0.5)))
        intervals.append(wilson_interval(shares[-1], len(c)))
    (p1, p2), ((low1, high1), (low2, high2)) = shares, intervals
    tv = p1 - p2
    low = tv - math.hypot(p1 - low1, high2 - p2)
    high = tv + math.hypot(high1 - p1, p2 - low2)
    return Estimate(*(float(np.clip(v, 0, 1)) for v in (tv, low, high)))


def spectral_bound(psd_p, psd_q, horizon: int, sigma, *, dims: int = 1, mean_power=0.0):
    """Bounds TV of two noised Gaussian processes from above, from their power spectra.

    The real Fourier coefficients are independent Gaussians with variances ``psd`` (a stationary,
    periodic process), and with noise ``v = alpha^2 psd + sigma^2``. With ``r = v_p / v_q``, m^2 the
    power of the difference of the means and multiplicity n_f:

        KL(p_sigma || q_sigma) = 1/2 sum_f n_f dims [r - 1 - log r + alpha^2 m^2 / v_q]

    The result is the least of ``sqrt(KL / 2)`` (Pinsker) and ``sqrt(1 - exp(-KL))`` (Bretagnolle
    and Huber), over both directions of KL. It never grows with sigma.

    Args:
      psd_p, psd_q: [H // 2 + 1] as in ``spectrum``; 0 at a frequency where both have no power.
      horizon, dims: steps of a chunk and its number of independent dimensions.
      sigma: noise level(s) in [0, 1].
      mean_power: [H // 2 + 1] or scalar, squared difference of the means per real coefficient.

    Raises:
      ValueError: a spectrum has another length or negative power.
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
    """Returns KL of N(0, first) from N(sqrt(shift), second); equal if both variances are 0."""
    alike = (first <= 0) & (second <= 0)
    point = ((first <= 0) | (second <= 0)) & ~alike
    regular = ~(alike | point)
    excess = np.where(regular, first - second, 0.0) / np.where(regular, second, 1.0)
    gap = np.where(point, np.inf, excess - np.log1p(excess))
    return 0.5 * (gap + _ratio(shift, second))


def power_law_bound(first, second, horizon: int, sigma, *, dims: int = 1) -> np.ndarray:
    """Calls ``spectral_bound`` with psd C f^-a: first and second are (exponent a, constant C).

    f = 0 is excluded: chunks have no means, or their means follow one law.

    Raises:
      ValueError: a constant is not positive.
    """
    for name, (exponent, constant, *_) in (("first", first), ("second", second)):
        if not constant > 0:
            raise ValueError(f"{name} is (exponent {exponent}, constant {constant}), expected > 0")
    frequency = spectrum.frequencies(horizon)
    psd_p, psd_q = (spectrum.power_law(frequency, *law[:2]) for law in (first, second))
    return spectral_bound(psd_p, psd_q, horizon, sigma, dims=dims)


def coupling_bound(power, sigma) -> np.ndarray:
    """Bounds TV of any two noised laws from above: ``erf(alpha sqrt(power / 8) / sigma)``.
    ``power`` is E||x0 - y0||^2 under any coupling of x0 ~ p0 and y0 ~ q0, such as the power of a
    disturbance of clean chunks. Given (x0, y0) the expression is the exact TV; TV is convex and
    erf(sqrt(.)) concave, so averaging gives the bound. It equals TV for a pure shift."""
    power = np.asarray(power, np.float64)
    if np.any(power < 0):
        raise ValueError(f"power is {power}, expected a mean square distance >= 0")
    alpha2, sigma2 = _levels(sigma)
    return erf(np.sqrt(_ratio(alpha2 * power, sigma2) / 8))
