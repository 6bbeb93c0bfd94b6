"""Parses only the wanted features of a ``tf.train.Example``.

Data sets have depth images and embeddings that nobody asks for, which may be most of their bytes.
An Example has one field, Features, which has one field, a map; each entry of it is a field that
begins with a name and tells its length, so it can be stepped over
(https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence

from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

_FIRST = 0x0A  # tag of field 1 where its length follows
_INFLATED_BYTES, _INFLATED_RATIO = 1 << 30, 200


def parse(record: bytes, paths: tuple[str, ...] | None = None) -> tf_feature_pb2.Features:
    """The features under some paths and below them; all if ``paths`` is None.

    A record with another layout is parsed as a whole.

    Raises:
      google.protobuf.message.DecodeError: the bytes do not parse.
    """
    if paths is not None:
        try:
            kept = b"".join(_entries(memoryview(record), paths))
        except (IndexError, ValueError):
            return parse(record)
        return tf_feature_pb2.Features.FromString(kept)
    return tf_example_pb2.Example.FromString(record).features


def _entries(record: memoryview, paths: tuple[str, ...]) -> Iterator[memoryview]:
    """The wanted entries of the map, as they are stored."""
    for _, begin, end in _fields(record, 0, len(record)):
        for entry, inner, last in _fields(record, begin, end):
            _, first, past = next(_fields(record, inner, last), (0, 0, 0))
            if _wanted(bytes(record[first:past]), paths):
                yield record[entry:last]


@functools.lru_cache(maxsize=4096)
def _wanted(name: bytes, paths: tuple[str, ...]) -> bool:
    return any(f"{name.decode()}/".startswith(f"{path}/") for path in paths)


def _fields(record: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(start, start of the value, end) of each field; all of them have number 1."""
    while at < end:
        start, size, shift, more = at, 0, 0, True
        if record[at] != _FIRST:
            raise ValueError(f"tag {record[at]} at byte {at}, expected {_FIRST}")
        while more:  # seven bits a byte, the lowest first
            if shift > 63:
                raise ValueError(f"a length of more than ten bytes at byte {start}")
            at += 1
            size |= (record[at] & 0x7F) << shift
            more, shift = record[at] >= 0x80, shift + 7
        begin, at = at + 1, at + 1 + size
        if at > end:
            raise ValueError(f"a field of {size} bytes at byte {start}, {end - begin} are left")
        yield start, begin, at


def inflate(blobs: Sequence[bytes], size: int | None) -> list[bytes]:
    """Decompresses the tensors of a field, each to at most ``size`` bytes, those of its shape.

    If the shape is unknown (None), all of them together to 1 GiB, or 200 times their size if that
    is more.

    Raises:
      ValueError: one would become larger, or is cut short.
      zlib.error: it is damaged.
    """
    left = max(_INFLATED_BYTES, _INFLATED_RATIO * sum(map(len, blobs)))
    tensors = []
    for blob in blobs:
        most = left if size is None else size
        stream = zlib.decompressobj()
        data = stream.decompress(blob, most + 1)
        if len(data) > most:
            limit = "is too much for one field" if size is None else "its shape has"
            raise ValueError(f"{len(blob)} compressed bytes become more than {most}, which {limit}")
        if not stream.eof:
            raise ValueError(f"its {len(blob)} compressed bytes are cut short")
        left -= len(data)
        tensors.append(data)
    return tensors
