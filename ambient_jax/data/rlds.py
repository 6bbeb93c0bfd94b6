"""Read any TFDS / RLDS dataset on disk, array_record or TFRecord, without TensorFlow."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from ambient_jax import _checks
from ambient_jax.data import checksums, files, metadata, tfrecord
from ambient_jax.data.example_proto import Episode, EpisodeDecoder
from ambient_jax.data.features import is_dict, is_sequence, leaves, select
from ambient_jax.data.last_step import CHOICES as LAST_STEPS
from ambient_jax.data.metadata import FEATURES, INFO, MissingShardError
from ambient_jax.data.paths import expanded

__all__ = ["Episode", "MissingShardError", "RldsDataset", "open_dataset"]

_LAST = "steps/is_last"
_READERS = 8  # of checksums, at a time: what they wait for is storage


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A file, the records of it that the split takes, and the id of its record 0."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int
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
    """Opens one split of a dataset; reads metadata only.

    Args:
      path: the version directory (that of dataset_info.json), or a parent with exactly one
        version below it. Local, or whatever `etils.epath` reads (``gs://``).
      split: a split's name, also sliced as in TFDS: ``"train[:90%]"``, ``"train[10:20]"``.
      required: features that must be there, such as ``"steps/observation/state"``.
      keys: decode these features or subtrees only; all by default.
      decode_images: False leaves images as the encoded bytes.
      allow_missing: open it although shards are missing; reading their episodes then fails.
      last_step: "drop" leaves out an episode's last step where its ``is_last`` is set: by RLDS's
        definition that step has an observation only, its action is a filler. Ids and numbers of all
        other steps stay what they are. "keep", the default, leaves it; where either is given,
        ``is_last`` is decoded whatever ``keys`` are.

    Raises:
      FileNotFoundError: no such directory or no dataset in it.
      MissingShardError: a shard is missing (a FileNotFoundError too).
      ValueError: several versions below ``path``, unreadable metadata, no RLDS, an unknown
        split or feature, or a split without episodes.
      OSError: the machine does not let it be read, which says nothing about the data.
    """
    with files.named(os.fspath(path)):
        directory = _find_version(epath.Path(expanded(path)))
    info = metadata.read(directory)
    what = f"{directory}"
    _check_rlds(info.features, what)
    metadata.check_sizes(info.features, f"{directory / FEATURES}")
    select(leaves(info.features), required, what)
    if last_step:
        _checks.one_of("last_step", last_step, LAST_STEPS)
    keys = None if keys is None else tuple(keys)
    if keys is not None and last_step and _LAST in leaves(info.features):
        keys = (*keys, _LAST)
    if keys is not None:
        select(leaves(info.features), keys, what)
    shards = _shards(info, split, directory, allow_missing)
    return RldsDataset(info, split, directory, shards, keys, decode_images, last_step)


class RldsDataset:
    """One split of an RLDS dataset: random access by position, streams by shard.

    Open it with `open_dataset`. It pickles: a copy in a worker process opens its own files.

    Attributes:
      name: of the dataset.
      version: such as ``"1.0.0"``.
      split: as asked for.
      directory: the version directory.
      features: TFDS feature connectors.
      file_format: ``"array_record"`` or ``"tfrecord"``.
      num_episodes: of this split; also ``len()``.
      shard_files: path of each file that holds episodes of this split.
      shard_lengths: number of this split's episodes in each.
      episode_ids: stable id of each episode, [num_episodes] int64: its number in the unsliced
        split, so ``train`` and ``train[50%:]`` call one episode by one id.
      last_step: see `open_dataset`.
    """

    def __init__(
        self,
        info: Any,
        split: str,
        directory: epath.Path,
        shards: list[_Shard],
        keys: tuple[str, ...] | None,
        decode_images: bool,
        last_step: str = "",
    ):
        self.last_step = last_step
        self.name: str = info.name
        self.version = str(info.version)
        self.split = split
        self.directory = os.fspath(directory)
        self.features: tfds.features.FeaturesDict = info.features
        self.file_format: str = info.file_format.value
        self.shard_files = [s.filename for s in shards]
        self.shard_lengths = [s.take for s in shards]
        self.num_episodes = sum(self.shard_lengths)
        self.episode_ids = np.concatenate(
            [np.arange(s.take, dtype=np.int64) + s.base + s.skip for s in shards]
        )
        self._shards = shards
        self._ends = np.cumsum(self.shard_lengths).tolist()
        self._decode = EpisodeDecoder(info.features, keys, decode_images)
        self._offsets: dict[int, np.ndarray] = {}
        self._told: set[int] = set()
        self._source = None
        if self.file_format == "array_record":
            self._source = files.ArrayRecords(
                self.shard_files, [s.examples_in_shard for s in shards]
            )

    def __repr__(self) -> str:
        return (
            f"RldsDataset({self.name} {self.version}, {self.split!r}, {self.num_episodes} episodes "
            f"in {len(self._shards)} {self.file_format} shards)"
        )

    def __len__(self) -> int:
        return self.num_episodes

    def __getitem__(self, index: int) -> Episode:
        """The episode at a position of this split, whose id is ``episode_ids[index]``.

        Random access is what array_record is for; of a TFRecord shard the first access reads all
        headers once to know where its records lie.

        Raises:
          IndexError: the position is outside the split.
          FileNotFoundError: the shard is missing.
          ValueError: the shard is truncated or corrupt.
          OSError: it cannot be read, by a fault of the machine and not of the shard.
        """
        index = int(index)
        if not -self.num_episodes <= index < self.num_episodes:
            raise IndexError(f"episode {index} of {self!r} does not exist")
        index %= self.num_episodes
        shard = bisect.bisect_right(self._ends, index)
        start = index - (self._ends[shard - 1] if shard else 0)
        record = start + self._shards[shard].skip
        if self._source is not None:
            return self._decoded(shard, start, self._source.read(shard, record))
        path = self.shard_files[shard]
        with files.named(path), files.open_file(path) as file:
            if shard not in self._offsets:
                self._offsets[shard] = tfrecord.record_offsets(file, path)
                self._warn(shard, len(self._offsets[shard]))
            offsets, count = self._offsets[shard], self._shards[shard].examples_in_shard
            if record >= len(offsets):
                raise ValueError(files.too_few(path, len(offsets), count))
            file.seek(int(offsets[record]))
            data = tfrecord.read_record(file, path, record)
        return self._decoded(shard, start, data)

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, Episode]]:
        """Episodes of one shard in order, as (stable id, episode).

        Args:
          shard_index: into ``shard_files``.
          start: episodes of ``shard_lengths[shard_index]`` to skip; they are not decoded.

        Raises:
          IndexError: there is no such shard or start.
          FileNotFoundError: the shard is missing.
          ValueError: the shard is truncated or corrupt (named by file and record).
          OSError: it cannot be read, by a fault of the machine and not of the shard.
        """
        if not 0 <= shard_index < len(self._shards):
            raise IndexError(f"shard {shard_index} of {self!r} does not exist")
        shard = self._shards[shard_index]
        if not 0 <= start <= shard.take:
            raise IndexError(f"start is {start}, expected 0 to {shard.take}: {shard.filename}")
        return self._stream(shard_index, start)

    def _stream(self, shard_index: int, start: int) -> Iterator[tuple[int, Episode]]:
        shard = self._shards[shard_index]
        first = shard.base + shard.skip
        read = self._one_by_one(shard_index, start) if self._source is None else None
        for i in range(start, shard.take):
            # The record is held by no variable while the reader pauses.
            if read is None:
                record = functools.partial(self._source.read, shard_index, shard.skip + i)
            else:
                record = functools.partial(next, read)
            yield first + i, self._decoded(shard_index, i, record())

    def _one_by_one(self, shard_index: int, start: int) -> Iterator[bytes]:
        """Records of a TFRecord shard, whose file closes meanwhile if many are open."""
        shard = self._shards[shard_index]
        path, end = shard.filename, shard.skip + shard.take
        parked = files.ParkedFile(path)
        with files.named(path), contextlib.closing(parked):
            with parked as file:
                size = tfrecord.size_of(file)
                tfrecord.skip_records(file, path, shard.skip + start, size, end)
            for i in range(shard.skip + start, end):
                yield self._next(parked, shard_index, i, size)

    def _next(self, parked: files.ParkedFile, shard_index: int, record: int, size: int) -> bytes:
        shard = self._shards[shard_index]
        with parked as file:
            data = tfrecord.read_record(file, shard.filename, record, size)
            if record + 1 == shard.examples_in_shard and file.tell() < size:
                self._warn(shard_index, "more")
        return tfrecord.expected(data, shard.filename, record, shard.skip + shard.take)

    def _warn(self, shard_index: int, found: int | str) -> None:
        count = self._shards[shard_index].examples_in_shard
        if (found == "more" or found > count) and shard_index not in self._told:
            self._told.add(shard_index)
            files.warn_too_many(self.shard_files[shard_index], found, count)

    def _decoded(self, shard: int, start: int, record: bytes) -> Episode:
        try:
            episode = self._decode(record)
        except MemoryError as error:
            raise files.unavailable(error, self.shard_files[shard]) from error
        except ValueError as error:
            number = start + self._shards[shard].skip
            raise ValueError(f"{self.shard_files[shard]}: record {number}: {error}") from error
        return _without_filler(episode) if self.last_step == "drop" else episode

    @property
    def settings(self) -> str:
        """What statistics hang on besides the data."""
        return f"last_step {self.last_step}" if self.last_step else ""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the metadata, the split and its shards: the key of what is cached about it.

        A shard counts with its size and with the checksums that its format keeps of every record or
        chunk (``checksums.of_file``), so a value changed anywhere is seen, and a copy is the same.
        """
        digest = hashlib.sha256()
        directory = epath.Path(self.directory)
        for name in (INFO, FEATURES):
            digest.update((directory / name).read_bytes())
        marks = functools.partial(checksums.of_file, file_format=self.file_format)
        with futures.ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(marks, [s.filename for s in self._shards])
            for shard, mark in zip(self._shards, found, strict=True):
                name = os.path.basename(shard.filename)
                digest.update(f"{name} {shard.skip} {shard.take} {mark}\n".encode())
        return digest.hexdigest()[:32]


def _without_filler(episode: Episode) -> Episode:
    last = np.ravel(episode["steps"].get("is_last", ()))
    if not len(last) or not last[-1]:
        return episode

    def shorter(tree):
        return {k: shorter(v) if isinstance(v, dict) else v[:-1] for k, v in tree.items()}

    return {**episode, "steps": shorter(episode["steps"])}


def _is_version(path: epath.Path) -> bool:
    return _is_there(path / INFO)


def _is_there(path: epath.Path) -> bool:
    """A link that leads nowhere too, which is said when it is read."""
    return path.exists() or os.path.lexists(path)


def _children(path: epath.Path) -> list[epath.Path]:
    return sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.is_dir())


def _find_version(path: epath.Path) -> epath.Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist{_siblings(path)}")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is a file: give the directory that holds {INFO}")
    if _is_version(path):
        if not _is_there(path / FEATURES):
            raise FileNotFoundError(
                f"{path} has {INFO} but no {FEATURES}: copy it too, or prepare the dataset "
                "again with tfds >= 4"
            )
        return path
    children = _children(path)
    versions = [p for p in children if _is_version(p)]
    if len(versions) == 1:
        return _find_version(versions[0])
    if versions:
        told = ", ".join(p.name for p in versions)
        raise ValueError(f"{path} holds {len(versions)} versions ({told}): give the path of one")
    below = [str(q) for p in children for q in _children(p) if _is_version(q)]
    near = f"; there are datasets below it: {', '.join(below[:8])}" if below else ""
    raise FileNotFoundError(
        f"{path} is no TFDS dataset: no {INFO} in it or its subdirectories{near}"
    )


def _siblings(path: epath.Path) -> str:
    parent = path.parent
    if not parent.exists():
        return f", nor does {parent}"
    names = [p.name for p in _children(parent)]
    hint = _checks.nearest(path.name, names)
    return hint or (f"; {parent} holds {', '.join(names[:8])}" if names else "")


def _check_rlds(features: Any, what: str) -> None:
    if not is_dict(features) or "steps" not in features:
        found = ", ".join(features.keys()) if is_dict(features) else type(features).__name__
        raise ValueError(f"{what} is no RLDS dataset: it has no 'steps' (it has {found})")
    steps = features["steps"]
    if not is_sequence(steps) or not is_dict(steps.feature):
        raise ValueError(f"{what} is no RLDS dataset: 'steps' is no nested dataset of named fields")
    if not any(path.startswith("steps/") for path in leaves(features)):
        raise ValueError(f"{what} is no RLDS dataset: 'steps' has no fields")


def _shards(info: Any, split: str, directory: epath.Path, allow_missing: bool) -> list[_Shard]:
    name = split.split("[")[0].strip()
    if "+" in split:
        raise ValueError(
            f"split is {split!r}: episode ids are those of one split, open each part by itself"
        )
    if name not in info.splits:
        hint = _checks.nearest(name, info.splits)
        told = ", ".join(info.splits) or "none"
        raise ValueError(f"{directory} has no split {name!r}, it has {told}{hint}")
    if str(info.file_format.value) not in ("array_record", "tfrecord"):
        raise ValueError(
            f"{directory} is stored as {info.file_format.value}, expected array_record or tfrecord"
        )
    whole = info.splits[name]
    if not sum(whole.shard_lengths):
        others = [
            f"{n} ({sum(s.shard_lengths)})" for n, s in info.splits.items() if sum(s.shard_lengths)
        ]
        told = f"episodes are in {', '.join(others)}" if others else "prepare the data set again"
        raise ValueError(f"split {name!r} of {directory} holds no episode, {INFO} says; {told}")
    here = metadata.listed(directory)
    metadata.check_lengths(whole, info.file_format.value, directory, here, allow_missing)
    try:
        instructions = info.splits[split].file_instructions
    except Exception as error:
        raise ValueError(
            f"split is {split!r}, expected a slice such as 'train[:90%]' "
            f"({files.first_line(error)})"
        ) from error
    paths = [os.fspath(p) for p in whole.filepaths]
    bases = dict(zip(paths, np.cumsum([0, *whole.shard_lengths[:-1]]).tolist(), strict=True))
    shards = [
        _Shard(
            os.fspath(i.filename), i.skip, i.take, i.examples_in_shard, bases[os.fspath(i.filename)]
        )
        for i in instructions
    ]
    if not sum(s.take for s in shards):
        count = sum(whole.shard_lengths)
        raise ValueError(
            f"split {split!r} of {directory} holds no episode: {name!r} has {count}, ask for more"
        )
    metadata.check_files([s.filename for s in shards], here, allow_missing)
    return shards
