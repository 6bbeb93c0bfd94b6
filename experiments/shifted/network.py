"""A denoiser of short chunks that is cheap on a CPU: residual dense layers on the flat chunk."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambient_jax.models.layers import (
    NoiseEmbedding,
    check_denoiser_inputs,
    check_positive,
    layer_norm,
    mish,
)


class Residual(nn.Module):
    """Predicts a chunk from the flat one, its level and the condition.

    Attributes:
        width: of all layers.
        depth: number of residual blocks, of two layers each.
        embed_dim: size of the noise level's embedding.
    """

    width: int = 256
    depth: int = 2
    embed_dim: int = 32

    @nn.compact
    def __call__(self, x_t: jax.Array, sigma: jax.Array, condition: jax.Array) -> jax.Array:
        """Predicts [B, H, D] from x_t [B, H, D], sigma [B] in [0, 1] and condition [B, C]."""
        self.check_sizes()
        check_denoiser_inputs(x_t, sigma, condition)
        flat = x_t.reshape(len(x_t), -1)
        seen = jnp.concatenate([NoiseEmbedding(self.embed_dim)(sigma), mish(condition)], -1)
        h = nn.Dense(self.width, name="in")(jnp.concatenate([flat, seen], -1))
        for i in range(self.depth):
            r = nn.Dense(self.width, name=f"block_{i}_0")(layer_norm(h))
            r = mish(r + nn.Dense(self.width, name=f"seen_{i}")(seen))
            h = h + nn.Dense(self.width, name=f"block_{i}_1")(r)
        h = jnp.concatenate([mish(h), flat], -1)
        return nn.Dense(flat.shape[-1], name="out")(h).reshape(x_t.shape)

    def check_sizes(self) -> None:
        """Raises ValueError that names a field which is out of range."""
        fields = {name: getattr(self, name) for name in ("width", "depth", "embed_dim")}
        check_positive("Residual", **fields)
