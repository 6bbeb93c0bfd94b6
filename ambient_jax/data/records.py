"""Records of a data set's shards by number, array_record or TFRecord, few files open at a time."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import re
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from absl import logging
from array_record.python import array_record_module

from ambient_jax.data import files, tfrecord


class _Shards:
    """Shards of one format. A pickled copy opens its own files.

    Args:
      paths: of the shards.
      counts: records of each by dataset_info.json.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        self._paths, self._counts = list(paths), list(counts)
        self._warned: set[int] = set()
        self._lock = threading.Lock()
        self._owner = object()
        weakref.finalize(self, files.close_parked, self._owner).atexit = False

    def __reduce__(self):
        return type(self), (self._paths, self._counts)

    def read(self, shard: int, record: int) -> bytes:
        """One record.

        Raises:
          FileNotFoundError: the shard is missing.
          ValueError: it is truncated or corrupt, or has fewer records.
          OSError: it cannot be read, which says nothing about the shard.
        """
        raise NotImplementedError

    def _too_few(self, shard: int, count: int) -> ValueError:
        return ValueError(
            f"{self._paths[shard]}: ends after {count} records, at least {self._counts[shard]} "
            "expected from dataset_info.json; fetch the file again"
        )

    def _warn_too_many(self, shard: int, count: int | str) -> None:
        if shard not in self._warned:
            self._warned.add(shard)
            logging.warning(
                "%s holds %s records, dataset_info.json says %d: the rest is not read; mend "
                "shardLengths there, or prepare the data set again",
                *(self._paths[shard], count, self._counts[shard]),
            )


class TFRecords(_Shards):
    """Records of TFRecord shards; the headers before a record are read once to know its place."""

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        super().__init__(paths, counts)
        self._offsets = [array.array("q", [0]) for _ in self._paths]  # bytes

    def read(self, shard: int, record: int) -> bytes:
        path, offsets = self._paths[shard], self._offsets[shard]
        with files.named(path), self._borrowed(shard, record) as file:
            file.seek(self._offset(file, shard, record))
            data = tfrecord.read_record(file, path, record)
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
                last = len(offsets) - 1
                file.seek(offsets[last])
                length = tfrecord.read_length(file, self._paths[shard], last)
                if length is None:
                    raise self._too_few(shard, last)
                offsets.append(offsets[last] + length + tfrecord.FRAMING_BYTES)
            return offsets[record]

    @contextlib.contextmanager
    def _borrowed(self, shard: int, record: int) -> Iterator[BinaryIO]:
        """The open file of a shard, for one thread at a time; closed after its last record."""
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
    try:
        reader = array_record_module.ArrayRecordReader(
            path, options="readahead_buffer_size:0,", file_reader_buffer_size=32768
        )
        if not reader.ok():
            reader.read([0])  # says why
    except Exception as error:
        raise _explained(error, path, record) from error
    return reader


def _explained(error: Exception, path: str, record: int) -> Exception:
    """The array_record library raises one type of error for everything; its text tells them apart.

    A failed system call reads "open() failed: Too many open files; opening <path>".
    """
    if isinstance(error, MemoryError):
        return files.unavailable(error, path)
    if match := re.search(r"\w\(\) failed: ([^;\[]*)", str(error)):
        why = match[1].strip()
        code = next((c for c in errno.errorcode if os.strerror(c) == why), None)
        if code == errno.ENOENT:
            return FileNotFoundError(f"{path} does not exist: fetch it again")
        return files.unavailable(OSError(code or errno.EIO, why), path)
    return ValueError(
        f"{path}: record {record} cannot be read, the file is truncated or corrupt "
        f"({files.first_line(error)}); fetch the file again"
    )
