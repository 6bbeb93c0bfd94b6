"""A small denoiser of chunks that sees no observation: how actions move, not when."""

import flax.linen as nn
import jax
import jax.numpy as jnp

_ORDERS = 3  # of differences along the chunk
_NOISE = (1.0, 2.0, 6.0)  # variance of a difference of white noise
_SMOOTH = (1.0, 0.03, 0.004)  # rough variance of a difference of smooth chunks


class Blind(nn.Module):
    """Encodes any observation as one zero, so that the policy is unconditional."""

    @nn.compact
    def __call__(self, observation):
        """Returns [B, 1] for {name: [B, T, d]}."""
        return jnp.zeros((len(next(iter(observation.values()))), 1))


class Differences(nn.Module):
    """Two dense layers over differences of order 0 to 2, each at about unit size for the level.

    So jitter far below the range of the motion is as large an input as the motion.
    """

    width: int = 128

    @nn.compact
    def __call__(self, x_t: jax.Array, sigma: jax.Array, condition: jax.Array) -> jax.Array:
        """Predicts [B, H, D] from x_t [B, H, D] and sigma [B]; condition [B, C] is an input too."""
        variance, columns = sigma[:, None, None] ** 2, []
        x = x_t
        for order in range(_ORDERS):
            size = (1 - variance) * _SMOOTH[order] + variance * _NOISE[order]
            columns.append((x / jnp.sqrt(size)).reshape(len(x_t), -1))
            x = jnp.diff(x, axis=1)
        ratio = jnp.log(sigma / jnp.sqrt(jnp.maximum(1 - sigma**2, 1e-6)))[:, None]
        angles = ratio * jnp.array([0.25, 0.5, 1.0])
        seen = [*columns, jnp.sin(angles), jnp.cos(angles), condition]
        hidden = nn.silu(nn.Dense(self.width)(jnp.concatenate(seen, -1)))
        gate = nn.Dense(self.width)(jnp.concatenate([angles, jnp.cos(angles)], -1))
        hidden = hidden * (1 + gate)
        hidden = hidden + nn.silu(nn.Dense(self.width)(hidden))
        return nn.Dense(x_t[0].size)(hidden).reshape(x_t.shape)
