"""The network of the table: denoises whole plans as deviations from a straight motion."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambient_jax.models.layers import NoiseEmbedding, layer_norm, mish
from ambient_jax.models.observation import ObservationEncoder
from experiments.arm.scene import JOINTS


class Encoder(nn.Module):
    """Encodes the observation, and hands start and goal on as they are.

    Attributes:
        frequencies, width, depth: of ``ObservationEncoder``.
    """

    frequencies: int = 2
    width: int = 256
    depth: int = 2

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes histories {name: [B, 1, d]} to the condition [B, C], start and goal last."""
        fields = dict(frequencies=self.frequencies, width=self.width, depth=self.depth)
        encoded = ObservationEncoder(**fields, name="encoder")(observation)
        ends = [observation[name][:, -1] for name in ("start", "goal")]
        return jnp.concatenate([encoded, *ends], -1)


class PlanDenoiser(nn.Module):
    """A backbone of residual dense blocks for plans, which predicts v.

    A plan is a motion at even pace from start to goal, linear in both, and a deviation r. As x0 = m
    + r and v = alpha eps - sigma x0, the deviation's v is the plan's plus sigma m: the network sees
    the noised deviation and need not learn to copy start and goal.

    Attributes:
        width: of the blocks.
        blocks: their number.
    """

    width: int = 384
    blocks: int = 3

    @nn.compact
    def __call__(self, x_t: jax.Array, sigma: jax.Array, condition: jax.Array) -> jax.Array:
        """Predicts [B, 1, D] from plans x_t [B, 1, D] at noise level sigma [B], in normalised
        units, and the condition [B, C] of ``Encoder``."""
        batch, steps = x_t.shape[0], x_t[0].size // JOINTS
        start, goal = condition[:, -2 * JOINTS : -JOINTS], condition[:, -JOINTS:]
        even = jnp.broadcast_to(jnp.arange(1, steps + 1)[:, None] / steps, (steps, JOINTS))
        # Trained: start, goal and plan have maps to unit size of their own.
        share = [self.param(n, lambda _, x: x, x) for n, x in (("a", 1 - even), ("b", even))]
        offset = self.param("c", nn.initializers.zeros, (steps, JOINTS))
        mean = share[0] * start[:, None] + share[1] * goal[:, None] + offset
        mean, sigma_ = mean.reshape(batch, -1), sigma[:, None]
        deviation = x_t.reshape(batch, -1) - jnp.sqrt((1 - sigma_) * (1 + sigma_)) * mean
        level = NoiseEmbedding(64, name="noise_embedding")(sigma)
        known = mish(
            nn.Dense(self.width, name="condition")(jnp.concatenate([level, condition], -1))
        )
        h = nn.Dense(self.width, name="deviation")(deviation)
        h = h + nn.Dense(self.width, name="known")(known)
        for i in range(self.blocks):
            inner = nn.Dense(self.width, name=f"first_{i}")(mish(layer_norm(h)))
            h = h + nn.Dense(self.width, name=f"second_{i}")(mish(inner))
        out = nn.Dense(deviation.shape[1], name="out")(mish(layer_norm(h)))
        return (out - sigma_ * mean).reshape(x_t.shape)
