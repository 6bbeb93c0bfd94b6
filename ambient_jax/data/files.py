"""Opens files of a data set: checks their size before reading, and keeps few of them open.

A ValueError or FileNotFoundError is a fault of the file, which a source may skip. Any other OSError
is a fault of the machine or the store (too many open files, no permission, a failing disk).
"""

import collections
import contextlib
import errno
import io
import json
import os
import resource
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import numpy as np

from ambient_jax.data.bucket import BucketPath, StoreError, fetched, is_bucket
from ambient_jax.data.paths import cache_folder, readable

JSON_BYTES = 16 << 20  # largest metadata file; that of 100 000 shards is smaller than 1 MiB
JSON_LEVELS = 100

_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_PATH_IS_WRONG = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)
_TYPES = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
# What NumPy and zipfile raise for a changed byte.
_DAMAGED_ARRAYS = (
    *(ValueError, KeyError, EOFError, RuntimeError, AttributeError, TypeError),
    *(zipfile.BadZipFile, zlib.error),
)
_T = TypeVar("_T")


def first_line(error: BaseException) -> str:
    """Returns an error's message in one line of at most 300 characters."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"{line} is missing" if isinstance(error, KeyError) else line


def check_file(path: str) -> None:
    """Raises FileNotFoundError or ValueError if a path is no file, OSError if it cannot tell.

    Call it before a file is opened: a FIFO blocks, and a device has no end.
    """
    if "://" in path:  # a store has only files
        return
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        link = " (a symbolic link that leads nowhere)" if os.path.islink(path) else ""
        raise FileNotFoundError(f"{path} does not exist{link}: fetch it again") from error
    except OSError as error:
        if error.errno in _PATH_IS_WRONG:
            raise ValueError(f"{path} is no file ({error.strerror}): fetch it again") from error
        raise unavailable(error, path) from error
    if not stat.S_ISREG(status.st_mode):
        name = _TYPES.get(stat.S_IFMT(status.st_mode), "special file")
        raise ValueError(f"{path} is a {name}, expected a file: fetch it again")


def open_file(path: str) -> BinaryIO:
    """Opens a file to read; raises the errors of ``check_file``."""
    check_file(path)
    try:
        return retried(lambda: readable(path).open("rb"))  # type: ignore[return-value]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unavailable(error, path) from error


def local(path: str) -> str:
    """Returns the path of a file for a reader that knows no buckets: a copy of a whole object in
    ``$AMBIENT_JAX_CACHE/objects`` (by default, and if that is in a bucket,
    ``~/.cache/ambient_jax/objects``)."""
    if not is_bucket(path):
        return path
    return os.fspath(fetched(BucketPath.of(path), cache_folder(local=True) / "objects"))


def unavailable(error: OSError | MemoryError, path: str) -> OSError:
    """Returns an error of the machine or store with one line that names the file and a remedy."""
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if isinstance(error, StoreError):
        return error
    why = error.strerror or first_line(error)
    message = f"{path} cannot be read ({why}): the file itself may be sound, mend that and go on"
    if error.errno in _TOO_MANY:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        message = (
            f"{path} cannot be opened: {error.strerror} (this process may have {limit}, see "
            "'ulimit -n'); raise the limit with 'ulimit -n', the file itself may be sound"
        )
    restated = type(OSError(error.errno, ""))(message)  # PermissionError of EACCES, ...
    restated.errno = error.errno
    return restated


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Adds the file's name to an error of the system."""
    try:
        yield
    except OSError as error:
        if error.strerror is None or isinstance(error, FileNotFoundError):
            raise
        raise unavailable(error, path) from error


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads an .npz file whole; raises ValueError if it is damaged, OSError of the machine."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (*_DAMAGED_ARRAYS, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"{path} is damaged, no .npz file: {first_line(error)}") from error


def read_json(path: str) -> dict[str, Any]:
    """Reads a JSON object of bounded size and depth; raises ValueError for anything else."""
    with named(path), open_file(path) as file:
        text = file.read(JSON_BYTES + 1)
    if len(text) > JSON_BYTES:
        raise ValueError(
            f"{path} has more than {JSON_BYTES >> 20} MiB, expected metadata: fetch it again"
        )
    why = ""
    try:
        content = json.loads(text)
    except RecursionError:
        why = " (nested too deeply)"
    except ValueError as error:
        why = f", it is no JSON ({first_line(error)})"
    if not why and not isinstance(content, dict):
        why = ", it is no JSON object {...}"
    level: list[Any] = [] if why else [content]
    for _ in range(JSON_LEVELS):
        nodes = (n.values() if isinstance(n, dict) else n for n in level)
        level = [inner for node in nodes for inner in node if isinstance(inner, dict | list)]
    if level:
        why = f", it is nested more than {JSON_LEVELS} levels deep"
    if why:
        raise ValueError(f"{path} cannot be read{why}: fetch it again")
    return content


# Open files and readers that are not in use, by (owner, number), the least recently used first.
_PARKED: collections.OrderedDict[tuple[object, int], Any] = collections.OrderedDict()
_LOCK = threading.RLock()


def retried(open_it: Callable[[], _T]) -> _T:
    """Calls a function that opens a file; closes parked files and retries if too many are open."""
    try:
        return open_it()
    except OSError as error:
        if error.errno not in _TOO_MANY or not close_parked():
            raise
    return open_it()


def park(key: tuple[object, int], handle: Any) -> None:
    """Keeps a file open for its next use, or until too many are open."""
    with _LOCK:
        _let_go(_PARKED.pop(key, None))
        _PARKED[key] = handle
        while len(_PARKED) > _room():
            _let_go(_PARKED.popitem(last=False)[1])


def take_parked(key: tuple[object, int]) -> Any:
    """Hands the handle parked under a key to the caller; None if there is none."""
    with _LOCK:
        return _PARKED.pop(key, None)


def close_parked(owner: object = None) -> bool:
    """Closes the parked files of one owner, or all; returns False if there are none."""
    with _LOCK:
        keys = [key for key in list(_PARKED) if owner is None or key[0] is owner]
        for key in keys:
            _let_go(_PARKED.pop(key, None))
    return bool(keys)


def _room() -> int:
    """Returns half of the files that this process may open; it needs the others elsewhere."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if limit == resource.RLIM_INFINITY else max(1, min(4096, limit // 2))


def _let_go(handle: Any) -> None:
    # Another thread may use a reader of array_record, which closes with its last reference.
    if isinstance(handle, io.IOBase):
        handle.close()
