"""Fits temperatures for a classifier's logits, one for each band of the noise level.

Dividing logits by a temperature calibrates them (Guo et al. 2017). Each band gets the one with the
least held-out cross entropy; between middles of bands its log is linear in log(sigma / alpha).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array
_GRID = (0.125, 64.0, 91)  # least and largest temperature, and how many are tried


class Calibrated(NamedTuple):
    """Held-out rows after calibration."""

    loss: Array  # mean cross entropy in nats
    log_temperature: Array  # [pairs, bands]
    probability: Array  # [M] P(clean)
    clean: Array  # [M]


def fit(
    logits: Array, clean: Array, x: Array, middles: Array, pair: Array | int = 0, pairs: int = 1
) -> Calibrated:
    """Calibrates logits [M] on their labels; see ``temperatures`` for the arguments."""
    log_temperature = jnp.log(temperatures(logits, clean, x, middles, pair, pairs))
    scaled = logits / temperature(x, middles, log_temperature[jnp.broadcast_to(pair, x.shape)])
    loss = cross_entropy(scaled, clean).mean()
    return Calibrated(loss, log_temperature, jax.nn.sigmoid(scaled), clean)


def temperatures(
    logits: Array, clean: Array, x: Array, middles: Array, pair: Array | int = 0, pairs: int = 1
) -> Array:
    """Returns the temperature in [1/8, 64] with the least cross entropy, [pairs, bands].

    Args:
      logits, clean: [M], of held-out rows.
      x: [M] log(sigma / alpha) of each row, which belongs to the band of the nearest middle.
      middles: [bands] increasing.
      pair, pairs: classifier of each row, [M] or scalar in 0..pairs-1, and their number.
    """
    grid = jnp.geomspace(*_GRID)
    cell = jnp.argmin(jnp.abs(x[:, None] - middles), axis=1) + len(middles) * pair
    total = lambda loss: jax.ops.segment_sum(loss, cell, pairs * len(middles))  # noqa: E731
    losses = jax.lax.map(lambda t: total(cross_entropy(logits / t, clean)), grid)
    return grid[jnp.argmin(losses, axis=0)].reshape(pairs, len(middles))


def temperature(x: Array, middles: Array, log_temperature: Array) -> Array:
    """Interpolates the temperature at x [...] from log temperatures [bands] or [..., bands]."""
    interpolate = jnp.vectorize(jnp.interp, signature="(),(b),(b)->()")
    return jnp.exp(interpolate(x, middles, log_temperature))


def log_ratio(sigma: Array) -> Array:
    """log(sigma / alpha)."""
    return jnp.log(sigma) - 0.5 * jnp.log((1 - sigma) * (1 + sigma))


def cross_entropy(logits: Array, clean: Array) -> Array:
    """Cross entropy of each row, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits, clean.astype(logits.dtype))


def centred(corrupt: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Returns P(clean) of corrupt chunks [M, L], with odds such that even classes have mean 1/2.

    The mean of P(clean) over both classes is 1/2 at every level, whatever the laws. Where it is not
    for the M and N judged chunks (``clean`` is P(clean) [N, L]), the classifier has an offset, or
    the chunks happen to look alike; one factor of the odds per level, at most e^3, mends both.
    The mean over corrupt chunks then has the information of the clean ones too.
    """
    corrupt, clean = (
        np.clip(np.asarray(c, np.float64), 1e-12, 1 - 1e-12) for c in (corrupt, clean)
    )
    low, high = np.full(corrupt.shape[1], np.exp(-3.0)), np.full(corrupt.shape[1], np.exp(3.0))
    shifted = lambda c, odds: c * odds / (1 + c * (odds - 1))  # noqa: E731
    for _ in range(40):
        middle = np.sqrt(low * high)
        above = shifted(corrupt, middle).mean(0) + shifted(clean, middle).mean(0) > 1
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return shifted(corrupt, np.sqrt(low * high))
