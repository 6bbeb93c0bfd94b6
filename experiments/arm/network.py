"""The network of the table: denoises whole plans as deviations from a straight motion."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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
        encoder = ObservationEncoder(self.frequencies, self.width, self.depth, name="encoder")
        encoded = encoder(observation)
        ends = [observation[name][:, -1] for name in ("start", "goal")]
        return jnp.concatenate([encoded, *ends], -1)


def waves(steps: int) -> np.ndarray:
    """Returns an orthonormal basis [steps, steps] of deviations at steps 1 to ``steps``: sines that
    vanish at the start and at the last step, from slow to fast, and the last step."""
    inner = np.arange(1, steps)
    basis = np.eye(steps)
    basis[:-1, :-1] = np.sqrt(2 / steps) * np.sin(np.pi * np.outer(inner, inner) / steps)
    return basis


class PlanDenoiser(nn.Module):
    """A backbone of residual dense blocks for plans, which predicts v.

    A plan is a motion at even pace from start to goal, linear in both, and a deviation r. As x0 = m
    + r and v = alpha eps - sigma x0, the deviation's v is the plan's plus sigma m: the network need
    not learn to copy start and goal. It sees r as coefficients of ``waves``. Each has a trained
    size s, with which its best linear estimate is known: the blocks predict what is left, as in EDM
    (Karras et al. 2022, https://arxiv.org/abs/2206.00364), for every wave by itself. Dense layers
    alone would have to pass on the noise of 224 numbers.

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
        plan, basis = x_t.reshape(batch, steps, JOINTS), jnp.asarray(waves(steps), jnp.float32)
        level, sigma = NoiseEmbedding(64, name="noise_embedding")(sigma), sigma[:, None, None]
        alpha = jnp.sqrt((1 - sigma) * (1 + sigma))
        start, goal = condition[:, -2 * JOINTS : -JOINTS], condition[:, -JOINTS:]
        even = jnp.broadcast_to(jnp.arange(1, steps + 1)[:, None] / steps, (steps, JOINTS))
        # Trained: start, goal and plan have maps to unit size of their own.
        share = [self.param(n, lambda _, x: x, x) for n, x in (("a", 1 - even), ("b", even))]
        offset = self.param("c", nn.initializers.zeros, (steps, JOINTS))
        mean = share[0] * start[:, None] + share[1] * goal[:, None] + offset
        first = np.append(0.5 / np.arange(1, steps) ** 1.5, 0.01)[:, None] * np.ones(JOINTS)
        # An eighth of the logarithm: the optimizer's step, alike for all, then changes it enough.
        size = jnp.exp(8 * self.param("log_size", lambda _, x: x, jnp.log(jnp.float32(first)) / 8))

        wave = jnp.einsum("ts,btj->bsj", basis, plan - alpha * mean)
        power = (alpha * size) ** 2 + sigma**2
        known = nn.Dense(self.width, name="condition")(jnp.concatenate([level, condition], -1))
        h = nn.Dense(self.width, name="wave")((wave / jnp.sqrt(power)).reshape(batch, -1))
        h = h + nn.Dense(self.width, name="known")(mish(known))
        for i in range(self.blocks):
            inner = nn.Dense(self.width, name=f"first_{i}")(mish(layer_norm(h)))
            h = h + nn.Dense(self.width, name=f"second_{i}")(mish(inner))
        left = nn.Dense(steps * JOINTS, name="out")(mish(layer_norm(h))).reshape(wave.shape)
        # x0_hat of a wave is alpha s^2 / power times the wave, plus s sigma / sqrt(power) times
        # what is left; here as v = (alpha x_t - x0_hat) / sigma.
        v = alpha * sigma * (1 - size**2) / power * wave - size / jnp.sqrt(power) * left
        v = jnp.einsum("ts,bsj->btj", basis, v) - sigma * mean
        return v.reshape(x_t.shape)
