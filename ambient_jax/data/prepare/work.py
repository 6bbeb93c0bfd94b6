"""One part of one source: measured, and left as a file in the cache's folder ``parts``.

A part's file is named after the versions of the files that it measured, so that a rerun finds what
is done without reading data, and measures a file anew after it was mended.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import json
import os
import pickle
from concurrent import futures

import ml_collections
import numpy as np

from ambient_jax.data import marks, mixture, parts, statistics
from ambient_jax.data.files import first_line
from ambient_jax.data.marks import Mark
from ambient_jax.data.paths import CACHE_VARIABLE, AnyPath, cache_folder, replacing
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.data.source import Source

FOLDER = "parts"  # in the cache
DONE, FAILED = ".json.gz", ".failed"
_READERS = 16  # threads that look at files: they wait for storage
Task = tuple[str, int]  # source and number of its part


@dataclasses.dataclass(frozen=True)
class Work:
    """A pickled data section, and the cache's folder; other processes get both."""

    section: bytes
    cache: str

    @classmethod
    def of(cls, data: ml_collections.ConfigDict, cache: str | os.PathLike[str] | None) -> Work:
        return cls(pickle.dumps(data), os.fspath(cache_folder(cache)))

    def begin(self) -> None:
        """Makes this process use the cache's folder."""
        os.environ[CACHE_VARIABLE] = self.cache


@dataclasses.dataclass(frozen=True)
class Pieces:
    """An opened source and its parts.

    Attributes:
      source: the source.
      files: files of each part.
      folder: where the files of its parts are.
    """

    source: Source
    files: list[range]
    folder: AnyPath

    @functools.cached_property
    def paths(self) -> list[AnyPath]:
        """``path`` of all parts, as of the first time that it is asked for."""
        with futures.ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.path, range(len(self.files))))

    def path(self, index: int) -> AnyPath:
        """Returns where a part's statistics are once it is measured."""
        versions = [self.source.shard_version(file) for file in self.files[index]]
        digest = hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:16]
        return self.folder / f"{index:05d}-{digest}{DONE}"

    def failed(self, index: int) -> AnyPath:
        """Returns where the reason is if a part cannot be measured."""
        return self.folder / f"{index:05d}{FAILED}"


@functools.cache
def pieces(work: Work, name: str) -> Pieces:
    """Opens a source; raises ValueError or OSError if that is impossible."""
    work.begin()
    source = mixture.open_source(pickle.loads(work.section), name)
    settings = statistics.settings(source)
    if not settings:
        raise ValueError("the code of its transform is unknown: its statistics cannot be kept")
    text = json.dumps([os.fspath(source.directory), settings], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Pieces(source, parts.parts_of(source), cache_folder() / FOLDER / f"{name}-{digest}")


def measure(work: Work, task: Task) -> None:
    """Measures a part, unless that is done, and leaves its file or the reason of its failure."""
    name, index = task
    work.begin()
    opened = pieces(work, name)
    try:
        path = opened.path(index)
        if not path.exists():
            part = parts.measure(opened.source, opened.files[index])
            write(path, part, _marks(opened.source, opened.files[index]))
    except Exception as error:  # whatever it is, the other parts go on
        line = first_line(error)
        expected = isinstance(error, ValueError | OSError | ImportError)
        text = line if expected else f"{type(error).__name__}: {line}"
        with replacing(opened.failed(index)) as file:
            file.write(text.encode())


def write(path: AnyPath, part: parts.Part, found: list[Mark]) -> None:
    """Writes a part's statistics and the marks of its files."""
    stored = json.dumps(
        {"part": dataclasses.asdict(part), "marks": found}, default=np.ndarray.tolist
    )
    with replacing(path) as file:
        file.write(gzip.compress(stored.encode(), 1))


def read(path: AnyPath) -> tuple[parts.Part, list[Mark]]:
    """Returns what ``write`` wrote; raises ValueError if the file is damaged."""
    try:
        stored = json.loads(gzip.decompress(path.read_bytes()))
        return parts.Part.from_dict(stored["part"]), [Mark(*row) for row in stored["marks"]]
    except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): delete it") from error


def _marks(source, files):
    if not isinstance(source, RldsSource):
        return []
    return source.data.marks([source.data.shard_files[file] for file in files])


def are_known(source: Source) -> bool:
    """Whether the source's fingerprint is known without reading its data."""
    if not isinstance(source, RldsSource):
        return True
    return marks.are_known(source.directory, source.data.covered)


def keep_marks(source: Source, found: list[Mark]) -> None:
    """Keeps the marks of all files of a source in the cache; ``found`` are those known."""
    if isinstance(source, RldsSource):
        marks.write(source.directory, found)
        marks.write(source.directory, source.data.marks(source.data.covered))
