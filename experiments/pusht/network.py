"""Networks of the table: a backbone for chunks of 32 numbers; encoders of motion and of images."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambient_jax.models.layers import NoiseEmbedding, layer_norm, mish
from experiments.pusht.env import SMALL


class Residual(nn.Module):
    """A backbone of residual dense blocks, a quarter of the U-Net's time on a CPU.

    Attributes:
        width: of the blocks and of the noise level's embedding.
        blocks: their number.
    """

    width: int = 256
    blocks: int = 3

    @nn.compact
    def __call__(self, x_t: jax.Array, sigma: jax.Array, condition: jax.Array) -> jax.Array:
        """Predicts [B, H, D] from x_t [B, H, D] at noise level sigma [B] and a condition [B, C]."""
        batch = x_t.shape[0]
        level = NoiseEmbedding(64, name="noise_embedding")(sigma)
        known = mish(jnp.concatenate([level, condition], -1))
        h = nn.Dense(self.width, name="chunk")(x_t.reshape(batch, -1))
        h = h + nn.Dense(self.width, name="known")(known)
        for i in range(self.blocks):
            inner = nn.Dense(self.width, name=f"first_{i}")(mish(layer_norm(h)))
            h = h + nn.Dense(self.width, name=f"second_{i}")(mish(inner))
        return nn.Dense(x_t[0].size, name="out")(mish(layer_norm(h))).reshape(x_t.shape)


class MotionEncoder(nn.Module):
    """Encodes the newest observation, its sines and cosines, and how the history led to it.

    The pusher follows its target late, so where it goes next depends on its velocity: differences
    of a few hundredths in normalised units, which dense layers alone learn slowly.

    Attributes:
        frequencies: octaves of sines and cosines.
        gain: factor of the differences.
        width, depth: of the hidden layers.
    """

    frequencies: int = 2
    gain: float = 20.0
    width: int = 256
    depth: int = 2

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes histories {name: [B, T, d]} to the condition [B, C]."""
        history = jnp.concatenate([observation[name] for name in sorted(observation)], -1)
        batch, newest = history.shape[0], history[:, -1]
        moved = self.gain * jnp.diff(history, axis=1).reshape(batch, -1)
        angles = [jnp.pi * 2.0**k * newest for k in range(self.frequencies)]
        waves = [wave(angle) for angle in angles for wave in (jnp.sin, jnp.cos)]
        return _hidden(jnp.concatenate([newest, moved, *waves], -1), self.width, self.depth)


def _hidden(x, width, depth):
    for i in range(depth):
        x = mish(nn.Dense(width, name=f"hidden_{i}")(x))
    return nn.Dense(width, name="out")(x)


class ImageEncoder(nn.Module):
    """Encodes a history of small images by strided convolutions, and all else by dense layers.

    Attributes:
        widths: channels after each convolution, which halves height and width.
        width, depth: of the hidden layers.
    """

    widths: tuple[int, ...] = (16, 32, 32)
    width: int = 256
    depth: int = 2

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes "small" [B, T, 24 * 24 * 3] in [-1, 1] and other histories [B, T, d], [B, C]."""
        small = observation["small"]
        batch, history = small.shape[:2]
        x = small.reshape(batch * history, SMALL, SMALL, 3)
        for i, channels in enumerate(self.widths):
            x = mish(nn.Conv(channels, (3, 3), strides=2, name=f"conv_{i}")(x))
        rest = [v.reshape(batch, -1) for n, v in sorted(observation.items()) if n != "small"]
        return _hidden(jnp.concatenate([x.reshape(batch, -1), *rest], -1), self.width, self.depth)
