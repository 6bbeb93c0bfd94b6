"""Encoders of instructions; rows of zeros (no instruction) become a learned vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal

from ambient_jax.models import layers
from ambient_jax.models.layers import Attention, Conv1D, Dense, Dtype, gelu, layer_norm
from ambient_jax.transforms.instructions import is_empty


class ByteEncoder(nn.Module):
    """Encodes instructions as bytes by a convolution over a few letters and a small transformer.

    The mean over the bytes is one vector; padding does not enter.

    Attributes:
        width: channels of the blocks and of the result, an even multiple of `heads`.
        depth: transformer blocks.
        heads: attention heads.
        kernel_size: odd width of the convolution, in bytes.
        dtype: type of the computation; parameters and the result are float32.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    kernel_size: int = 5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, instruction: jax.Array) -> jax.Array:
        """Encodes uint8 [B, L], zero where padded, to [B, width]."""
        self.check_sizes()
        instruction = jnp.asarray(instruction)
        if instruction.ndim != 2 or instruction.dtype != jnp.uint8 or not instruction.shape[1]:
            raise ValueError(
                f"instruction is {instruction.dtype} of shape {instruction.shape}; expected uint8"
                " [B, L] as made by encode_bytes."
            )
        mask = instruction != 0
        shape = (256, self.width)
        table = self.param("embedding", normal(self.width**-0.5), shape, jnp.float32)
        x = jnp.where(mask[..., None], table[instruction.astype(jnp.int32)], 0.0)
        x = Conv1D(self.width, self.kernel_size, dtype=self.dtype, name="conv")(x)
        x = gelu(x) + _positions(instruction.shape[1], self.width).astype(self.dtype)
        for i in range(self.depth):
            attention = Attention(self.heads, self.dtype, name=f"attention_{i}")
            x = x + attention(layer_norm(x), mask)
            h = gelu(Dense(4 * self.width, self.dtype, name=f"mlp_{i}_0")(layer_norm(x)))
            x = x + Dense(self.width, self.dtype, name=f"mlp_{i}_1")(h)
        x = jnp.where(mask[..., None], layer_norm(x).astype(jnp.float32), 0.0)
        pooled = x.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1)
        y = Dense(self.width, name="out")(pooled)
        return _without_instruction(self, instruction, y)

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, unless the sizes fit each other."""
        sizes = {name: getattr(self, name) for name in ("width", "depth", "heads", "kernel_size")}
        layers.check_positive("ByteEncoder", **sizes)
        layers.check_multiple("ByteEncoder", heads=self.heads, width=[self.width])
        layers.check_even("ByteEncoder", "width", self.width)
        layers.check_odd("ByteEncoder", self.kernel_size)


class EmbeddingEncoder(nn.Module):
    """Scales embeddings of another text encoder to unit size and maps them to `width`."""

    width: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, instruction: jax.Array) -> jax.Array:
        """Encodes floating [B, E], zeros for no instruction, to [B, width], float32."""
        layers.check_positive("EmbeddingEncoder", width=self.width)
        instruction = jnp.asarray(instruction)
        if instruction.ndim != 2 or not jnp.issubdtype(instruction.dtype, jnp.floating):
            raise ValueError(
                f"instruction is {instruction.dtype} of shape {instruction.shape}; expected"
                " floating [B, E] as given by InstructionTable.look_up."
            )
        # The scales of text encoders differ by orders of magnitude; squares of the smallest would
        # vanish beside the epsilon of the normalisation.
        size = jnp.abs(instruction).max(-1, keepdims=True)
        x = layer_norm(instruction / jnp.where(size > 0, size, 1.0))
        y = Dense(self.width, self.dtype, name="out")(x).astype(jnp.float32)
        return _without_instruction(self, instruction, y)


def _without_instruction(module: nn.Module, instruction: jax.Array, y: jax.Array) -> jax.Array:
    """Returns y [B, width] with a learned vector in rows that have no instruction."""
    none = module.param("none", normal(1.0), y.shape[1:], jnp.float32)
    return jnp.where(is_empty(instruction)[:, None], none, y)


def _positions(length: int, width: int) -> jax.Array:
    """Returns sines and cosines of the position [L, width], periods 2 pi to 2 pi 1000 bytes."""
    rates = jnp.geomspace(1.0, 1e-3, width // 2)
    angles = jnp.arange(length)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
