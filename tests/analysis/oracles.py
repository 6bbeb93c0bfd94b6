"""Exact total variations on the line, and the exact classifier of two Gaussians, to test against.

Laws, levels and notation are those of ``ambient_jax.analysis.divergence``.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf, erfc

from ambient_jax.analysis.divergence import _levels, _spectral


class Mixture(NamedTuple):
    """A Gaussian mixture on the line: K weights that sum to 1, means and standard deviations."""

    weights: np.ndarray
    means: np.ndarray
    stds: np.ndarray


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
