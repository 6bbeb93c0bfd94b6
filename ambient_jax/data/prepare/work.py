"""One part of one source: measured, and left as a file in the cache's folder ``parts``."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import json
import os
import pickle
import zlib

import ml_collections
import numpy as np

from ambient_jax.data import marks, mixture, parts, statistics
from ambient_jax.data.files import first_line
from ambient_jax.data.marks import Mark
from ambient_jax.data.paths import CACHE_VARIABLE, AnyPath, cache_folder, replacing
from ambient_jax.data.prepare.engine import Task
from ambient_jax.data.prepare.shards import Pieces
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.data.source import Source

FOLDER = "parts"  # in the cache
DONE = ".json.gz"


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

    @property
    def data(self) -> ml_collections.ConfigDict:
        return pickle.loads(self.section)


@functools.cache
def pieces(work: Work, name: str) -> Pieces:
    """Opens a source; raises ValueError or OSError if that is impossible."""
    work.begin()
    source = mixture.open_source(work.data, name)
    settings = statistics.settings(source)
    if not settings:
        raise ValueError("what its transform does is unknown: its statistics cannot be kept")
    text = json.dumps([os.fspath(source.directory), settings], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Pieces.of(source, cache_folder() / FOLDER / f"{name}-{digest}", DONE)


def measure(work: Work, task: Task) -> None:
    """Measures a part, unless that is done, and leaves its file or the reason of its failure."""
    work.begin()
    name, index = task
    opened = pieces(work, name)

    def one(path):
        files = opened.files[index]
        part = parts.measure(opened.source, files)
        write(path, part, _marks(opened.source, files))

    opened.make(index, one)


def write(path: AnyPath, part: parts.Part, found: list[Mark]) -> None:
    """Writes a part's statistics and the marks of its files."""
    stored = json.dumps(
        {"part": dataclasses.asdict(part), "marks": found}, default=np.ndarray.tolist
    )
    with replacing(path) as file:
        file.write(gzip.compress(stored.encode(), 1))


def read(path: AnyPath) -> tuple[parts.Part, list[Mark]]:
    """Returns what ``write`` wrote; deletes a file that is damaged, and raises ValueError."""
    try:
        stored = json.loads(gzip.decompress(path.read_bytes()))
        return parts.Part.from_dict(stored["part"]), [Mark(*row) for row in stored["marks"]]
    except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        path.unlink(missing_ok=True)
        raise ValueError(
            f"{path} was damaged ({first_line(error)}) and is deleted: the same command makes it "
            "anew"
        ) from error


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
