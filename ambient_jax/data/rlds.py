"""Reads any TFDS / RLDS dataset on disk, array_record or TFRecord, without TensorFlow."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax import _checks
from ambient_jax.data import files, marks, metadata, records
from ambient_jax.data.chunk import LAST_STEPS
from ambient_jax.data.dataset import Dataset, notes_filler, without_filler
from ambient_jax.data.example_proto import Episode, EpisodeDecoder
from ambient_jax.data.features import Leaf, is_dict, is_sequence, leaves, select
from ambient_jax.data.metadata import FEATURES, INFO, MissingShardError
from ambient_jax.data.paths import ReadablePath, readable

__all__ = ["Episode", "MissingShardError", "RldsDataset", "open_dataset"]

_LAST = "steps/is_last"
_FORMATS = {"array_record": records.ArrayRecords, "tfrecord": records.TFRecords}


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A file, its records in the split, and the id of its record 0."""

    filename: str
    skip: int
    take: int
    count: int  # records of the file by dataset_info.json
    base: int


def open_dataset(
    path: str | os.PathLike[str],
    split: str = "train",
    required: Iterable[str] = (),
    *,
    keys: Iterable[str] | None = None,
    decode_images: bool = True,
    allow_missing: bool = False,
    last_step: str = "",
) -> RldsDataset:
    """Opens one split of a dataset: reads and checks its metadata, but no episode.

    Args:
      path: the version directory (with dataset_info.json), or a parent with exactly one version
        below it. It is local or in a bucket (``gs://``, ``s3://``).
      split: a split's name, also sliced as in TFDS: ``"train[:90%]"``, ``"train[10:20]"``.
      required: features that must exist, such as ``"steps/observation/state"``.
      keys: decode only these features or subtrees; all by default.
      decode_images: False keeps images as encoded bytes.
      allow_missing: open it even if shards are missing; reading their episodes then fails.
      last_step: "drop" drops an episode's last step if its ``is_last`` is set, as its action is a
        filler by RLDS's definition; the other steps keep their numbers. "keep" is the default.
        Both decode ``is_last``, even if it is not in ``keys``.

    Raises:
      FileNotFoundError: there is no such directory or no dataset in it.
      MissingShardError: a shard is missing (a FileNotFoundError too).
      ValueError: there are several versions below ``path``, unreadable metadata, no RLDS, an
        unknown split or feature, or a split without episodes.
      OSError: the system cannot read it.
    """
    with files.named(os.fspath(path)):
        directory = _find_version(readable(path))
    info = metadata.read(directory)
    fields = _rlds_fields(info.features, f"{directory}")
    metadata.check_sizes(fields.values(), f"{directory / FEATURES}")
    select(fields, required, f"{directory}")
    if last_step:
        _checks.one_of("last_step", last_step, LAST_STEPS)
    if keys is not None:
        keys = (*keys, *([_LAST] if last_step and _LAST in fields else []))
        select(fields, keys, f"{directory}")
    shards = _shards(info, split, directory, allow_missing)
    return RldsDataset(info, split, directory, shards, keys, decode_images, last_step)


class RldsDataset(Dataset):
    """One split of an RLDS dataset: random access by position, streams by shard.

    Open it with `open_dataset`. A pickled copy opens its own files. Reading an episode raises
    FileNotFoundError if its shard is missing, ValueError (with file and record) if it is truncated
    or corrupt, and OSError if the system cannot read it.

    Attributes:
      name, version: name and version of the dataset.
      split, last_step: see ``open_dataset``.
      directory: the version directory.
      features: TFDS feature connectors.
      file_format: ``"array_record"`` or ``"tfrecord"``, whose files are read in order.
      num_episodes: number of episodes of this split; also ``len()``.
      shard_files: paths of the files with episodes of this split.
      shard_lengths: number of this split's episodes in each file.
      episode_ids: stable id of each episode, [num_episodes] int64: its number in the unsliced
        split, so that an episode has the same id in ``train`` and ``train[50%:]``.
    """

    def __init__(
        self,
        info: Any,
        split: str,
        directory: ReadablePath,
        shards: list[_Shard],
        keys: tuple[str, ...] | None,
        decode_images: bool,
        last_step: str = "",
    ):
        self.last_step = last_step
        self.name: str = info.name
        self.version, self.split = str(info.version), split
        self.directory = os.fspath(directory)
        self.ends_in_filler = notes_filler(self.directory, default=True)
        self.features: tfds.features.FeaturesDict = info.features
        self.file_format: str = info.file_format.value
        self.in_order = self.file_format == "tfrecord"
        self.shard_files = [s.filename for s in shards]
        self.shard_lengths = [s.take for s in shards]
        self.num_episodes = sum(self.shard_lengths)
        self.episode_ids = np.concatenate(
            [np.arange(s.take, dtype=np.int64) + s.base + s.skip for s in shards]
        )
        self._shards = shards
        self._ends = np.cumsum(self.shard_lengths).tolist()
        self._decode = EpisodeDecoder(info.features, keys, decode_images)
        self._records = _FORMATS[self.file_format](self.shard_files, [s.count for s in shards])

    def __repr__(self) -> str:
        return (
            f"RldsDataset({self.name} {self.version}, {self.split!r}, {self.num_episodes} episodes "
            f"in {len(self._shards)} {self.file_format} shards)"
        )

    def __len__(self) -> int:
        return self.num_episodes

    def __getitem__(self, index: int) -> Episode:
        """Returns the episode at a position of this split, whose id is ``episode_ids[index]``."""
        index = int(index)
        if not -self.num_episodes <= index < self.num_episodes:
            raise IndexError(f"episode {index} of {self!r} does not exist")
        index %= self.num_episodes
        shard = bisect.bisect_right(self._ends, index)
        return self._read(shard, index - (self._ends[shard - 1] if shard else 0))

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, Episode]]:
        """Yields episodes of a shard in order as (stable id, episode), from number ``start`` on."""
        if not 0 <= shard_index < len(self._shards):
            raise IndexError(f"shard {shard_index} of {self!r} does not exist")
        shard = self._shards[shard_index]
        if not 0 <= start <= shard.take:
            raise IndexError(f"start is {start}, expected 0 to {shard.take}: {shard.filename}")
        first = shard.base + shard.skip
        return ((first + i, self._read(shard_index, i)) for i in range(start, shard.take))

    def _read(self, shard_index: int, position: int) -> Episode:
        shard = self._shards[shard_index]
        record = shard.skip + position
        data = self._records.read(shard_index, record)
        try:
            episode = self._decode(data)
        except MemoryError as error:
            raise files.unavailable(error, shard.filename) from error
        except ValueError as error:
            raise ValueError(f"{shard.filename}: record {record}: {error}") from error
        return without_filler(episode) if self.last_step == "drop" else episode

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the metadata, the split and its shards; a copy of the data has the same."""
        digest = hashlib.sha256(self._metadata())
        for shard, mark in zip(self._shards, self.marks(self.covered), strict=True):
            name = os.path.basename(shard.filename)
            digest.update(f"{name} {shard.skip} {shard.take} {mark.digest}\n".encode())
        return digest.hexdigest()[:32]

    @property
    def covered(self) -> Sequence[str]:
        return self.shard_files

    def marks(self, paths: Sequence[str]) -> list[marks.Mark]:
        digest = functools.partial(records.digest, file_format=self.file_format)
        return marks.of(self.directory, paths, digest)

    def shard_version(self, shard_index: int) -> str:
        shard = self._shards[shard_index]
        which = f"{os.path.basename(shard.filename)} {shard.skip} {shard.take} {shard.base}"
        return f"{self._about} {which} {marks.version(shard.filename)}"

    @functools.cached_property
    def _about(self) -> str:
        return hashlib.sha256(self._metadata()).hexdigest()

    def _metadata(self) -> bytes:
        return b"".join((readable(self.directory) / n).read_bytes() for n in (INFO, FEATURES))


def _is_there(path: ReadablePath) -> bool:
    """Whether a path exists; a broken link counts, and fails when it is read."""
    return path.exists() or os.path.lexists(path)


def _children(path: ReadablePath) -> list[ReadablePath]:
    return sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.is_dir())


def _find_version(path: ReadablePath) -> ReadablePath:
    """Returns the version directory: ``path``, or the only version in it."""
    if not path.exists():
        siblings, near = [], f", nor does {path.parent}"
        if path.parent.exists():
            siblings = [p.name for p in _children(path.parent)]
            near = _checks.nearest(path.name, siblings)
        if siblings and not near:
            near = f"; {path.parent} holds {', '.join(siblings[:8])}"
        raise FileNotFoundError(f"{path} does not exist{near}")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is a file: give the directory that holds {INFO}")
    if _is_there(path / INFO):
        if not _is_there(path / FEATURES):
            raise FileNotFoundError(
                f"{path} has {INFO} but no {FEATURES}: copy it too, or prepare the dataset "
                "again with tfds >= 4"
            )
        return path
    children = _children(path)
    versions = [p for p in children if _is_there(p / INFO)]
    if len(versions) == 1:
        return _find_version(versions[0])
    if versions:
        names = ", ".join(p.name for p in versions)
        raise ValueError(f"{path} holds {len(versions)} versions ({names}): give the path of one")
    below = [str(q) for p in children for q in _children(p) if _is_there(q / INFO)]
    near = f"; there are datasets below it: {', '.join(below[:8])}" if below else ""
    raise FileNotFoundError(
        f"{path} is no TFDS dataset: no {INFO} in it or its subdirectories{near}"
    )


def _rlds_fields(features: Any, directory: str) -> dict[str, Leaf]:
    why, fields = "", leaves(features) if is_dict(features) else {}
    if not is_dict(features) or "steps" not in features:
        names = ", ".join(features.keys()) if is_dict(features) else type(features).__name__
        why = f"it has no 'steps' (it has {names})"
    elif not is_sequence(features["steps"]) or not is_dict(features["steps"].feature):
        why = "'steps' is no nested dataset of named fields"
    elif not any(path.startswith("steps/") for path in fields):
        why = "'steps' has no fields"
    if why:
        raise ValueError(f"{directory} is no RLDS dataset: {why}")
    return fields


def _shards(info: Any, split: str, directory: ReadablePath, allow_missing: bool) -> list[_Shard]:
    name = split.split("[")[0].strip()
    if "+" in split:
        raise ValueError(
            f"split is {split!r}: episode ids are those of one split, open each part by itself"
        )
    if name not in info.splits:
        hint = _checks.nearest(name, info.splits)
        splits = ", ".join(info.splits) or "none"
        raise ValueError(f"{directory} has no split {name!r}, it has {splits}{hint}")
    if (file_format := str(info.file_format.value)) not in _FORMATS:
        raise ValueError(
            f"{directory} is stored as {file_format}, expected array_record or tfrecord"
        )
    whole = info.splits[name]
    if not (count := sum(whole.shard_lengths)):
        sizes = {n: sum(s.shard_lengths) for n, s in info.splits.items()}
        filled = ", ".join(f"{n} ({size})" for n, size in sizes.items() if size)
        hint = f"episodes are in {filled}" if filled else "prepare the data set again"
        raise ValueError(f"split {name!r} of {directory} holds no episode, {INFO} says; {hint}")
    with files.named(os.fspath(directory)):
        names = {p.name for p in directory.iterdir()}
    metadata.check_lengths(whole, file_format, directory, names, allow_missing)
    try:
        parts = info.splits[split].file_instructions
    except Exception as error:
        raise ValueError(
            f"split is {split!r}, expected a slice such as 'train[:90%]' "
            f"({files.first_line(error)})"
        ) from error
    if not sum(part.take for part in parts):
        raise ValueError(
            f"split {split!r} of {directory} holds no episode: {name!r} has {count}, ask for more"
        )
    paths = metadata.shard_paths(directory, whole.filepaths)
    bases = dict(zip(paths, np.cumsum([0, *whole.shard_lengths[:-1]]).tolist(), strict=True))
    shards = []
    files_of_parts = metadata.shard_paths(directory, [part.filename for part in parts])
    for part, path in zip(parts, files_of_parts, strict=True):
        shards.append(_Shard(path, part.skip, part.take, part.examples_in_shard, bases[path]))
    if not allow_missing:
        metadata.check_files([s.filename for s in shards], names)
    return shards
