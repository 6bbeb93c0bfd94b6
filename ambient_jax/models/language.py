"""Instructions: as bytes through a small trainable encoder, or as embeddings read from a file.

Both kinds of instruction are arrays whose rows of zeros stand for "no instruction": bytes [B, L]
padded with zeros (`encode_bytes`), or embeddings [B, E] (`InstructionTable.look_up`). Both encoders
put a learned vector in their place. `is_empty` tells which rows those are, so that they can be
counted on the host or in a training step alike.
"""

import dataclasses
import functools
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.nn.initializers import normal

from ambient_jax import _checks
from ambient_jax.models.layers import Conv1D, Dense, check_positive, gelu, layer_norm

Dtype = Any
ON_LONG = ("raise", "truncate")
# Against the softmax's largest logit this is a weight of exactly zero, and unlike minus infinity it
# leaves a row without any byte finite.
_NEVER = -1e9


def encode_bytes(texts: Sequence[str | bytes], length: int, on_long: str = "raise") -> np.ndarray:
    """Texts as UTF-8 bytes padded with zeros, uint8 [B, length].

    Args:
        texts: B instructions; empty ones and those of blanks alone become rows of zeros.
        length: L, bytes of a row.
        on_long: what happens to a text of more bytes: "raise", or "truncate" between characters.

    Raises:
        ValueError: a text too long, one with a zero byte, or something that is no text.
    """
    _checks.one_of("on_long", on_long, ON_LONG)
    check_positive("encode_bytes", length=length)
    if isinstance(texts, str | bytes):
        raise ValueError(f"texts is the single text {texts!r}; expected a sequence of texts.")
    rows = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(rows, texts, strict=True):
        if not isinstance(text, str | bytes):
            raise ValueError(f"Instruction {text!r} is {type(text).__name__}; expected str, bytes.")
        data = text.encode() if isinstance(text, str) else bytes(text)
        if not data.strip():
            continue
        if 0 in data:
            raise ValueError(
                f"Instruction {text!r} holds a zero byte, which stands for padding; take it out."
            )
        if len(data) > length:
            if on_long == "raise":
                raise ValueError(
                    f"Instruction {text!r} has {len(data)} bytes, over length = {length}; raise the"
                    " length or choose on_long='truncate'."
                )
            # Continuation bytes are 10xxxxxx: a cut before one would split a character.
            end = length
            while end and data[end] & 0xC0 == 0x80:
                end -= 1
            data = data[:end]
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows


def is_empty(instruction: Any) -> Any:
    """Which rows of bytes [..., L] or embeddings [..., E] stand for no instruction: bool [...]."""
    return (instruction == 0).all(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class InstructionTable:
    """Embeddings of known instructions, from any text encoder.

    Attributes:
        text: the N instructions.
        embedding: [N, E] float32.
    """

    text: tuple[str, ...]
    embedding: np.ndarray

    def __post_init__(self):
        if self.embedding.ndim != 2 or len(self.embedding) != len(self.text):
            raise ValueError(
                f"The instruction table has 'embedding' of shape {self.embedding.shape} for"
                f" {len(self.text)} texts; expected [{len(self.text)}, E]."
            )
        if not np.issubdtype(self.embedding.dtype, np.floating):
            raise ValueError(
                f"The instruction table has 'embedding' of dtype {self.embedding.dtype}; expected"
                " floating numbers."
            )
        object.__setattr__(self, "embedding", self.embedding.astype(np.float32))
        sound = np.isfinite(self.embedding).all(1) & ~is_empty(self.embedding)
        for text, good in zip(self.text, sound, strict=True):
            if not text.strip():
                raise ValueError(
                    "The instruction table has an empty text; an empty instruction has no"
                    " embedding but a learned vector, so leave that row out."
                )
            if not good:
                raise ValueError(
                    f"The instruction table's embedding of {text!r} is not finite or is all zeros,"
                    " which stands for no instruction; embed that text again."
                )
        if len(self._rows) != len(self.text):
            double = next(t for i, t in enumerate(self.text) if self._rows[t] != i)
            raise ValueError(
                f"The instruction table has {double!r} more than once; keep one row of each text."
            )

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.text)}

    def look_up(self, texts: Sequence[str | bytes]) -> np.ndarray:
        """Embeddings [B, E] float32 of B texts, by the exact text; zeros for empty instructions.

        Raises:
            ValueError: a text that the table does not have, with the nearest that it has.
        """
        if isinstance(texts, str | bytes):
            raise ValueError(f"texts is the single text {texts!r}; expected a sequence of texts.")
        out = np.zeros((len(texts), self.embedding.shape[1]), np.float32)
        for row, text in zip(out, texts, strict=True):
            text = text.decode() if isinstance(text, bytes) else text
            if not text.strip():
                continue
            if text not in self._rows:
                raise ValueError(
                    f"Instruction {text!r} is not among the {len(self.text)} of the instruction"
                    f" table{_checks.nearest(text, self.text)}; embed it and add it to the file, or"
                    " use the byte encoder."
                )
            row[:] = self.embedding[self._rows[text]]
        return out


def load_instructions(path: str | os.PathLike) -> InstructionTable:
    """Reads an .npz file with "text" [N] (str, or UTF-8 bytes) and "embedding" [N, E].

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, missing arrays or wrong shapes; the file is named.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"No instruction embeddings at {path}; expected an .npz file with 'text' [N] and"
            " 'embedding' [N, E]."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is not an .npz file of plain arrays ({error}); expected 'text' [N], str or"
            " bytes and not objects, and 'embedding' [N, E]."
        ) from error
    for name in ("text", "embedding"):
        if name not in found:
            raise ValueError(
                f"{path} has no array {name!r}{_checks.nearest(name, found)}; it has"
                f" {sorted(found)}, expected 'text' [N] and 'embedding' [N, E]."
            )
    text = found["text"]
    if text.ndim != 1 or text.dtype.kind not in "US":
        raise ValueError(
            f"{path}: 'text' is {text.dtype} of shape {text.shape}; expected [N] of str or bytes."
        )
    try:
        texts = tuple(t.decode() if isinstance(t, bytes) else str(t) for t in text)
        return InstructionTable(texts, found["embedding"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_instructions(path: str | os.PathLike, table: InstructionTable) -> None:
    """Writes a table as `load_instructions` reads it."""
    with epath.Path(path).open("wb") as file:
        np.savez(file, text=np.array(table.text, np.str_), embedding=table.embedding)


class ByteEncoder(nn.Module):
    """Instructions as bytes through a convolution and a small transformer, pooled to one vector.

    The convolution sees a few letters at once, which spares the attention from finding neighbours
    by their positions. Padding is seen by nothing, so the length of the rows does not matter.

    Attributes:
        width: channels, a multiple of `heads`, and of the result.
        depth: transformer blocks.
        heads: attention heads.
        kernel_size: odd width of the convolution, in bytes.
        dtype: of the computation; parameters and the result are float32.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    kernel_size: int = 5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, instruction: jax.Array) -> jax.Array:
        """Encodes uint8 [B, L], zero where padded, to [B, width].

        Raises:
            ValueError: another type or shape, or sizes that do not fit.
        """
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
            attention = MaskedAttention(self.heads, self.dtype, name=f"attention_{i}")
            x = x + attention(layer_norm(x), mask)
            h = gelu(Dense(4 * self.width, self.dtype, name=f"mlp_{i}_0")(layer_norm(x)))
            x = x + Dense(self.width, self.dtype, name=f"mlp_{i}_1")(h)
        x = jnp.where(mask[..., None], layer_norm(x).astype(jnp.float32), 0.0)
        pooled = x.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1)
        y = Dense(self.width, name="out")(pooled)
        none = self.param("none", normal(1.0), (self.width,), jnp.float32)
        return jnp.where(is_empty(instruction)[:, None], none, y)

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, unless the sizes fit each other."""
        sizes = {name: getattr(self, name) for name in ("width", "depth", "heads", "kernel_size")}
        check_positive("ByteEncoder", **sizes)
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"ByteEncoder width is {self.width}; expected an even multiple of heads ="
                f" {self.heads}."
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"ByteEncoder kernel_size is {self.kernel_size}; expected an odd number, so that"
                " the length is kept."
            )


class MaskedAttention(nn.Module):
    """Multi-head self-attention to the steps of [B, L, C] that a mask [B, L] leaves."""

    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        qkv = Dense(3 * width, self.dtype, name="qkv")(x)
        heads = (batch, length, self.heads, width // self.heads)
        q, k, v = (part.reshape(heads) for part in jnp.split(qkv, 3, axis=-1))
        q = q * (width // self.heads) ** -0.5
        logits = jnp.einsum("bihd,bjhd->bhij", q, k).astype(jnp.float32)
        logits = jnp.where(mask[:, None, None], logits, _NEVER)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(batch, length, width)
        return Dense(width, self.dtype, name="out")(mixed)


class EmbeddingEncoder(nn.Module):
    """Embeddings of another text encoder, brought to unit scale and mapped to `width`.

    Attributes:
        width: of the result.
        dtype: of the computation; parameters and the result are float32.
    """

    width: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, instruction: jax.Array) -> jax.Array:
        """Encodes floating [B, E], zeros for no instruction, to [B, width].

        Raises:
            ValueError: another type or shape, or sizes that do not fit.
        """
        check_positive("EmbeddingEncoder", width=self.width)
        instruction = jnp.asarray(instruction)
        if instruction.ndim != 2 or not jnp.issubdtype(instruction.dtype, jnp.floating):
            raise ValueError(
                f"instruction is {instruction.dtype} of shape {instruction.shape}; expected"
                " floating [B, E] as given by InstructionTable.look_up."
            )
        # Text encoders differ in scale by orders; the squares of the smallest would be lost in the
        # normalisation's epsilon.
        size = jnp.abs(instruction).max(-1, keepdims=True)
        x = layer_norm(instruction / jnp.where(size > 0, size, 1.0))
        y = Dense(self.width, self.dtype, name="out")(x).astype(jnp.float32)
        none = self.param("none", normal(1.0), (self.width,), jnp.float32)
        return jnp.where(is_empty(instruction)[:, None], none, y)


def _positions(length: int, width: int) -> jax.Array:
    """Sines and cosines of the position [L, width], of periods from 2 pi to 2 pi 1000 bytes."""
    rates = jnp.geomspace(1.0, 1e-3, width // 2)
    angles = jnp.arange(length)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
