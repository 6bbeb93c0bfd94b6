"""A small transformer over the action chunk, conditioned by adaptive layer normalisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, zeros

from ambient_jax.models import layers
from ambient_jax.models.layers import Attention, Dense, Dtype, NoiseEmbedding, layer_norm


class TransformerDenoiser(nn.Module):
    """Transformer over the H steps of a chunk, with the signature of `UNet1D`.

    The condition enters by adaptive layer normalisation, a product per sample, and not as tokens.
    One dense layer computes all scales, shifts and gates and starts at zero (adaLN-Zero, Peebles
    and Xie 2023), so every block starts as the identity.

    Attributes:
        width: channels, an even multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden size of the blocks' MLPs over `width`.
        dtype: type of the computation; parameters, statistics and the output are float32.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_t: jax.Array, sigma: jax.Array, condition: jax.Array) -> jax.Array:
        """Predicts [B, H, D] from x_t [B, H, D], sigma [B] in [0, 1] and condition [B, C]."""
        self.check_sizes()
        layers.check_denoiser_inputs(x_t, sigma, condition)
        _, horizon, dims = x_t.shape

        def dense(features, name, **kwargs):
            return Dense(features, self.dtype, name=name, **kwargs)

        embedding = NoiseEmbedding(self.width, self.dtype, name="noise_embedding")(sigma)
        embedding = embedding + dense(self.width, "condition")(condition)
        count = 6 * self.depth + 2
        film = dense(count * self.width, "film", kernel_init=zeros)(layers.mish(embedding))
        films = iter(jnp.split(film[:, None], count, axis=-1))

        position = self.param("position", normal(0.02), (horizon, self.width), jnp.float32)
        h = dense(self.width, "in")(x_t) + position.astype(self.dtype)
        for i in range(self.depth):
            y = layer_norm(h) * (1 + next(films)) + next(films)
            h = h + next(films) * Attention(self.heads, self.dtype, name=f"attention_{i}")(y)
            y = layer_norm(h) * (1 + next(films)) + next(films)
            y = layers.gelu(dense(self.mlp_ratio * self.width, f"mlp_{i}_in")(y))
            h = h + next(films) * dense(self.width, f"mlp_{i}_out")(y)
        h = layer_norm(h) * (1 + next(films)) + next(films)
        return dense(dims, "out")(h).astype(jnp.float32)

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, unless the sizes fit each other."""
        fields = ("width", "depth", "heads", "mlp_ratio")
        layers.check_positive("TransformerDenoiser", **{n: getattr(self, n) for n in fields})
        layers.check_multiple("TransformerDenoiser", heads=self.heads, width=[self.width])
        layers.check_even("TransformerDenoiser", "width", self.width)
