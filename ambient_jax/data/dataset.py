"""The interface of data sets on disk, and the base class of those that are not RLDS."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax import _checks
from ambient_jax.data import marks
from ambient_jax.data.chunk import LAST_STEPS
from ambient_jax.data.example_proto import Episode
from ambient_jax.data.features import leaves, nest, select
from ambient_jax.data.files import first_line, open_file, read_json
from ambient_jax.data.metadata import MissingShardError
from ambient_jax.data.paths import readable

_BLOCK = 1 << 16  # bytes of each sample of a large file
_WHOLE = 1 << 28  # bytes of a file up to which all of it is hashed
_LAST = "steps/is_last"
_MOST_ID = (1 << 31) - 1  # batches have ids as int32
_SLICE = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<which>[^\[\]]*)\])?")


NOTES = "metadata.json"  # beside a data set's files, where TFDS, too, keeps more about it
LAST_ACTION = "last_action"  # a note: "real" or "filler"


class Dataset(Protocol):
    """Episodes of one split: random access by position, streams by file.

    Attributes:
      name, version, split: names of the data set, its version and its split.
      directory: its folder.
      features: TFDS feature connectors, nested as an episode is.
      last_step: "drop" if a last step with ``is_last`` is dropped, else "keep".
      hz: control rate, None if the format does not state it.
      in_order: whether files are read from front to back, rather than by position.
      ends_in_filler: whether the format defines the action of a step with ``is_last`` as a filler.
      shard_files, shard_lengths: each file and its episodes, in the order of positions.
      episode_ids: stable id of each episode, [N] int64.
    """

    name: str
    version: str
    split: str
    directory: str
    features: tfds.features.FeaturesDict
    last_step: str
    hz: float | None = None
    in_order: bool = False
    ends_in_filler: bool = False
    shard_files: Sequence[str]
    shard_lengths: Sequence[int]
    episode_ids: np.ndarray

    @property
    def fingerprint(self) -> str:
        """Hash of the data that are read; a copy of the data has the same."""
        ...

    @property
    def covered(self) -> Sequence[str]:
        """Files that the fingerprint covers, beside metadata."""
        ...

    def marks(self, paths: Sequence[str]) -> list[marks.Mark]:
        """Returns the marks of some of these files."""
        ...

    def shard_version(self, shard_index: int) -> str:
        """Returns a text that changes with the data of one file, found without reading it."""
        ...

    def __len__(self) -> int:
        """Number of episodes."""
        ...

    def __getitem__(self, position: int) -> Episode:
        """Returns the episode at a position, whose id is ``episode_ids[position]``."""
        ...

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, Episode]]:
        """Yields the episodes of a file in order as (id, episode), from number ``start`` on."""
        ...

    def stated(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns "min", "max", "mean" and "std" in its files by feature, as "steps/action"."""
        return {}

    def dimensions(self) -> Mapping[str, Sequence[str]]:
        """Returns the names of a feature's numbers in its files, by feature."""
        return {}


@dataclasses.dataclass(frozen=True)
class Opened:
    """Metadata of a folder; ``FolderDataset`` reads the episodes.

    Attributes:
      name, version: name and version of the data set.
      features: features of an episode.
      files: the file with the numbers of each episode of the split.
      ids: ids of the split's episodes, [N] int64; episodes of one file follow each other.
      marks: further files that the fingerprint covers.
      hz: control rate in Hz, None if unknown.
    """

    name: str
    version: str
    features: tfds.features.FeaturesDict
    files: Sequence[str]
    ids: np.ndarray
    marks: Sequence[str] = ()
    hz: float | None = None


class FolderDataset(Dataset):
    """A data set in a folder of a format other than RLDS. A subclass supplies ``_episode``."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        opened: Opened,
        split: str,
        required: Iterable[str] = (),
        *,
        keys: Iterable[str] | None = None,
        last_step: str = "",
    ):
        self.directory, self.split = os.fspath(directory), split
        self.name, self.version, self.hz = opened.name, opened.version, opened.hz
        self.features = opened.features
        self.last_step = last_step or ("drop" if self.ends_in_filler else "keep")
        _checks.one_of("last_step", self.last_step, LAST_STEPS)
        fields = leaves(opened.features)
        select(fields, required, self.directory)
        wanted = [*(fields if keys is None else select(fields, keys, self.directory))]
        if self.last_step == "drop" and _LAST in fields:  # read whatever ``keys`` are
            wanted.append(_LAST)
        self.keys = tuple(dict.fromkeys(wanted))
        if not len(opened.ids):
            raise ValueError(f"split {split!r} of {self.directory} holds no episode")
        if (most := max(opened.ids)) > _MOST_ID:
            raise ValueError(
                f"{self.directory} has an episode of the number {most}, expected at most {_MOST_ID}"
            )
        self.episode_ids = np.asarray(opened.ids, np.int64)
        starts = [i for i, f in enumerate(opened.files) if not i or f != opened.files[i - 1]]
        self.shard_files = [opened.files[i] for i in starts]
        self._ends = [*starts[1:], len(opened.files)]
        self.shard_lengths = np.diff([0, *self._ends]).tolist()
        self._marks = opened.marks

    def _episode(self, position: int) -> Mapping[str, Any]:
        """Returns fields [T, ...] of the episode at a position, by path from the episode's root.

        ``self.keys`` are needed; others are dropped. Raises ValueError for damaged data.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name} {self.version}, {self.split!r}, {len(self)} "
            f"episodes in {len(self.shard_files)} files)"
        )

    def __len__(self) -> int:
        return len(self.episode_ids)

    def __getitem__(self, position: int) -> Episode:
        position = int(position)
        if not -len(self) <= position < len(self):
            raise IndexError(f"episode {position} of {self!r} does not exist")
        position %= len(self)
        flat = self._episode(position)
        episode = nest({key: flat[key] for key in self.keys if key in flat})
        return without_filler(episode) if self.last_step == "drop" else episode

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, Episode]]:
        if not 0 <= shard_index < len(self.shard_files):
            raise IndexError(f"file {shard_index} of {self!r} does not exist")
        count = self.shard_lengths[shard_index]
        if not 0 <= start <= count:
            raise IndexError(f"start is {start}, expected 0 to {count}")
        first = self._ends[shard_index] - count
        return ((int(self.episode_ids[first + i]), self[first + i]) for i in range(start, count))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the episodes of the split and of their files.

        Files above 256 MiB are hashed by their size and by 64 blocks of 64 KiB.
        """
        digest = hashlib.sha256(repr((self.version, self.episode_ids.tolist())).encode())
        for path, _, mark in self.marks(self.covered):
            digest.update(f"{os.path.relpath(path, self.directory)} {mark}\n".encode())
        return digest.hexdigest()[:32]

    @property
    def covered(self) -> Sequence[str]:
        return list(dict.fromkeys([*self._marks, *self.shard_files]))

    def marks(self, paths: Sequence[str]) -> list[marks.Mark]:
        return marks.of(self.directory, paths, _mark)

    def shard_version(self, shard_index: int) -> str:
        end = self._ends[shard_index]
        return self.version_of(range(end - self.shard_lengths[shard_index], end))

    def version_of(self, positions: range) -> str:
        """Returns a text that changes with the data of some episodes, found without reading it."""
        first, last = (file_of(self._ends, at) for at in (positions[0], positions[-1]))
        paths = self.shard_files[first : last + 1]
        paths += [path for at in positions for path in self._videos_of(at)]
        versions = [marks.version(path) for path in dict.fromkeys(paths)]
        ids = self.episode_ids[positions.start : positions.stop].tolist()
        return f"{self.version} {ids} {self._others} {' '.join(versions)}"

    def _videos_of(self, position: int) -> list[str]:
        """Returns the marks that concern the episode at a position, and not all."""
        return []

    @functools.cached_property
    def _others(self) -> str:
        own = {path for at in range(len(self)) for path in self._videos_of(at)}
        versions = [marks.version(path) for path in self._marks if path not in own]
        return hashlib.sha256(repr(versions).encode()).hexdigest()


def _mark(path: str) -> str:
    if not os.path.exists(path):
        return "missing"
    digest, size = hashlib.sha256(), os.path.getsize(path)
    with open_file(path) as file:
        if size <= _WHOLE:
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            for start in np.linspace(0, size - _BLOCK, 64).astype(np.int64).tolist():
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return f"{size} {digest.hexdigest()}"


def notes_filler(directory: str, default: bool) -> bool:
    """Whether the notes in a folder call the last action a filler; ``default`` without a note."""
    path = readable(directory) / NOTES
    note = read_json(os.fspath(path)).get(LAST_ACTION) if path.exists() else None
    return default if note is None else note == "filler"


def without_filler(episode: Episode) -> Episode:
    """Drops an episode's last step if its ``is_last`` is set."""
    last = np.ravel(episode["steps"].get("is_last", ()))
    if not len(last) or not last[-1]:
        return episode

    def shorter(tree):
        return {k: shorter(v) if isinstance(v, dict) else v[:-1] for k, v in tree.items()}

    return {**episode, "steps": shorter(episode["steps"])}


def choose(split: str, sizes: Mapping[str, int], where: str) -> tuple[str, np.ndarray]:
    """Returns (name, positions) of a split such as "train", "train[90%:]" or "train[3,8:12]".

    ``sizes`` are the numbers of episodes of the splits. Raises ValueError, which names ``where``,
    for an unknown split or one without episodes.
    """
    match = _SLICE.fullmatch(split.strip())
    name = match["name"].strip() if match else split
    if name not in sizes:
        splits = ", ".join(sizes) or "none"
        raise ValueError(
            f"{where} has no split {name!r}, it has {splits}{_checks.nearest(name, sizes)}"
        )
    which = match["which"] if match else None
    if which is None:
        positions = np.arange(sizes[name])
    else:
        parts = [part.strip() for part in which.split(",")]
        parts = [f"{p}:{int(p) + 1}" if p.isdecimal() else p for p in parts]
        whole = {name: types.SimpleNamespace(num_examples=sizes[name])}
        try:
            texts = [tfds.core.ReadInstruction.from_spec(f"{name}[{part}]") for part in parts]
            ranges = [read for text in texts for read in text.to_absolute(whole)]
        except Exception as error:
            raise ValueError(
                f"split of {where} is {split!r}, expected a slice such as 'train[:90%]' or "
                f"'train[3,8:12]' ({first_line(error)})"
            ) from error
        spans = [np.arange(r.from_ or 0, sizes[name] if r.to is None else r.to) for r in ranges]
        positions = np.unique(np.concatenate(spans))
    if not len(positions):
        raise ValueError(f"split {split!r} of {where} holds no episode: it has {sizes[name]}")
    return name, positions


def boundaries(length: int) -> dict[str, np.ndarray]:
    """Returns RLDS's ``is_first`` and ``is_last`` of an episode of ``length`` steps."""
    at = np.arange(length)
    return {"steps/is_first": at == 0, _LAST: at == length - 1}


def file_of(ends: Sequence[int], position: int) -> int:
    """Returns the file of a position, from the files' ends."""
    return bisect.bisect_right(ends, position)


def raise_missing(paths: Sequence[str], remedy: str) -> None:
    """Raises ``MissingShardError`` if any path is given, as a list of missing files."""
    if paths:
        more = f" (and {len(paths) - 1} more files)" if len(paths) > 1 else ""
        raise MissingShardError(f"{paths[0]} is missing{more}; {remedy}")
