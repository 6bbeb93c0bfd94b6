"""Reads records of array_record and TFRecord shards by number; writes and digests them.

A TFRecord (https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details) is its
length, the masked crc32c of the length, its data, and their masked crc32c.
"""

import array
import contextlib
import errno
import hashlib
import os
import re
import struct
import threading
import weakref
from collections.abc import Iterator, MutableSequence, Sequence
from typing import Any, BinaryIO

import google_crc32c
from absl import logging
from array_record.python import array_record_module

from ambient_jax.data import files, paths

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAMING_BYTES = _HEADER.size + _FOOTER.size
_RECORD_BYTES = (1 << 31) - 1  # largest protocol buffer
# Riegeli: each block begins with a header, also in the middle of a chunk.
_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_CHUNK = struct.Struct("<QQQBBBBBBBBQ")  # hash, size, hash of the data, type, count, decoded size
_TYPES = b"smprt"
_PIECE = 1 << 22


class _Shards:
    """Shards of one format, with their counts in dataset_info.json. A copy opens its own files."""

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        self._paths, self._counts = list(paths), list(counts)
        self._warned: set[int] = set()
        self._lock = threading.Lock()
        self._owner = object()
        weakref.finalize(self, files.close_parked, self._owner).atexit = False

    def __reduce__(self):
        return type(self), (self._paths, self._counts)

    def read(self, shard: int, record: int) -> bytes:
        """Reads one record.

        Raises FileNotFoundError if the shard is missing, ValueError if it is damaged or too short.
        """
        raise NotImplementedError

    def _too_few(self, shard: int, count: int) -> ValueError:
        expected = f"at least {self._counts[shard]} expected from dataset_info.json"
        return _damaged(self._paths[shard], f"ends after {count} records, {expected}")

    def _warn_too_many(self, shard: int, count: int | str) -> None:
        if shard not in self._warned:
            self._warned.add(shard)
            logging.warning(
                "%s holds %s records, dataset_info.json says %d: the rest is not read; mend "
                "shardLengths there, or prepare the data set again",
                *(self._paths[shard], count, self._counts[shard]),
            )


class TFRecords(_Shards):
    """Records of TFRecord shards; reads the headers before a record once."""

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        super().__init__(paths, counts)
        self._offsets = [array.array("q", [0]) for _ in self._paths]  # bytes

    def read(self, shard: int, record: int) -> bytes:
        path, offsets = self._paths[shard], self._offsets[shard]
        with files.named(path), self._borrowed(shard, record) as file:
            file.seek(self._offset(file, shard, record))
            data = read_record(file, path, record)
            if data is None:
                raise self._too_few(shard, record)
            with self._lock:
                if len(offsets) == record + 1:
                    offsets.append(file.tell())
            if record + 1 == self._counts[shard] and file.read(1):
                self._warn_too_many(shard, "more")
        return data

    def _offset(self, file: BinaryIO, shard: int, record: int) -> int:
        with self._lock:
            offsets = self._offsets[shard]
            while len(offsets) <= record:
                if not _append_offset(file, self._paths[shard], offsets):
                    raise self._too_few(shard, len(offsets) - 1)
            return offsets[record]

    @contextlib.contextmanager
    def _borrowed(self, shard: int, record: int) -> Iterator[BinaryIO]:
        """Lends the open file of a shard to one thread; closes it after its last record."""
        key = (self._owner, shard)
        file = files.take_parked(key) or files.open_file(self._paths[shard])
        try:
            yield file
        except BaseException:
            file.close()
            raise
        if record + 1 < self._counts[shard]:
            files.park(key, file)
        else:
            file.close()


class ArrayRecords(_Shards):
    """Records of array_record shards; a shard's reader serves all threads."""

    def read(self, shard: int, record: int) -> bytes:
        path = self._paths[shard]
        reader = self._reader(shard, record)
        if record >= reader.num_records():
            raise self._too_few(shard, reader.num_records())
        try:
            return reader.read([record])[0]
        except Exception as error:
            raise _explained(error, path, record) from error

    def _reader(self, shard: int, record: int) -> Any:
        key = (self._owner, shard)
        if (reader := files.take_parked(key)) is None:
            path = self._paths[shard]
            reader = files.retried(lambda: _open_reader(path, record))
            if (count := reader.num_records()) > self._counts[shard]:
                self._warn_too_many(shard, count)
        files.park(key, reader)
        return reader


def _open_reader(path: str, record: int) -> Any:
    files.check_file(path)
    copy = files.local(path)
    try:
        reader = array_record_module.ArrayRecordReader(
            copy, options="readahead_buffer_size:0,", file_reader_buffer_size=32768
        )
        if not reader.ok():
            reader.read([0])  # says why
    except Exception as error:
        raise _explained(error, path, record) from error
    return reader


def _explained(error: Exception, path: str, record: int) -> Exception:
    """Returns an error of the right type; array_record's errors differ only in their text."""
    if isinstance(error, MemoryError):
        return files.unavailable(error, path)
    if failed := _of_system(error):
        if failed.errno == errno.ENOENT:
            return FileNotFoundError(f"{path} does not exist: fetch it again")
        return files.unavailable(failed, path)
    why = f"the file is truncated or corrupt ({files.first_line(error)})"
    return _damaged(path, f"record {record} cannot be read, {why}")


def _of_system(error: Exception) -> OSError | None:
    """Returns the failed system call that array_record tells of, as in "open() failed: Too many
    open files; opening <path>"."""
    if not (match := re.search(r"\w\(\) failed: ([^;\[]*)", str(error))):
        return None
    why = match[1].strip()
    code = next((c for c in errno.errorcode if os.strerror(c) == why), None)
    return OSError(code or errno.EIO, why)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns an error of the system while a file is written into an OSError that names it."""
    try:
        yield
    except Exception as error:
        failed = error if isinstance(error, OSError) else _of_system(error)
        if failed is None:
            raise
        told = f"{path} cannot be written ({failed.strerror}): mend that, then write again"
        restated = type(failed)(told)
        restated.errno = failed.errno
        raise restated from error


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC-32C as TFRecord stores it: rotated and offset."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class TFRecordWriter:
    """Appends records to a new file."""

    def __init__(self, path: str):
        self._file = open(path, "xb")

    def write(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        with writing(self._file.name):
            for data in (length, record):
                self._file.write(data)
                self._file.write(_FOOTER.pack(masked_crc32c(data)))

    def close(self) -> None:
        with writing(self._file.name):
            self._file.close()


class ArrayRecordWriter:
    """The same for array_record."""

    def __init__(self, path: str):
        self._path = path
        # One record per chunk, for random access; TFDS writes the same.
        self._writer = array_record_module.ArrayRecordWriter(path, "group_size:1")

    def write(self, record: bytes) -> None:
        with writing(self._path):
            self._writer.write(record)

    def close(self) -> None:
        with writing(self._path):
            self._writer.close()


def read_length(file: BinaryIO, path: str, record: int) -> int | None:
    """Reads the length of the record at the file's position; None at the end of the file.

    Raises ValueError if the header is cut or corrupt, or the record does not fit into the file.
    """
    header = file.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise _damaged(path, f"truncated in the header of record {record}")
    length, crc = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != crc:
        raise _damaged(path, f"corrupt length of record {record} (crc32c mismatch)")
    position = file.tell()
    remaining = file.seek(0, 2) - position
    file.seek(position)
    if length + _FOOTER.size > remaining:
        count = f"{min(remaining, length)} of {length} data bytes are there"
        raise _damaged(path, f"truncated in record {record}, {count}")
    if length > _RECORD_BYTES:
        raise ValueError(
            f"{path}: record {record} has {length} bytes, expected a tf.train.Example, which has "
            "less than 2 GiB"
        )
    return length


def read_record(file: BinaryIO, path: str, record: int) -> bytes | None:
    """Reads and checks the record at the file's position; None at the end of the file."""
    length = read_length(file, path, record)
    if length is None:
        return None
    data, footer = file.read(length), file.read(_FOOTER.size)
    if len(footer) < _FOOTER.size:
        raise _damaged(path, f"truncated in record {record} while it was read")
    if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
        raise _damaged(path, f"corrupt data of record {record} (crc32c mismatch)")
    return data


def _damaged(path: str, problem: str) -> ValueError:
    return ValueError(f"{path}: {problem}; fetch the file again")


def record_offsets(file: BinaryIO, path: str) -> list[int]:
    """Reads the byte offset of every record from the headers; raises as ``read_length``."""
    offsets = [0]
    while _append_offset(file, path, offsets):
        pass
    return offsets[:-1]


def _append_offset(file: BinaryIO, path: str, offsets: MutableSequence[int]) -> bool:
    """Appends the end of the last record in ``offsets``; returns False at the end of the file."""
    file.seek(offsets[-1])
    length = read_length(file, path, len(offsets) - 1)
    if length is not None:
        offsets.append(offsets[-1] + length + _FRAMING_BYTES)
    return length is not None


def digest(path: str, file_format: str) -> str:
    """Returns a digest of a shard's size and content; "missing" if there is no shard.

    It reads each record's checksum (TFRecord), or each Riegeli chunk's header with a hash
    (array_record). If the structure is damaged, it reads every byte.
    """
    if not paths.readable(path).is_file():  # opening a FIFO would block
        return "missing"
    update = _digest_tfrecord if file_format == "tfrecord" else _digest_array_record
    with files.open_file(path) as file:
        size = file.seek(0, 2)
        mark = hashlib.sha256(str(size).encode())
        try:
            update(mark, file, path, size)
        except ValueError as error:
            logging.info("%s is read as a whole for its fingerprint (%s)", path, error)
            mark = hashlib.sha256(f"{size} whole".encode())
            file.seek(0)
            while piece := file.read(_PIECE):
                mark.update(piece)
    return mark.hexdigest()


def _digest_tfrecord(mark, file: BinaryIO, path: str, size: int) -> None:
    offsets = record_offsets(file, path)
    for start, end in zip(offsets, [*offsets[1:], size], strict=True):
        file.seek(end - 4)
        mark.update(f"{end - start}".encode() + file.read(4))


# https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md
def _digest_array_record(mark, file: BinaryIO, path: str, size: int) -> None:
    begin = 0
    while begin < size:
        # At the start of a block, its header comes before that of the chunk.
        header = _without_block_headers(file, begin, _CHUNK.size)
        if len(header) < _CHUNK.size:
            raise ValueError("it ends inside of a chunk's header")
        _, data_size, _, chunk_type, *count, _ = _CHUNK.unpack(header)
        if chunk_type not in _TYPES:
            raise ValueError(f"no chunk begins at byte {begin}")
        mark.update(header)
        number = sum(byte << 8 * i for i, byte in enumerate(count))
        begin = max(_after(begin, _CHUNK.size + data_size), _boundary(begin + number))
    if begin != size:
        raise ValueError(f"its last chunk ends at byte {begin} of {size}")


def _without_block_headers(file: BinaryIO, begin: int, length: int) -> bytes:
    data, position, piece = b"", begin, b"more"
    while len(data) < length and piece:
        position += max(0, _BLOCK_HEADER - position % _BLOCK)
        file.seek(position)
        piece = file.read(min(length - len(data), _BLOCK - position % _BLOCK))
        data, position = data + piece, position + len(piece)
    return data


def _after(begin: int, length: int) -> int:
    """Returns where a chunk's bytes end, including block headers."""
    usable = _BLOCK - _BLOCK_HEADER
    blocks = (length + (begin + usable - 1) % _BLOCK) // usable
    return begin + length + blocks * _BLOCK_HEADER


def _boundary(position: int) -> int:
    """Returns the next position where a chunk may begin."""
    within = position % _BLOCK
    return position + (_BLOCK_HEADER - within if 0 < within < _BLOCK_HEADER else 0)
