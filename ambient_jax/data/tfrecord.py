"""TFRecord framing: length, masked crc32c of the length, data, masked crc32c of the data.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import google_crc32c
import numpy as np

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
FRAMING_BYTES = _HEADER.size + _FOOTER.size
_RECORD_BYTES = (1 << 31) - 1  # largest protocol buffer


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C as TFRecord stores it: rotated and offset."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class TFRecordWriter:
    """Appends records to a new file."""

    def __init__(self, path: str):
        self._file = open(path, "xb")

    def write(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        self._file.write(length + _FOOTER.pack(masked_crc32c(length)))
        self._file.write(record)
        self._file.write(_FOOTER.pack(masked_crc32c(record)))

    def close(self) -> None:
        self._file.close()


def read_length(file: BinaryIO, path: str, record: int) -> int | None:
    """Bytes of the record at the file's position, from its header; None at the end of the file.

    ``path`` and ``record`` only name the place in an error.

    Raises:
      ValueError: the header is cut or corrupt, or the record does not fit into the file.
    """
    header = file.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise ValueError(
            f"{path}: truncated in the header of record {record}; fetch the file again"
        )
    length, crc = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != crc:
        raise ValueError(
            f"{path}: corrupt length of record {record} (crc32c mismatch); fetch the file again"
        )
    position = file.tell()
    left = file.seek(0, 2) - position
    file.seek(position)
    if length + _FOOTER.size > left:
        raise ValueError(
            f"{path}: truncated in record {record}, {min(left, length)} of {length} data bytes are "
            "there; fetch the file again"
        )
    if length > _RECORD_BYTES:
        raise ValueError(
            f"{path}: record {record} has {length} bytes, expected a tf.train.Example, which has "
            "less than 2 GiB"
        )
    return length


def read_record(file: BinaryIO, path: str, record: int) -> bytes | None:
    """The record at the file's position, checked; None at the end of the file.

    Raises:
      ValueError: as ``read_length``, or the data do not match their crc32c.
    """
    length = read_length(file, path, record)
    if length is None:
        return None
    data, footer = file.read(length), file.read(_FOOTER.size)
    if len(footer) < _FOOTER.size:
        raise ValueError(
            f"{path}: truncated in record {record} while it was read; fetch the file again"
        )
    if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
        raise ValueError(
            f"{path}: corrupt data of record {record} (crc32c mismatch); fetch the file again"
        )
    return data


def record_offsets(file: BinaryIO, path: str) -> np.ndarray:
    """Byte offset of every record, [N] int64, from the headers alone (no data is read).

    Raises:
      ValueError: see ``read_length``.
    """
    offset = 0
    offsets: list[int] = []
    while True:
        file.seek(offset)
        length = read_length(file, path, len(offsets))
        if length is None:
            return np.array(offsets, np.int64)
        offsets.append(offset)
        offset += length + FRAMING_BYTES
