"""TFRecord framing: length, masked crc32c of the length, data, masked crc32c of the data.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ambient_jax.data.files import too_few

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bit-reversed
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAMING_BYTES = _HEADER.size + _FOOTER.size
# x^(32 * 563) is the sum of x^(32 * these) modulo the polynomial: found by search, among all sums
# of five such powers below 600 the one whose powers are lowest.
_DEGREE, _POWERS = 563, (109, 58, 53, 31, 0)
_RECORD_BYTES = (1 << 31) - 1  # what a protocol buffer may have
_PIECE = 1 << 20  # bytes that are copied to be worked on


@functools.cache
def _byte_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


def _apply(tables: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Applies a linear operator on 32-bit words, given as four byte-wise tables [4, 256]."""
    octets = words.view(np.uint8).reshape(-1, 4)
    out = tables[0][octets[:, 0]]
    for i in (1, 2, 3):
        out ^= tables[i][octets[:, i]]
    return out


@functools.cache
def _advance_tables(log2_words: int) -> np.ndarray:
    """Tables of the operator that feeds 4 * 2**log2_words zero bytes to the register."""
    words = np.arange(256, dtype="<u4") << np.array([[0], [8], [16], [24]], "<u4")
    words = words.astype("<u4").reshape(-1)
    if log2_words:
        half = _advance_tables(log2_words - 1)
        words = _apply(half, _apply(half, words))
    else:
        byte_table = np.array(_byte_table(), "<u4")
        for _ in range(4):
            words = (words >> np.uint32(8)) ^ byte_table[words & np.uint32(0xFF)]
    return words.astype("<u4").reshape(4, 256)


def _shortened(words: np.ndarray) -> np.ndarray:
    """Some last words, of the same remainder; changes what it is given.

    Squaring a sum of powers over GF(2) doubles each power, so there is one for every length.
    """
    scale = 1 << max(0, len(words) // _DEGREE).bit_length()
    while scale := scale // 2:
        while (excess := len(words) - scale * _DEGREE) > 0:
            count = min(excess, scale * (_DEGREE - _POWERS[0]))
            for power in _POWERS:
                begin = scale * (_DEGREE - power)
                words[begin : begin + count] ^= words[:count]
            words = words[count:]
    return words


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of ``data``, at some GB/s through numpy: no compiled extra.

    The register is linear over GF(2), so the front of a message can be pushed through "as many
    zero bytes as follow it" and XORed onto what follows. A long one is first shortened by powers
    of x that are sums of a few others, which needs XORs alone; folding the rest until one word is
    left costs about one table look-up a byte, all of it vectorised.
    """
    register, data = 0xFFFFFFFF, memoryview(data)
    for begin in range(0, len(data), _PIECE):
        register = _fed(register, data[begin : begin + _PIECE])
    return register ^ 0xFFFFFFFF


def _fed(register: int, data: memoryview) -> int:
    """The register after some more data."""
    if len(data) < 256:
        table = _byte_table()
        for byte in data:
            register = (register >> 8) ^ table[(register ^ byte) & 0xFF]
        return register
    # Zeros in front of a message leave a zero register as it is, so padding there is free
    # once the register has been XORed onto the first four bytes.
    padding = -len(data) % 4
    octets = np.zeros(len(data) + padding, np.uint8)
    octets[padding:] = np.frombuffer(data, np.uint8)
    octets[padding : padding + 4] ^= np.array([register], "<u4").view(np.uint8)
    words = _shortened(octets.view("<u4"))
    while len(words) > 1:
        log2_tail = (len(words) - 1).bit_length() - 1
        front, tail = np.split(words, [len(words) - (1 << log2_tail)])
        tail[len(tail) - len(front) :] ^= _apply(_advance_tables(log2_tail), front)
        words = tail
    return int(_apply(_advance_tables(0), words)[0])


def masked_crc32c(data: bytes) -> int:
    """The CRC as TFRecord stores it: rotated and offset."""
    crc = crc32c(data)
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


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file, whose position stays."""
    position = file.tell()
    size = file.seek(0, 2)
    file.seek(position)
    return size


def _read_header(file: BinaryIO, path: str, record: int) -> int | None:
    """The length of the next record, or None at a clean end of the file."""
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
    return length


def _check_length(file: BinaryIO, path: str, record: int, length: int, size: int) -> None:
    """What follows the header is there, so that its length may be allocated."""
    left = size - file.tell()
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


def record_offsets(file: BinaryIO, path: str) -> np.ndarray:
    """Byte offset of every record, [N] int64, from the headers alone (no data is read).

    Raises:
      ValueError: a header is cut or corrupt, or the last record runs past the end of the file.
    """
    size = file.seek(0, 2)
    offset, offsets = 0, []
    while offset < size:
        file.seek(offset)
        length = _read_header(file, path, len(offsets))
        offsets.append(offset)
        offset += length + _FRAMING_BYTES
    if offset > size:
        raise ValueError(
            f"{path}: truncated in record {len(offsets) - 1}, the file ends {offset - size} bytes "
            "too early; fetch the file again"
        )
    return np.array(offsets, np.int64)


def read_record(file: BinaryIO, path: str, record: int, size: int | None = None) -> bytes | None:
    """The record at the file's position, checked; None at the end of the file.

    ``path`` and ``record`` only name the place in an error; ``size`` is the file's, in bytes,
    found out if it is None.

    Raises:
      ValueError: the record is cut short, or its crc32c does not match.
    """
    length = _read_header(file, path, record)
    if length is None:
        return None
    _check_length(file, path, record, length, size_of(file) if size is None else size)
    data = file.read(length)
    footer = file.read(_FOOTER.size)
    if len(data) < length or len(footer) < _FOOTER.size:
        raise ValueError(
            f"{path}: truncated in record {record} while it was read; fetch the file again"
        )
    if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
        raise ValueError(
            f"{path}: corrupt data of record {record} (crc32c mismatch); fetch the file again"
        )
    return data


def skip_records(file: BinaryIO, path: str, count: int, size: int, promised: int) -> None:
    """Goes past some records from the start of the file, by their headers alone.

    ``promised`` is how many there should be, for an error.

    Raises:
      ValueError: a header is cut or corrupt, or the file holds fewer records.
    """
    for record in range(count):
        length = _read_header(file, path, record)
        if length is None:
            raise ValueError(too_few(path, record, promised))
        _check_length(file, path, record, length, size)
        file.seek(length + _FOOTER.size, 1)


def read_records(file: BinaryIO, path: str, start: int, count: int) -> Iterator[bytes]:
    """Records ``start`` to ``start + count - 1``; the data before ``start`` is seeked over.

    Raises:
      ValueError: as `read_record`, or the file holds fewer records.
    """
    size = size_of(file)
    skip_records(file, path, start, size, start + count)
    for record in range(start, start + count):
        # Not kept in a variable: a reader that pauses must not hold the record.
        yield expected(read_record(file, path, record, size), path, record, start + count)


def expected(data: bytes | None, path: str, record: int, count: int) -> bytes:
    """The record, which has to be there."""
    if data is None:
        raise ValueError(too_few(path, record, count))
    return data
