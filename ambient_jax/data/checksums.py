"""Digests of record files from the checksums that they keep, without reading the data.

A TFRecord has the crc32c of every record beside it: 16 bytes to read a record. An array_record file
is made of Riegeli chunks (https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md),
each with a hash of its data in a header of 40 bytes. So a digest costs one small read a record (or
chunk): a thousandth of reading episodes of 1 MB, but as much as reading records under some kB,
because storage hands out whole pages.
"""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

from absl import logging
from etils import epath

from ambient_jax.data import files, tfrecord

# Riegeli: each block begins with a header of its own, also in the middle of a chunk.
_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_CHUNK = struct.Struct("<QQQBBBBBBBBQ")  # hash, size, hash of the data, type, count, decoded size
_TYPES = b"smprt"
_PIECE = 1 << 22


def of_file(path: str, file_format: str) -> str:
    """Digest of a file's size and content; "missing" where there is none.

    Args:
      path: local, or whatever `etils.epath` reads.
      file_format: "tfrecord" or "array_record". If its structure is damaged, every byte is read.
    """
    if not epath.Path(path).is_file():  # opening a FIFO would block
        return "missing"
    update = _tfrecord if file_format == "tfrecord" else _array_record
    with files.open_file(path) as file:
        size = file.seek(0, 2)
        digest = hashlib.sha256(str(size).encode())
        try:
            update(digest, file, path, size)
        except ValueError as error:
            logging.info("%s is read as a whole for its fingerprint (%s)", path, error)
            digest = hashlib.sha256(f"{size} whole".encode())
            file.seek(0)
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


def _tfrecord(digest, file: BinaryIO, path: str, size: int) -> None:
    offsets = tfrecord.record_offsets(file, path).tolist()
    for start, end in zip(offsets, [*offsets[1:], size], strict=True):
        file.seek(end - 4)
        digest.update(f"{end - start}".encode() + file.read(4))


def _array_record(digest, file: BinaryIO, path: str, size: int) -> None:
    begin = 0
    while begin < size:
        # A block's own header at the start of a block comes before the chunk's.
        header = _without_block_headers(file, begin, _CHUNK.size)
        if len(header) < _CHUNK.size:
            raise ValueError("it ends inside of a chunk's header")
        _, data_size, _, chunk_type, *count, _ = _CHUNK.unpack(header)
        if chunk_type not in _TYPES:
            raise ValueError(f"no chunk begins at byte {begin}")
        digest.update(header)
        number = sum(byte << 8 * i for i, byte in enumerate(count))
        begin = max(_after(begin, _CHUNK.size + data_size), _boundary(begin + number))
    if begin != size:
        raise ValueError(f"its last chunk ends at byte {begin} of {size}")


def _without_block_headers(file: BinaryIO, begin: int, length: int) -> bytes:
    data, position = b"", begin
    while len(data) < length:
        position += max(0, _BLOCK_HEADER - position % _BLOCK)
        file.seek(position)
        piece = file.read(min(length - len(data), _BLOCK - position % _BLOCK))
        if not piece:
            break
        data, position = data + piece, position + len(piece)
    return data


def _after(begin: int, length: int) -> int:
    """Where a chunk's bytes end: the headers of the blocks that it begins or crosses count."""
    usable = _BLOCK - _BLOCK_HEADER
    blocks = (length + (begin + usable - 1) % _BLOCK) // usable
    return begin + length + blocks * _BLOCK_HEADER


def _boundary(position: int) -> int:
    """The next place from here where a chunk may begin."""
    within = position % _BLOCK
    return position + (_BLOCK_HEADER - within if 0 < within < _BLOCK_HEADER else 0)
