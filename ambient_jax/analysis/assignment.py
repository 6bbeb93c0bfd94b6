"""Shows how assigning sigma_min per data set, bucket or datapoint changes the learned law.

The thought experiment: X = {-1, 0, 1}, clean p0 uniform on {0, 1}, corrupt q0 uniform on {-1, 0}.
n_p points are drawn from p0, n_q from q0. A unit (datapoint, bucket or the whole of D_q) gets

    sigma_min = inf { sigma : mean of c over the unit > 1/2 - tau from there on }

with the exact classifier c(x_t, sigma) = p_sigma / (p_sigma + q_sigma). By symmetry
E[c | x0 = 0] = 1/2 at every level, and E[c | x0 = -1] = 1/2 - g(sigma), where g falls from 1/2 to
0. A unit with a fraction f of -1 has mean 1/2 - f g(sigma): it is admissible at every sigma > 0 if
``f <= 2 tau``, else above the level where ``g = tau / f`` (a single -1: 0.90 at tau = 0.05).

Per datapoint, all zeros of D_q join D_p and none of its -1 does: the share of 0 goes to 1 as n_q
grows. Per data set, or in random buckets large enough that f is near 1/2, no unit is admissible at
low noise, and the model learns p0 there. Buckets ordered by sigma_min drift as datapoints do.

Rejection uses a datapoint at sigma with probability min(1, c / (1 - c)), by one lot u for all
levels: its threshold is u / (1 + u), at most 1/2 - tau. All zeros of D_q join at every level and a
-1 joins at sigma with probability (1/2 - g) / (1/2 + g), rather than all of them from one level on.
So the corrupt data in use have the law min(p_sigma, q_sigma), normalised, which has no 1: at low
noise rejection drifts to 0 exactly as the threshold per datapoint does.

``trained_law`` computes the law of the data admissible as sigma -> 0 in closed form, ``simulate``
draws the data sets, and ``train`` fits a tabular denoiser and samples with it. A sampler chooses
its mode at high noise, where corrupt data are admissible because tau allows a difference: per data
set, the generated law stays within TV(p_sigma, q_sigma) at sigma_min of p0, which goes to 0 with
tau. Per datapoint there is no such bound.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binom

from ambient_jax import _checks, admission, mixing

VALUES = np.array([-1.0, 0.0, 1.0])
ASSIGNMENTS = ("dataset", "datapoint", "bucket", "ordered", "rejection")
_LEVELS = 200  # sigma_min of rejection is rounded up to a multiple of 1 / _LEVELS
LOW = 0.01  # below every positive sigma_min: g is within 4e-7 of 1/2 up to 0.1
_ROUNDING = 1e-9  # tolerance of f <= 2 tau


class Trained(NamedTuple):
    """Outcome of ``train``: probabilities [3] of (-1, 0, 1), and the data they came from."""

    low_noise: np.ndarray  # law of x0 in the training draws at the lowest levels
    generated: np.ndarray  # law of the learned denoiser's samples
    low_noise_draws: int  # number of training draws at the lowest levels
    sources: mixing.Sources
    laws: np.ndarray  # [K, 3], laws of the sources


def clean_probability(x_t, sigma) -> np.ndarray:
    """Computes the exact classifier c(x_t, sigma) of the experiment, sigma in (0, 1]."""
    x_t, sigma = np.asarray(x_t, np.float64), np.asarray(sigma, np.float64)
    alpha = np.sqrt((1 - sigma) * (1 + sigma))
    # Log density ratios of -1 and 1 to 0: small sigma makes the ratios huge.
    minus, plus = ((s * alpha * x_t - alpha**2 / 2) / sigma**2 for s in (-1, 1))
    logit = np.logaddexp(0, plus) - np.logaddexp(0, minus)
    return np.exp(-np.logaddexp(0, -logit))


def expected_probability(x0, sigma) -> np.ndarray:
    """Computes E[c(x_t, sigma) | x0], the mean over all noise; x0 and sigma broadcast."""
    x0, sigma = np.broadcast_arrays(np.asarray(x0, np.float64), np.asarray(sigma, np.float64))
    eps = np.linspace(-9, 9, 1201)
    weight = np.exp(-(eps**2) / 2)
    weight /= weight.sum()
    safe = np.maximum(sigma, 1e-6)[..., None]
    x_t = np.sqrt((1 - safe) * (1 + safe)) * x0[..., None] + safe * eps
    return np.where(sigma > 0, clean_probability(x_t, safe) @ weight, (1 + x0) / 2)


@functools.lru_cache(maxsize=1)
def _curve():
    levels = np.linspace(0, 1, 2001)
    return levels, expected_probability(-1.0, levels)


def sigma_min_of(fraction, tau=0.05) -> np.ndarray:
    """Returns sigma_min of a unit of corrupt data with this fraction of -1 (the others are 0); tau
    is a scalar or one for each unit."""
    fraction = np.asarray(fraction, np.float64)
    levels, c = _curve()
    gap = 0.5 - c
    target = tau / np.where(fraction > 0, fraction, 1.0)
    # gap decreases: interpolate its inverse over increasing gaps.
    crossing = np.interp(target, gap[::-1], levels[::-1])
    return np.where(fraction <= 2 * tau + _ROUNDING, 0.0, crossing)


def _check(assignment, n_p, n_q, bucket, tau):
    _checks.one_of("assignment", assignment, ASSIGNMENTS)
    if min(n_p, n_q, bucket) < 1 or not 0 < tau < 0.5:
        raise ValueError(
            f"n_p {n_p}, n_q {n_q}, bucket {bucket}, tau {tau}: expected sizes >= 1 and tau in "
            "(0, 0.5)"
        )


def _admitted(k, size, tau):
    """Whether a unit of this size with k values of -1 is admissible at every level."""
    return k / size <= 2 * tau + _ROUNDING


def _unit(size, tau):
    """Returns (P(admissible at low noise), E[number of -1 | admissible]) of a random unit."""
    k = np.arange(size + 1)
    pmf = np.where(_admitted(k, size, tau), binom.pmf(k, size, 0.5), 0)
    total = pmf.sum()
    return total, (pmf @ k / total if total > 0 else 0.0)


def trained_law(
    assignment: str, n_p: int, n_q: int, *, bucket: int = 100, tau: float = 0.05
) -> np.ndarray:
    """Computes the exact law of the data admissible as sigma -> 0, expected over both data sets.

    * bucket: J ~ Binomial(B, pi) of B buckets join, pi = P(Binomial(bucket, 1/2) <= 2 tau bucket),
      with kappa = E[Binomial | it joins] values of -1 each; the last bucket may be smaller;
    * dataset: one bucket;
    * ordered: the whole buckets of K ~ Binomial(n_q, 1/2) zeros join in order of sigma_min;
    * datapoint: buckets of one, so that the share of 0 is ``1 - n_p / 2 E[1 / (n_p + K)]``;
    * rejection: the same, as a -1 joins with a probability that vanishes with sigma.

    Returns the expected shares [3] of (-1, 0, 1) from n_p clean and n_q corrupt points. Buckets
    have the size ``bucket``; tau is the tolerance of sigma_min, in (0, 1/2).
    """
    _check(assignment, n_p, n_q, bucket, tau)
    if assignment in ("datapoint", "ordered", "rejection"):
        size = bucket if assignment == "ordered" else 1
        zeros = np.arange(n_q + 1)
        pmf = binom.pmf(zeros, n_q, 0.5)
        minus, joining = _ordered(zeros, n_q, size, tau)
    else:
        size = n_q if assignment == "dataset" else min(bucket, n_q)
        whole, remainder = divmod(n_q, size)
        chance, kappa = _unit(size, tau)
        last, last_kappa = _unit(remainder, tau) if remainder else (0.0, 0.0)
        j = np.arange(whole + 1)[:, None]
        extra = np.array([0, 1])
        pmf = binom.pmf(j, whole, chance) * np.array([1 - last, last])
        joining = j * size + extra * remainder
        minus = j * kappa + extra * last_kappa
    total = n_p + joining
    shares = [minus / total, (n_p / 2 + joining - minus) / total, n_p / 2 / total]
    return np.array([np.sum(pmf * share) for share in shares])


def _ordered(zeros, n_q, size, tau):
    """Returns how many (-1, all) join if the 0s come first and units have ``size`` points."""
    full = zeros // size * size
    end = np.minimum(full + size, n_q)
    width = np.maximum(end - full, 1)
    minus = end - zeros
    joins = (zeros > full) & _admitted(minus, width, tau)
    return np.where(joins, minus, 0), np.where(joins, end, full)


def draw_units(
    rng: np.random.Generator, assignment: str, n_q: int, *, bucket: int = 100, tau: float = 0.05
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws D_q in units; returns their numbers of -1 and of 0 and their sigma_min, [U] each."""
    _check(assignment, 1, n_q, bucket, tau)
    minus = rng.random(n_q) < 0.5
    if assignment == "ordered":
        minus = minus[np.argsort(sigma_min_of(minus.astype(float), tau), kind="stable")]
    elif assignment == "bucket":
        minus = rng.permutation(minus)
    size = {"dataset": n_q, "datapoint": 1, "rejection": 1}.get(assignment, min(bucket, n_q))
    starts = np.arange(0, n_q, size)
    count = np.add.reduceat(minus.astype(np.int64), starts)
    sizes = np.diff(np.append(starts, n_q))
    if assignment != "rejection":
        return count, sizes - count, sigma_min_of(count / sizes, tau)
    lot = 1 - rng.random(n_q)
    sigma_min = sigma_min_of(count.astype(float), np.maximum(tau, (1 - lot) / (1 + lot) / 2))
    return count, sizes - count, np.ceil(sigma_min * _LEVELS) / _LEVELS


def simulate(
    rng: np.random.Generator, assignment: str, n_p: int, n_q: int, *, repeats: int = 100, **units
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates ``trained_law`` from ``repeats`` drawn pairs of data sets.

    ``units`` are the options ``bucket`` and ``tau`` of ``draw_units``. Returns the mean shares [3]
    of (-1, 0, 1) and their standard errors.
    """
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}, expected 2 or more, for a standard error")
    shares = np.empty((repeats, 3))
    for repeat in range(repeats):
        ones = rng.binomial(n_p, 0.5)
        minus, zeros, sigma_min = draw_units(rng, assignment, n_q, **units)
        keep = np.asarray(admission.admissible(LOW, sigma_min, 0.0))
        counts = np.array([minus[keep].sum(), n_p - ones + zeros[keep].sum(), ones])
        shares[repeat] = counts / counts.sum()
    return shares.mean(0), shares.std(0, ddof=1) / math.sqrt(repeats)


def unit_sources(
    rng: np.random.Generator, assignment: str, n_p: int, n_q: int, **units
) -> tuple[mixing.Sources, np.ndarray]:
    """Draws data sets; returns D_p and a source per sigma_min in D_q, and their laws [K, 3]."""
    ones = rng.binomial(n_p, 0.5)
    minus, zeros, sigma_min = draw_units(rng, assignment, n_q, **units)
    bounds, group = np.unique(sigma_min, return_inverse=True)
    counts = np.zeros((1 + len(bounds), 3))
    counts[0] = 0, n_p - ones, ones
    np.add.at(counts[:, 0], 1 + group, minus)
    np.add.at(counts[:, 1], 1 + group, zeros)
    weight = counts.sum(1)
    clean = np.arange(len(weight)) == 0
    # Corrupt sources have sigma_max 0 even with sigma_min 0: the high band admits them.
    sources = mixing.make_sources(weight, clean, np.append(0.0, bounds), np.where(clean, 1.0, 0.0))
    return sources, counts / weight[:, None]


_ambient = jax.jit(
    jax.vmap(functools.partial(mixing.source_probabilities, mixing.Ambient()), (0, None))
)


def _probabilities(levels, sources):
    """Returns P(source | sigma) of the ambient law, [L, K]."""
    return np.asarray(_ambient(jnp.asarray(levels, jnp.float32), sources), np.float64)


def _levels(count):
    """Returns noise levels of table and sampler, equidistant in the angle, from 0.9999 to LOW."""
    return np.sin(np.linspace(math.asin(0.9999), math.asin(LOW), count))


def _sample(denoise, levels, particles):
    """Samples by DDIM steps from the quantiles of pure noise; returns shares of (-1, 0, 1)."""
    u = (np.arange(particles) + 0.5) / particles
    x = np.asarray(jax.scipy.special.ndtri(jnp.asarray(u)), np.float64)
    alpha = np.sqrt((1 - levels) * (1 + levels))
    for i in range(len(levels) - 1):
        x0_hat = denoise(x, i)
        eps_hat = (x - alpha[i] * x0_hat) / levels[i]
        x = alpha[i + 1] * x0_hat + levels[i + 1] * eps_hat
    nearest = np.abs(denoise(x, len(levels) - 1)[:, None] - VALUES).argmin(1)
    return np.bincount(nearest, minlength=3) / particles


def train(
    rng: np.random.Generator,
    assignment: str,
    n_p: int,
    n_q: int,
    *,
    draws: int = 2_000_000,
    levels: int = 100,
    bins: int = 160,
    **units,
) -> Trained:
    """Fits a table x0_hat[level, bin of x_t] to noise-first draws, and samples with it.

    It draws a level, then a source by ``mixing.source_probabilities`` at it, then a point of that
    source and noise. The mean of x0 in a cell minimises the denoising loss over all tables.
    """
    sources, laws = unit_sources(rng, assignment, n_p, n_q, **units)
    grid = _levels(levels)
    pick = _probabilities(grid, sources)
    centres = (np.arange(bins) + 0.5) / bins * 8 - 4
    x0_hat = np.zeros((levels, bins))
    low = np.zeros(3, np.int64)
    for i, sigma in enumerate(grid):
        source = rng.multinomial(draws // levels, pick[i] / pick[i].sum())
        counts = sum(rng.multinomial(n, law) for n, law in zip(source, laws, strict=True))
        x0 = np.repeat(VALUES, counts)
        x_t = math.sqrt(1 - sigma**2) * x0 + sigma * rng.standard_normal(x0.size)
        cell = np.clip(((x_t + 4) / 8 * bins).astype(int), 0, bins - 1)
        hits = np.bincount(cell, minlength=bins)
        sums = np.bincount(cell, weights=x0, minlength=bins)
        hit = hits > 0  # cells without a draw are interpolated
        x0_hat[i] = np.interp(centres, centres[hit], sums[hit] / hits[hit])
        if sigma < 0.05:
            low += counts
    generated = _sample(lambda x, i: np.interp(x, centres, x0_hat[i]), grid, 2000)
    return Trained(low / low.sum(), generated, int(low.sum()), sources, laws)
