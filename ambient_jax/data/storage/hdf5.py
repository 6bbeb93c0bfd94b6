"""HDF5 files, opened for one read at a time: threads, processes and copies share no handle.

To open a file takes 0.1 ms, a fraction of what an episode takes.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ambient_jax import _packages
from ambient_jax.data import files
from ambient_jax.data.files import first_line

_LEVELS = 8  # of groups in groups; a link may lead back to its own group


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """An open ``h5py.File``; what goes wrong inside names the file, as of ``files.check_file``."""
    h5py = _packages.need("h5py", f"{path} (HDF5)", "formats")
    files.check_file(path)
    try:
        with files.retried(lambda: _open(h5py, path)) as file:
            yield file
    except MemoryError as error:
        raise files.unavailable(error, path) from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:  # as h5py raises
        if isinstance(error, ValueError) and path in str(error):
            raise
        number = getattr(error, "errno", None)
        if number:
            raise files.unavailable(OSError(number, os.strerror(number)), path) from error
        raise ValueError(
            f"{path} is no HDF5 file, cut or damaged ({first_line(error)}): fetch it again"
        ) from error


def _open(h5py, path):
    try:
        return h5py.File(path, "r", locking=False)  # not all file systems have locks
    except OSError as error:
        if "locking flag" not in str(error):  # this process has it open, with locks
            raise
    return h5py.File(path, "r")


def arrays(group: Any, where: str, level: int = 0) -> dict[str, Any]:
    """The arrays [T, ...] of numbers and texts below a group, by path from it.

    ValueError, which names ``where``: an array lies in another file.
    """
    if level > _LEVELS:
        raise ValueError(f"{where} has groups of more than {_LEVELS} levels, or a circle of links")
    found: dict[str, Any] = {}
    for name in group:
        node = group[name]
        if hasattr(node, "keys"):
            below = arrays(node, where, level + 1)
            found |= {f"{name}/{path}": array for path, array in below.items()}
        elif getattr(node, "ndim", 0) and (node.dtype.kind in "biuf" or _is_text(node)):
            found[name] = _own(node, group, f"{where}: {name}")
    return found


def find(group: Any, path: str, where: str) -> Any:
    """The array at a path below a group, None if there is none; ValueError: it is elsewhere."""
    node = group.get(path)
    if node is None or not hasattr(node, "shape"):
        return None
    return _own(node, group, f"{where}: {path}")


def values(array: Any) -> np.ndarray:
    """All of an array: numbers as they are, texts as objects of bytes."""
    read = array[()]
    if read.dtype.kind not in "SO":
        return read
    out = np.empty(read.shape, object)
    out[...] = [bytes(text) for text in read] if read.ndim == 1 else read
    return out


def text(group: Any, name: str) -> str:
    """An attribute that is a text, "" if it is not there."""
    value = group.attrs.get(name, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _is_text(array):
    return array.ndim == 1 and (
        array.dtype.kind == "S"
        or array.dtype.metadata is not None
        and array.dtype.metadata.get("vlen") in (str, bytes)
    )


def _own(array, group, where):
    """The array, if its numbers lie in the file itself: it must not lead to others elsewhere."""
    h5py = _packages.need("h5py", where, "formats")
    file, how = h5py.h5f.get_name(group.id), array.id.get_create_plist()
    is_elsewhere = h5py.h5f.get_name(array.id) != file or how.get_external_count()
    if is_elsewhere or how.get_layout() == h5py.h5d.VIRTUAL:
        raise ValueError(f"{where} lies in another file, expected it in {file.decode()}")
    return array
