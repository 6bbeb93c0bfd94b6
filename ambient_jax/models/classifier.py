"""Noise classifiers, which predict whether a noised chunk is clean or corrupt."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption
from ambient_jax.models.layers import Conv1D, Dense, NoiseEmbedding, check_positive, mish

_HIGH = 0.95


class ChunkClassifier(nn.Module):
    """Predicts logits of "clean" for noised chunks [H, D] by residual convolutions and a mean.

    The input is the chunk's differences of order 0, 1, ... along time, scaled to unit mean square
    at the noise level, so that fine detail is as large as the path. With a condition a logit is
    ``g(condition) + alpha h(x_t, condition, sigma)``. Its slope in x_t falls like alpha near
    sigma = 1, like that of the exact logit (``annotate.mismatch`` divides by alpha); h gets a
    clipped sigma.

    Attributes:
        features: widths of the residual blocks.
        kernel_size: odd, in steps.
        embed_dim: size of the noise-level embedding.
        dropout: share of the pooled features dropped in training.
        colour: exponent of the noise's spectrum, see ``corruption.colour_matrix``.
        heads: number of logits ("clean, or of source k?"); they share all but the last layer.
    """

    features: tuple[int, ...] = (32, 64)
    kernel_size: int = 3
    embed_dim: int = 32
    dropout: float = 0.0
    heads: int = 1
    colour: float = 0.0

    @nn.compact
    def __call__(
        self,
        x_t: jax.Array,
        sigma: jax.Array,
        moments: jax.Array,
        condition: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Returns logits [B, heads] of x_t [B, H, D] at sigma [B]; a condition [B, C] is optional.

        ``moments`` [B, orders] are mean squares of the differences of x0 of order 0, 1, ...; orders
        beyond the chunk's length are ignored. ``train`` drops features (PRNG key "dropout").
        """
        if x_t.ndim != 3 or sigma.shape != x_t.shape[:1]:
            shapes = f"x_t has shape {x_t.shape} and sigma {sigma.shape}"
            raise ValueError(f"{shapes}; expected [B, H, D] and [B].")
        check_positive("ChunkClassifier", kernel_size=self.kernel_size, embed_dim=self.embed_dim)
        level = sigma if condition is None else jnp.minimum(sigma, _HIGH)
        embedding = NoiseEmbedding(self.embed_dim)(level)
        if condition is not None:
            embedding = jnp.concatenate([embedding, condition], -1)
        embedding = mish(embedding)
        h = Conv1D(self.features[0], self.kernel_size)(
            standardised_differences(x_t, sigma, moments, self.colour)
        )
        for i, width in enumerate(self.features):
            r = Conv1D(width, self.kernel_size, name=f"conv_{i}_0")(mish(h))
            scale, shift = jnp.split(Dense(2 * width, name=f"film_{i}")(embedding), 2, -1)
            r = r * (1 + scale[:, None]) + shift[:, None]
            r = Conv1D(width, self.kernel_size, name=f"conv_{i}_1")(mish(r))
            h = r + (h if h.shape[-1] == width else Dense(width, name=f"skip_{i}")(h))
        pooled = mish(h).mean(1)
        if self.dropout:
            pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
        pooled = jnp.concatenate([pooled, embedding], -1)
        hidden = mish(Dense(self.features[-1], name="hidden")(pooled))
        logits = Dense(self.heads, name="logit")(hidden)
        if condition is None:
            return logits
        hidden = mish(Dense(self.features[-1], name="seen")(mish(condition)))
        alpha = jnp.sqrt((1 - sigma) * (1 + sigma))[:, None]
        return Dense(self.heads, name="of_condition")(hidden) + alpha * logits


def standardised_differences(
    x_t: jax.Array, sigma: jax.Array, moments, colour: float = 0.0
) -> jax.Array:
    """Returns differences [B, H, D * orders] of x_t [B, H, D] at sigma [B], of unit mean square.
    ``moments`` are those of ``ChunkClassifier``, or [orders]. Order k of white noise has variance
    binomial(2k, k), of noise with a ``colour`` that of the rows of its matrix."""
    s2 = jnp.square(sigma)[:, None, None]
    moments = jnp.asarray(moments, x_t.dtype)
    moments = jnp.broadcast_to(moments, (len(x_t), moments.shape[-1]))
    channels, d = [], x_t
    for k in range(min(moments.shape[1], x_t.shape[1])):
        noise = float(math.comb(2 * k, k))
        if colour:
            rows = np.diff(corruption.colour_matrix(x_t.shape[1], colour), k, axis=0)
            noise = float(np.mean(np.sum(rows**2, 1)))
        size = jnp.sqrt((1 - s2) * moments[:, k, None, None] + s2 * noise)
        size = jnp.where(size > 0, size, 1)  # chunks that all stand still, at sigma 0
        channels.append(jnp.pad(d / size, ((0, 0), (k, 0), (0, 0))))
        d = jnp.diff(d, axis=1)
    return jnp.concatenate(channels, -1)


def difference_moments(chunks, orders: int = 4) -> tuple[float, ...]:
    """Returns mean squares of the differences of chunks [N, H, D], orders 0 to ``orders`` - 1."""
    moments = []
    for _ in range(min(orders, chunks.shape[1])):
        moments.append(float((chunks.astype("float64") ** 2).mean()))
        chunks = chunks[:, 1:] - chunks[:, :-1]
    return tuple(moments)
