"""Temperatures of a classifier's logits, one for each band of the noise level.

Logits divided by a temperature are honest about how much is known (Guo et al. 2017). How much a
noise classifier knows hangs on the level, so the temperature does: linear in log(sigma / alpha)
between the middles of bands, each of which has the temperature of least held-out cross entropy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

Array = jax.Array
_GRID = (0.125, 64.0, 91)  # least and largest temperature, and how many are tried


class Calibrated(NamedTuple):
    """Held-out rows after calibration.

    Attributes:
      loss: mean cross entropy in nats.
      log_temperature: [bands].
      probability: [M] P(clean).
      clean: [M].
    """

    loss: Array
    log_temperature: Array
    probability: Array
    clean: Array


def fit(logits: Array, clean: Array, x: Array, middles: Array) -> Calibrated:
    """Calibrates logits [M] at x = log(sigma / alpha) [M] on their labels; middles as below."""
    log_temperature = jnp.log(temperatures(logits, clean, x, middles))
    scaled = logits / temperature(x, middles, log_temperature)
    loss = cross_entropy(scaled, clean).mean()
    return Calibrated(loss, log_temperature, jax.nn.sigmoid(scaled), clean)


def temperatures(logits: Array, clean: Array, x: Array, middles: Array) -> Array:
    """The temperature in [1/8, 64] of each band that has the least cross entropy, [bands].

    Args:
      logits, clean: [M], of held-out rows.
      x: [M] log(sigma / alpha) of each row, which belongs to the band of the nearest middle.
      middles: [bands] increasing.
    """
    grid = jnp.geomspace(*_GRID)
    band = jnp.argmin(jnp.abs(x[:, None] - middles), axis=1)
    own = jax.nn.one_hot(band, len(middles))
    losses = jax.lax.map(lambda t: cross_entropy(logits / t, clean) @ own, grid)
    return grid[jnp.argmin(losses, axis=0)]


def temperature(x: Array, middles: Array, log_temperature: Array) -> Array:
    """The temperature at x, of x's shape."""
    return jnp.exp(jnp.interp(x, middles, log_temperature))


def log_ratio(sigma: Array) -> Array:
    """log(sigma / alpha)."""
    return jnp.log(sigma) - 0.5 * jnp.log((1 - sigma) * (1 + sigma))


def cross_entropy(logits: Array, clean: Array) -> Array:
    """Of each row, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits, clean.astype(logits.dtype))
