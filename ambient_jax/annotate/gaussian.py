"""The head start of a classifier: the logit that it would have if all chunks were Gaussian.

Noise is Gaussian. If chunks x0 [H D] of p had mean m and covariance C, then x_t would have mean
alpha m and covariance alpha^2 C + sigma^2 I. With the eigenvectors of C, which hold at every level,

    log p(x_t) - log q(x_t)

is two matrix products. A network that adds a residual to this logit need not learn means, spectra
and their dependence on the noise level, only what is not Gaussian.

Means and covariances are those of the training episodes. Few episodes give a covariance that is too
certain of itself, so each is averaged with the mean of both, which counts as many episodes as a
chunk has numbers (H D): the mode of an inverse Wishart prior. A temperature for each pair and band
of the noise level, from the held-out episodes, does the rest (``calibration``).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import schedules
from ambient_jax.annotate import calibration
from ambient_jax.annotate import pairs as pairs_lib
from ambient_jax.data import chunk, device

Array = jax.Array
_CHUNKS = 8192  # that a side is measured on, evenly spread over its steps
_MOST = 20.0  # size that logits do not exceed, for outliers at low noise
_GATHERED = 2**23  # numbers of eigenvectors gathered at a time


class HeadStart(NamedTuple):
    """Gaussians of K pairs, clean and corrupt; d = H D."""

    mean: Array | np.ndarray  # [K, 2, d]
    vectors: Array | np.ndarray  # [K, 2, d, d], in columns
    values: Array | np.ndarray  # [K, 2, d], variances along the vectors
    middles: Array | np.ndarray  # [bands], see ``calibration``
    log_temperature: Array | np.ndarray  # [K, bands]


def measure(
    data: device.DeviceData,
    part: dict[str, Any],
    pairs: pairs_lib.Pairs,
    middles: Any,
    options: Any,
) -> HeadStart:
    """Measures the Gaussians of one member's part, with temperature 1.

    For ``part`` and ``pairs`` see ``pairs``, for ``options`` (history, horizon, length)
    ``training.Options``. All arrays are on the host.
    """
    clean = np.asarray(part["sources"].clean)
    every = np.flatnonzero(clean), np.asarray(part["sources"].weight)[clean]
    x, count = _chunks(data, part, *every, options, len(pairs.mask))
    sides: list[Any] = [None] * len(pairs.mask)
    for source in np.flatnonzero(~clean):
        k = int(pairs.of_source[source])
        own, episodes = _chunks(data, part, np.array([source]), np.ones(1), options)
        mask = np.tile(np.asarray(pairs.mask[k], np.float64), options.length)
        sides[k] = _pair((x * mask, count), (own * mask, episodes))
    mean, vectors, values = (np.stack(v).astype(np.float32) for v in zip(*sides, strict=True))
    flat = np.zeros((len(sides), len(middles)), np.float32)
    return HeadStart(mean, vectors, values, np.asarray(middles), flat)


def _chunks(data, part, sources, weight, options, most=1):
    """Returns chunks [N, H D] in float64, evenly spread over sources of given weights, and the
    number of their episodes; at most 4 times as many for a side that many pairs share."""
    sizes = part["size"][sources]
    count = min(_CHUNKS * min(most, 4), int(sizes.sum()))
    places = pairs_lib.evenly(part["offset"][sources], sizes, weight, count)
    positions = np.asarray(part["order"])[places]
    acted = {n: np.asarray(v) for n, v in data.steps.items() if n in (chunk.ACTION, chunk.STILL)}
    place = positions, data.start[positions], data.end[positions]
    sizes = options.history, options.horizon
    _, action, _ = chunk.gather(acted, *place, *sizes, xp=np, padding="hold")
    x = action[:, : options.length].reshape(count, -1).astype(np.float64)
    return x, len(np.unique(data.start[positions]))


def _pair(clean, corrupt):
    """Returns mean [2, d], vectors [2, d, d] and values [2, d] of (chunks, number of episodes)."""
    covariances = [np.cov(x.T, bias=True).reshape(2 * x.shape[1:]) for x, _ in (clean, corrupt)]
    both, sides = sum(covariances) / 2, []
    for (x, episodes), covariance in zip((clean, corrupt), covariances, strict=True):
        share = episodes / (episodes + len(both))
        values, vectors = np.linalg.eigh(share * covariance + (1 - share) * both)
        sides.append((x.mean(0), vectors, np.maximum(values, 0)))
    return tuple(np.stack(v) for v in zip(*sides, strict=True))


def logit(start: HeadStart, x_t: Array, sigma: Array, pair: Array) -> Array:
    """Returns log p(x_t) - log q(x_t) [B] of each row's pair, softly bounded and by its
    temperature, for x_t [B, H, D] at sigma [B]."""
    start = jax.tree.map(jnp.asarray, start)

    def one(row):
        x_t, sigma, pair = row
        variance = jnp.square(sigma) + jnp.square(schedules.signal(sigma)) * start.values[pair]
        centred = x_t.ravel() - schedules.signal(sigma) * start.mean[pair]
        along = jnp.einsum("sd,sde->se", centred, start.vectors[pair])
        density = -0.5 * (jnp.square(along) / variance + jnp.log(variance)).sum(-1)
        bounded = _MOST * jnp.tanh((density[0] - density[1]) / _MOST)
        x = calibration.log_ratio(sigma)
        return bounded / calibration.temperature(x, start.middles, start.log_temperature[pair])

    size = max(1, _GATHERED // (2 * start.mean.shape[-1] ** 2))
    if len(x_t) <= size:
        return jax.vmap(one)((x_t, sigma, pair))
    return jax.lax.map(one, (x_t, sigma, pair), batch_size=size)
