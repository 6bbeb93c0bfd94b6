"""Files of a data set: bounded before they are read, and few of them open at a time.

A ValueError or FileNotFoundError is about the file, which a source may leave out. Any other OSError
is about the machine or the store (too many open files, no permission, a disk that fails): it says
nothing about the file, so nothing is left out because of it.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import io
import json
import os
import re
import resource
import stat
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from absl import logging
from array_record.python import array_record_module
from etils import epath

JSON_BYTES = 16 << 20  # of a metadata file; that of a data set of 100 000 shards has under 1 MiB
JSON_LEVELS = 100

_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_PATH_IS_WRONG = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)
_KINDS = (
    (stat.S_ISDIR, "directory"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 300 characters."""
    told = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"{told} is missing" if isinstance(error, KeyError) else told


def check_file(path: str) -> int | None:
    """Size in bytes of a local file; None of one in a store, which has nothing but files.

    It comes before every opening: a FIFO blocks who opens it, a device has no end.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: what is there is no file.
      OSError: the machine does not tell.
    """
    if "://" in path:
        return None
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        link = " (a symbolic link that leads nowhere)" if os.path.islink(path) else ""
        raise FileNotFoundError(f"{path} does not exist{link}: fetch it again") from error
    except OSError as error:
        if error.errno in _PATH_IS_WRONG:
            raise ValueError(f"{path} is no file ({error.strerror}): fetch it again") from error
        raise unavailable(error, path) from error
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "special file")
        raise ValueError(f"{path} is a {kind}, expected a file: fetch it again")
    return found.st_size


def open_file(path: str) -> BinaryIO:
    """Opens a file to be read.

    Raises:
      FileNotFoundError, ValueError: see ``check_file``.
      OSError: it cannot be opened, which says nothing about the file; see ``unavailable``.
    """
    check_file(path)
    try:
        try:
            return epath.Path(path).open("rb")
        except OSError as error:
            if error.errno not in _TOO_MANY or not _close_parked():
                raise
        return epath.Path(path).open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unavailable(error, path) from error


def unavailable(error: OSError | MemoryError, path: str) -> OSError:
    """The error of a machine or store as one line that names the file and says what to do."""
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if error.errno in _TOO_MANY:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        told = (
            f"{path} cannot be opened: {error.strerror} (this process may have {limit}, see "
            "'ulimit -n'); raise the limit with 'ulimit -n', the file itself may be sound"
        )
    else:
        why = error.strerror or first_line(error)
        told = f"{path} cannot be read ({why}): the file itself may be sound, mend that and go on"
    found = type(OSError(error.errno, ""))(told)
    found.errno = error.errno
    return found


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """An error of the machine in here names the file, which that of a read alone does not."""
    try:
        yield
    except OSError as error:
        if error.strerror is None or isinstance(error, FileNotFoundError):
            raise
        raise unavailable(error, path) from error


def read_json(path: str) -> dict[str, Any]:
    """A metadata file, which is one JSON object of bounded size and depth.

    Raises:
      ValueError: it is something else.
      OSError: it cannot be read.
    """
    with named(path), open_file(path) as file:
        text = file.read(JSON_BYTES + 1)
    if len(text) > JSON_BYTES:
        raise ValueError(
            f"{path} has more than {JSON_BYTES >> 20} MiB, expected metadata: fetch it again"
        )
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} cannot be read (nested too deeply): fetch it again") from error
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read, it is no JSON ({first_line(error)}): fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} cannot be read, it is no JSON object {{...}}: fetch it again")
    level = [content]
    for _ in range(JSON_LEVELS):
        nodes = (n.values() if isinstance(n, dict) else n for n in level)
        level = [inner for node in nodes for inner in node if isinstance(inner, dict | list)]
    if level:
        raise ValueError(
            f"{path} cannot be read, it is nested more than {JSON_LEVELS} levels deep: fetch it "
            "again"
        )
    return content


def too_few(path: str, found: int, expected: int) -> str:
    return (
        f"{path}: ends after {found} records, at least {expected} expected from dataset_info.json; "
        "fetch the file again"
    )


def warn_too_many(path: str, found: int | str, expected: int) -> None:
    """Says that a shard goes on where dataset_info.json ends."""
    logging.warning(
        "%s holds %s records, dataset_info.json says %d: the rest is not read; mend shardLengths "
        "there, or prepare the data set again",
        path,
        found,
        expected,
    )


# What this process has open and may close, the least recently used first.
_OPEN: collections.OrderedDict[tuple[object, int], Any] = collections.OrderedDict()
_LOCK = threading.RLock()


def _room() -> int:
    """Half of the files that this process may open; the others are for what else it does."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if limit == resource.RLIM_INFINITY else max(1, min(4096, limit // 2))


def _park(key: tuple[object, int], handle: Any) -> None:
    with _LOCK:
        _OPEN[key] = handle
        while len(_OPEN) > _room():
            _let_go(_OPEN.popitem(last=False)[1])


def _let_go(handle: Any) -> None:
    # A reader of array_record may be at work in another thread: it closes when that lets go of it.
    if isinstance(handle, io.IOBase):
        handle.close()


def _close_parked(mark: object = None) -> bool:
    """Closes what is parked under one mark, or all; False if there is nothing."""
    with _LOCK:
        keys = [key for key in list(_OPEN) if mark is None or key[0] is mark]
        for key in keys:
            _let_go(_OPEN.pop(key, None))
    return bool(keys)


class ParkedFile:
    """A file to be read piece by piece, ``with parked as file``, by one thread at a time.

    Between the pieces it stays open only while there is room for it: many can be begun at once.
    """

    def __init__(self, path: str):
        self._path, self._at, self._key = path, 0, (object(), 0)
        weakref.finalize(self, _close_parked, self._key[0]).atexit = False

    def __enter__(self) -> BinaryIO:
        with _LOCK:
            self._file = _OPEN.pop(self._key, None)
        if self._file is None:
            self._file = open_file(self._path)
            self._file.seek(self._at)
        return self._file

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        file, self._file = self._file, None
        if kind is not None:
            file.close()
            return
        self._at = file.tell()
        _park(self._key, file)

    def close(self) -> None:
        _close_parked(self._key[0])


class ArrayRecords:
    """Records of array_record shards by number; opens as many of them at a time as it may.

    Args:
      paths: of the shards.
      counts: records that each has by dataset_info.json.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        self._paths, self._counts = list(paths), list(counts)
        self._told: set[int] = set()
        self._mark = object()
        weakref.finalize(self, _close_parked, self._mark).atexit = False

    def __reduce__(self):  # a copy opens its own files
        return ArrayRecords, (self._paths, self._counts)

    def read(self, shard: int, record: int) -> bytes:
        """One record.

        Raises:
          FileNotFoundError: the shard is missing.
          ValueError: it is truncated or corrupt.
          OSError: it cannot be read, which says nothing about the shard.
        """
        path = self._paths[shard]
        reader = self._reader(shard, record)
        if record >= (found := reader.num_records()):
            raise ValueError(too_few(path, found, self._counts[shard]))
        try:
            return reader.read([record])[0]
        except Exception as error:
            raise _explained(error, path, record) from error

    def _reader(self, shard: int, record: int) -> Any:
        key = (self._mark, shard)
        with _LOCK:
            if (reader := _OPEN.get(key)) is not None:
                _OPEN.move_to_end(key)
                return reader
        path = self._paths[shard]
        try:
            reader = _open_reader(path, record)
        except OSError as error:
            if error.errno not in _TOO_MANY or not _close_parked():
                raise
            reader = _open_reader(path, record)
        found, expected = reader.num_records(), self._counts[shard]
        if found > expected and shard not in self._told:
            self._told.add(shard)
            warn_too_many(path, found, expected)
        _park(key, reader)
        return reader


def _open_reader(path: str, record: int) -> Any:
    check_file(path)
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
    """An error of the array_record library, which are all of one type and differ in their text."""
    if isinstance(error, MemoryError):
        return unavailable(error, path)
    # Of what failed in the system it says "open() failed: Too many open files; opening <path>".
    if found := re.search(r"\w\(\) failed: ([^;\[]*)", str(error)):
        why = found[1].strip()
        code = next((c for c in errno.errorcode if os.strerror(c) == why), None)
        if code == errno.ENOENT:
            return FileNotFoundError(f"{path} does not exist: fetch it again")
        return unavailable(OSError(code or errno.EIO, why), path)
    return ValueError(
        f"{path}: record {record} cannot be read, the file is truncated or corrupt "
        f"({first_line(error)}); fetch the file again"
    )
