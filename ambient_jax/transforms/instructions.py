"""Encodes instructions as bytes for a trainable encoder, or looks up their embeddings in a file.

Bytes [B, L] are padded with zeros (`encode_bytes`), embeddings are [B, E]
(`InstructionTable.look_up`). In both, a row of zeros means "no instruction" (`is_empty`).
"""

import dataclasses
import functools
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from ambient_jax import _checks

_ZIP = (zipfile.BadZipFile, zlib.error)
ON_LONG = ("raise", "truncate")


def encode_bytes(texts: Sequence[str | bytes], length: int, on_long: str = "raise") -> np.ndarray:
    """Encodes texts as UTF-8 bytes padded with zeros, uint8 [B, length].

    Blank texts become rows of zeros. A text with a zero byte raises ValueError, and so does a
    longer text, unless ``on_long`` is "truncate" (`cut`).
    """
    _checks.one_of("on_long", on_long, ON_LONG)
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ValueError(f"encode_bytes length is {length!r}; expected an integer >= 1.")
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
            data = cut(data, length)
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows


def cut(text: bytes, length: int) -> bytes:
    """Cuts a text to whole words, or one word to whole characters, that fit ``length`` bytes."""
    if len(text) <= length:
        return text
    start = len(text) - len(text.lstrip())
    end = max(text.rfind(b" ", start, length + 1), text.rfind(b"\n", start, length + 1))
    if end > start:
        return text[:end].rstrip()
    # Continuation bytes are 10xxxxxx: a cut before one would split a character.
    end = length
    while end and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def as_texts(texts: Any, batch: int) -> list[str | bytes]:
    """Returns an instruction for each of ``batch`` rows, from a text, sequence or array."""
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()
    if isinstance(texts, str | bytes):
        return [texts] * batch
    expected = f"expected {batch} texts (str or bytes; '' for no instruction), one for each row"
    if not isinstance(texts, Sequence):
        raise ValueError(f"the instruction is {_short(texts)}, {expected}, or one for all rows.")
    for row, text in enumerate(texts):
        if not isinstance(text, str | bytes):
            raise ValueError(f"the instruction of row {row} is {_short(text)}, {expected}.")
    if len(texts) != batch:
        raise ValueError(f"the instruction has {len(texts)} texts, {expected}.")
    return list(texts)


def _short(value):
    return f"{type(value).__name__} {' '.join(repr(value).split())[:60]}"


def is_empty(instruction: Any) -> Any:
    """Returns which rows of bytes [..., L] or embeddings [..., E] mean no instruction, [...]."""
    return (instruction == 0).all(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class InstructionTable:
    """Embeddings [N, E] float32 of N known instructions, from any text encoder."""

    text: tuple[str, ...]
    embedding: np.ndarray

    def __post_init__(self):
        if self.embedding.ndim != 2 or len(self.embedding) != len(self.text):
            raise ValueError(
                f"The instruction table has 'embedding' of shape {self.embedding.shape} for"
                f" {len(self.text)} texts; expected [{len(self.text)}, E]."
            )
        if not np.issubdtype(self.embedding.dtype, np.floating):
            dtype = self.embedding.dtype
            raise ValueError(
                f"The instruction table has 'embedding' of dtype {dtype}; expected floating"
                " numbers."
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

    @functools.cached_property
    def digest(self) -> str:
        """Hash of texts and embeddings."""
        digest = hashlib.sha256(json.dumps([self.text, self.embedding.shape]).encode())
        digest.update(np.ascontiguousarray(self.embedding).tobytes())
        return digest.hexdigest()[:16]

    def look_up(self, texts: Sequence[str | bytes]) -> np.ndarray:
        """Returns embeddings [B, E] float32 of B texts in the table; zeros for empty texts."""
        if isinstance(texts, str | bytes):
            raise ValueError(f"texts is the single text {texts!r}; expected a sequence of texts.")
        out = np.zeros((len(texts), self.embedding.shape[1]), np.float32)
        for row, text in zip(out, texts, strict=True):
            try:
                text = text.decode() if isinstance(text, bytes) else text
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"Instruction {text!r} is no UTF-8 ({error.reason}); store it as UTF-8."
                ) from None
            if not isinstance(text, str):
                raise ValueError(f"Instruction {_short(text)} is no text; expected str, bytes.")
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

    Raises FileNotFoundError or ValueError; both name the file.
    """
    file = epath.Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(
            f"No instruction embeddings at {path}; expected an .npz file with 'text' [N] and"
            " 'embedding' [N, E]."
        )
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, AttributeError, TypeError, RuntimeError, *_ZIP) as error:
        raise ValueError(
            f"{path} is not an .npz file of plain arrays ({error}); expected 'text' [N], str or"
            " bytes and not objects, and 'embedding' [N, E]."
        ) from error
    for name in ("text", "embedding"):
        if name not in stored:
            raise ValueError(
                f"{path} has no array {name!r}{_checks.nearest(name, stored)}; it has"
                f" {sorted(stored)}, expected 'text' [N] and 'embedding' [N, E]."
            )
    text = stored["text"]
    if text.ndim != 1 or text.dtype.kind not in "US":
        raise ValueError(
            f"{path}: 'text' is {text.dtype} of shape {text.shape}; expected [N] of str or bytes."
        )
    try:
        texts = tuple(t.decode() if isinstance(t, bytes) else str(t) for t in text)
        return InstructionTable(texts, stored["embedding"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_instructions(path: str | os.PathLike, table: InstructionTable) -> None:
    """Writes a table for `load_instructions`."""
    with epath.Path(path).expanduser().open("wb") as file:
        np.savez(file, text=np.array(table.text, np.str_), embedding=table.embedding)
