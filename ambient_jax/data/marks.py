"""Hashes of a data set's files, kept in the cache: a start reads no file that is as it was.

A file is as it was if its size and the times of its last change are the same, or in a bucket its
size and generation. ``prepare`` writes the hashes, one JSON file for each folder of data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from typing import NamedTuple

from absl import logging

from ambient_jax.data.bucket import BucketPath, is_bucket
from ambient_jax.data.paths import AnyPath, cache_folder, write_text

_READERS = 8  # threads that hash files: they wait for storage
_FEW = 2  # files whose versions are asked for one by one
_FOLDER = "marks"  # in the cache


class Mark(NamedTuple):
    """What is known of a file: its path, what changes with its content, and its hash."""

    path: str
    version: str
    digest: str


def version(path: str) -> str:
    """Returns a text that changes with a file, found without reading it; "missing" for none."""
    if is_bucket(path):
        return BucketPath.of(path).version() or "missing"
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    # The second time is that of any change, which no program can set back.
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def versions(paths: Sequence[str]) -> list[str]:
    """Returns the ``version`` of each file; one listing tells those of a bucket's folder."""
    listed: dict[str, str] = {}
    if len(paths) > _FEW:
        for folder in {os.path.dirname(path) for path in paths if is_bucket(path)}:
            found = BucketPath.of(folder).versions()
            listed |= {f"{BucketPath.of(folder) / name}": text for name, text in found.items()}
    one = lambda path: listed.get(path) or version(path)  # noqa: E731
    with futures.ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(one, paths))


def of(directory: str, paths: Sequence[str], digest: Callable[[str], str]) -> list[Mark]:
    """Returns the marks of files of one data set: from the cache, or by hashing with ``digest``."""
    known = read(directory)

    def one(path, now):
        old = known.get(path)
        same = old is not None and old.version == now != "missing"
        return Mark(path, now, old.digest if same else digest(path))

    with futures.ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(one, paths, versions(paths)))


def are_known(directory: str, paths: Sequence[str]) -> bool:
    """Whether the cache has the hashes of all these files as they are now."""
    known = read(directory)
    if any(path not in known for path in paths):
        return False
    return all(known[p].version == v for p, v in zip(paths, versions(paths), strict=True))


def read(directory: str) -> dict[str, Mark]:
    """Returns the marks of a data set's folder in the cache, by path."""
    path = _path(directory)
    if not path.exists():
        return {}
    try:
        marks = [Mark(*map(str, row)) for row in json.loads(path.read_text())["files"]]
        return {mark.path: mark for mark in marks}
    except (ValueError, KeyError, TypeError, OSError) as error:
        logging.warning("%s cannot be used (%s): the data are hashed anew", path, error)
    return {}


def write(directory: str, marks: Iterable[Mark]) -> None:
    """Adds marks to those of a data set's folder in the cache."""
    path = _path(directory)
    merged = read(directory) | {mark.path: mark for mark in marks if mark.version != "missing"}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"directory": directory, "files": list(merged.values())}))


def _path(directory: str) -> AnyPath:
    digest = hashlib.sha256(directory.encode()).hexdigest()[:16]
    name = "-".join(directory.rstrip("/").split("/")[-2:])
    return cache_folder() / _FOLDER / f"{name}-{digest}.json"
