"""Converts a data set to RLDS by part, in any process; the parts become one data set at the end.

A part is a file of RLDS, or some episodes of another format, and becomes a shard of the new data
set, or several of 256 MiB. Parts that are made wait in a hidden folder beside the new data set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.proto import dataset_info_pb2

import ambient_jax
from ambient_jax.data import storage, write
from ambient_jax.data.dataset import NOTES, FolderDataset
from ambient_jax.data.example_encode import EpisodeEncoder
from ambient_jax.data.example_proto import object_array
from ambient_jax.data.features import flatten, leaves, nest
from ambient_jax.data.files import first_line
from ambient_jax.data.paths import replacing_folder, write_text
from ambient_jax.data.prepare import shards
from ambient_jax.data.prepare.engine import Task
from ambient_jax.data.prepare.shards import Pieces
from ambient_jax.data.source import Source
from ambient_jax.data.storage import lerobot_fields

EPISODES = 32  # of a part, where files are one episode each or the whole data set
_FORMAT = "array_record"
_DONE, _SHARD, _SIZES, _LOCK = ".shards", "shard", "sizes.json", "lock"


class UnfinishedError(ValueError):
    """Some parts could not be made; the others are kept for the next call.

    Attributes:
      failures: (what, reason) of each.
      kept: the number of parts that are made.
      folder: where they are.
    """

    def __init__(self, failures: Sequence[tuple[str, str]], kept: int, folder: Path):
        self.failures, self.kept, self.folder = failures, kept, folder
        what, reason = failures[0]
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        parts = f"; {kept} parts are kept in {folder}" if kept else ""
        super().__init__(f"{what}: {reason}{more}{parts}")


class Groups(Source):
    """A data set whose "shards" are what parts are made of; ``settings`` are in their versions."""

    def __init__(self, dataset: storage.Dataset, settings: str):
        self.data, self._settings = dataset, settings
        self.name, self.directory = dataset.name, dataset.directory
        self._lengths = list(dataset.shard_lengths)
        if isinstance(dataset, FolderDataset):
            starts = range(0, len(dataset), EPISODES)
            self._lengths = [min(EPISODES, len(dataset) - start) for start in starts]

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: int) -> Mapping[str, Any]:
        return self.data[position]

    @property
    def shard_lengths(self) -> Sequence[int]:
        return self._lengths

    def positions(self, groups: range) -> range:
        """Returns the positions of the episodes of some groups."""
        start = sum(self._lengths[: groups.start])
        return range(start, start + sum(self._lengths[groups.start : groups.stop]))

    def shard_version(self, shard_index: int) -> str:
        if isinstance(self.data, FolderDataset):
            episodes = self.positions(range(shard_index, shard_index + 1))
            return f"{self._settings} {self.data.version_of(episodes)}"
        return f"{self._settings} {self.data.shard_version(shard_index)}"


@dataclasses.dataclass(frozen=True)
class Job:
    """What other processes need: the pickled groups and features, and the folder of the parts."""

    content: bytes
    folder: str


@functools.lru_cache(maxsize=1)
def opened(job: Job) -> tuple[Groups, Pieces, tfds.features.FeaturesDict]:
    """Returns the groups, their parts, and the features of the new data set."""
    groups, features = pickle.loads(job.content)
    return groups, Pieces.of(groups, Path(job.folder), _DONE), features


def convert_part(job: Job, task: Task) -> None:
    """Makes a part, unless that is done: a folder of shards and their sizes."""
    groups, pieces, features = opened(job)
    index = task[1]

    def make(path):
        try:
            with replacing_folder(path) as partial:
                records = _records(groups, pieces.files[index], features)
                prefix = os.fspath(partial / _SHARD)
                lengths, num_bytes = write.write_shards(prefix, records, None, _FORMAT)
                files = [(partial / f"{_SHARD}-{i}").stat().st_size for i in range(len(lengths))]
                sizes = {"lengths": lengths, "files": files, "bytes": num_bytes}
                write_text(partial / _SIZES, json.dumps(sizes))
        except FileExistsError:  # a worker that outlived an earlier run has made it
            if not path.exists():
                raise

    pieces.make(index, make)


def _records(source: Groups, groups: range, features: Any) -> Iterator[bytes]:
    """Encodes the episodes of some groups; ValueError names the episode."""
    encode, fields, data = EpisodeEncoder(features), leaves(features), source.data
    filmed = {p: leaf for p, leaf in leaves(data.features).items() if leaf.kind == "image"}
    for position in source.positions(groups):
        flat = flatten(data[position])
        where = f"{data.directory}, episode {data.episode_ids[position]}"
        for path in [p for p, leaf in filmed.items() if leaf.sequence and p in flat]:
            try:
                blobs = lerobot_fields.encoded(flat[path], fields[path].feature)
                flat[path] = object_array(list(blobs))
            except ValueError as error:
                raise ValueError(f"{where}: {path}: {error}") from error
        try:
            yield encode(nest(flat))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def convert(
    final: Path,
    dataset: storage.Dataset,
    features: tfds.features.FeaturesDict,
    *,
    notes: Mapping[str, Any],
    settings: Any = None,
    overwrite: bool = False,
    processes: int = 0,
    options: Sequence[str] = (),
) -> None:
    """Makes the parts of a data set that are missing, and joins them if all are made.

    Args:
      final: folder of the new data set, ``.../<name>/<version>``.
      dataset: see ``convert.write_rlds``.
      features: those of the new data set, which every episode must have.
      notes: of ``metadata.json``.
      settings: what else the parts depend on, as JSON can hold it.
      overwrite: replace a data set of that name and version.
      processes, options: see ``engine.run``.

    Raises:
      FileExistsError: it exists and ``overwrite`` is False.
      UnfinishedError: some parts could not be made.
      ValueError: features that cannot be written; or another process converts to the same place.
      ImportError: Beam is not installed.
    """
    if final.exists() and not overwrite:
        raise FileExistsError(
            f"{final} exists: choose another version, or pass overwrite=True to replace it"
        )
    EpisodeEncoder(features)
    about = [dataset.directory, dataset.split, dataset.last_step, features.to_json()]
    settings = json.dumps([ambient_jax.__version__, _FORMAT, settings, *about], sort_keys=True)
    groups = Groups(dataset, settings)  # type: ignore[abstract]
    folder = final.parent / f".{final.name}.parts"
    job = Job(pickle.dumps((groups, features)), os.fspath(folder))
    pieces = Pieces.of(groups, folder, _DONE)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        try:
            _sweep(folder, {path.name for path in pieces.paths})
            make = functools.partial(convert_part, job)
            lacking, _ = shards.complete(make, {dataset.name: pieces}, processes, options)
            if failures := lacking[dataset.name]:
                raise UnfinishedError(failures, len(pieces.files) - len(failures), folder)
            _join(final, groups, pieces, features, notes, overwrite)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            opened.cache_clear()  # it holds open files
            if not any(folder.glob(f"*{_DONE}")):  # nothing to keep
                shutil.rmtree(folder, ignore_errors=True)
    logging.info("wrote %s: %s %d episodes", final, dataset.split, len(dataset))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuses a second process that works in the folder at the same time."""
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process converts into {folder}: wait for its end") from None
        yield


def _sweep(folder: Path, wanted: set[str]) -> None:
    """Deletes what is no wanted part: parts of changed data or options, and what a kill left."""
    for entry in [e for e in folder.iterdir() if e.name not in {*wanted, _LOCK}]:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def _join(final, groups, pieces, features, notes, overwrite):
    """Makes a data set of the parts, whose files are linked, so that a kill loses none."""
    sizes = [_sizes(path) for path in pieces.paths]
    lengths = [length for each in sizes for length in each["lengths"]]
    data, name = groups.data, final.parent.name
    with replacing_folder(final, overwrite, "version", inside=pieces.folder) as partial:
        split = data.split.partition("[")[0].strip()
        template = write.template_of(partial, name, split, _FORMAT)
        files = (
            path / f"{_SHARD}-{i}"
            for path, each in zip(pieces.paths, sizes, strict=True)
            for i in range(len(each["lengths"]))
        )
        for index, file in enumerate(files):
            shard = template.sharded_filepath(shard_index=index, num_shards=len(lengths))
            try:
                os.link(file, shard)
            except OSError:  # a file system without links
                shutil.copyfile(file, shard)
        if notes:
            write_text(partial / NOTES, json.dumps(notes, indent=1, ensure_ascii=False))
        info = dataset_info_pb2.DatasetInfo(
            name=name,
            version=final.name,
            description=f"{data.name} {data.version}, converted",
            file_format=_FORMAT,
            splits=[write.split_info(template, lengths, sum(each["bytes"] for each in sizes))],
        )
        write.write_metadata(partial, info, features)


def _sizes(path: Path) -> dict[str, Any]:
    """Returns the sizes of a part; deletes one that is damaged, and raises ValueError."""
    try:
        sizes = json.loads((path / _SIZES).read_text())
        for index, size in enumerate(sizes["files"]):
            if (found := (path / f"{_SHARD}-{index}").stat().st_size) != size:
                raise ValueError(f"its shard {index} has {found} bytes, expected {size}")
        return sizes
    except (ValueError, KeyError, TypeError, OSError) as error:
        shutil.rmtree(path, ignore_errors=True)
        raise ValueError(
            f"{path} was damaged ({first_line(error)}) and is deleted: the same command makes it "
            "anew"
        ) from error
