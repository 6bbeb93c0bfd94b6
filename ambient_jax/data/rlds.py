"""Read any TFDS / RLDS dataset on disk, array_record or TFRecord, without TensorFlow."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source
from etils import epath

from ambient_jax import _checks
from ambient_jax.data import checksums, tfrecord
from ambient_jax.data.example_proto import Episode, EpisodeDecoder
from ambient_jax.data.features import is_dict, is_sequence, leaves, select

__all__ = ["Episode", "MissingShardError", "RldsDataset", "open_dataset"]

_INFO, _FEATURES = "dataset_info.json", "features.json"
_READERS = 8  # of checksums, at a time: what they wait for is storage


class MissingShardError(FileNotFoundError):
    """The data set is there, a file that its metadata promise is not."""


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A file, the records of it that the split takes, and the id of its record 0.

    Speaks array_record's FileInstruction protocol.
    """

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

    Raises:
      FileNotFoundError: no such directory or no dataset in it.
      MissingShardError: a shard is missing (a FileNotFoundError too).
      ValueError: several versions below ``path``, unreadable metadata, no RLDS, an unknown
        split or feature, or a split without episodes.
    """
    directory = _find_version(epath.Path(path).expanduser())
    try:
        info = tfds.builder_from_directory(directory).info
    except Exception as error:
        line = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ValueError(
            f"{directory}: {_INFO} or {_FEATURES} cannot be read ({line[0]})"
        ) from error
    what = f"{directory}"
    _check_rlds(info.features, what)
    select(leaves(info.features), required, what)
    keys = None if keys is None else tuple(keys)
    if keys is not None:
        select(leaves(info.features), keys, what)
    shards = _shards(info, split, directory, allow_missing)
    return RldsDataset(info, split, directory, shards, keys, decode_images)


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
    """

    def __init__(
        self,
        info: Any,
        split: str,
        directory: epath.Path,
        shards: list[_Shard],
        keys: tuple[str, ...] | None,
        decode_images: bool,
    ):
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
        self._source = None
        if self.file_format == "array_record":
            self._source = array_record_data_source.ArrayRecordDataSource(shards)

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
          ValueError: the shard is truncated or corrupt.
        """
        index = int(index)
        if not -self.num_episodes <= index < self.num_episodes:
            raise IndexError(f"episode {index} of {self!r} does not exist")
        index %= self.num_episodes
        shard = bisect.bisect_right(self._ends, index)
        start = index - (self._ends[shard - 1] if shard else 0)
        if self._source is not None:
            return self._decoded(shard, start, self._array_record(shard, start))
        path, record = self.shard_files[shard], start + self._shards[shard].skip
        with epath.Path(path).open("rb") as file:
            if shard not in self._offsets:
                self._offsets[shard] = tfrecord.record_offsets(file, path)
            offsets = self._offsets[shard]
            if record >= len(offsets):
                raise ValueError(tfrecord.too_few(path, len(offsets), record + 1))
            file.seek(int(offsets[record]))
            return self._decoded(shard, start, tfrecord.read_record(file, path, record))

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, Episode]]:
        """Episodes of one shard in order, as (stable id, episode).

        Args:
          shard_index: into ``shard_files``.
          start: episodes of ``shard_lengths[shard_index]`` to skip; they are not decoded.

        Raises:
          IndexError: there is no such shard or start.
          ValueError: the shard is truncated or corrupt (named by file and record).
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
        if self._source is not None:
            for i in range(start, shard.take):
                yield first + i, self._decoded(shard_index, i, self._array_record(shard_index, i))
            return
        with epath.Path(shard.filename).open("rb") as file:
            records = tfrecord.read_records(
                file, shard.filename, shard.skip + start, shard.take - start
            )

            def numbered(i, record):
                return first + i, self._decoded(shard_index, i, record)

            # No loop: its variable would hold the record as long as the file is open.
            yield from map(numbered, itertools.count(start), records)

    def _array_record(self, shard: int, start: int) -> bytes:
        index = start + (self._ends[shard - 1] if shard else 0)
        try:
            return self._source[index]
        except Exception as error:
            record = start + self._shards[shard].skip
            raise ValueError(
                f"{self.shard_files[shard]}: record {record} cannot be read, the file is truncated "
                f"or corrupt ({_first_line(error)}); fetch the file again"
            ) from error

    def _decoded(self, shard: int, start: int, record: bytes) -> Episode:
        try:
            return self._decode(record)
        except ValueError as error:
            number = start + self._shards[shard].skip
            raise ValueError(f"{self.shard_files[shard]}: record {number}: {error}") from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the metadata, the split and its shards: the key of what is cached about it.

        A shard counts with its size and with the checksums that its format keeps of every record or
        chunk (``checksums.of_file``), so a value changed anywhere is seen, and a copy is the same.
        """
        digest = hashlib.sha256()
        directory = epath.Path(self.directory)
        for name in (_INFO, _FEATURES):
            digest.update((directory / name).read_bytes())
        marks = functools.partial(checksums.of_file, file_format=self.file_format)
        with futures.ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(marks, [s.filename for s in self._shards])
            for shard, mark in zip(self._shards, found, strict=True):
                name = os.path.basename(shard.filename)
                digest.update(f"{name} {shard.skip} {shard.take} {mark}\n".encode())
        return digest.hexdigest()[:32]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _is_version(path: epath.Path) -> bool:
    return (path / _INFO).exists()


def _children(path: epath.Path) -> list[epath.Path]:
    return sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.is_dir())


def _find_version(path: epath.Path) -> epath.Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist{_siblings(path)}")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is a file: give the directory that holds {_INFO}")
    if _is_version(path):
        if not (path / _FEATURES).exists():
            raise FileNotFoundError(
                f"{path} has {_INFO} but no {_FEATURES}: copy it too, or prepare the dataset "
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
        f"{path} is no TFDS dataset: no {_INFO} in it or its subdirectories{near}"
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
    try:
        instructions = info.splits[split].file_instructions if sum(whole.shard_lengths) else []
    except Exception as error:
        raise ValueError(
            f"split is {split!r}, expected a slice such as 'train[:90%]' ({_first_line(error)})"
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
        raise ValueError(f"split {split!r} of {directory} holds no episode")
    present = {p.name for p in directory.iterdir()}
    missing = [s.filename for s in shards if os.path.basename(s.filename) not in present]
    if missing and not allow_missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingShardError(
            f"shard {missing[0]}{more} is missing, which {_INFO} promises: fetch it again"
        )
    return shards
