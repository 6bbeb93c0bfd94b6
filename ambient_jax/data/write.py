"""Write a TFDS / RLDS dataset to disk without TensorFlow.

`tfds.builder_from_directory` reads it, with TensorFlow (tf.data for tfrecord, `as_data_source` for
array_record), and so does `ambient_jax.data.rlds` without it.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Literal

import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from tensorflow_datasets.core import dataset_info as tfds_dataset_info
from tensorflow_datasets.core import naming
from tensorflow_datasets.core.proto import dataset_info_pb2

from ambient_jax import _checks
from ambient_jax.data import tfrecord
from ambient_jax.data.example_proto import EpisodeEncoder
from ambient_jax.data.features import rlds_features
from ambient_jax.data.paths import expanded
from ambient_jax.data.records import TFRecords

__all__ = ["rlds_features", "write_dataset"]

_SHARD_BYTES = 256 << 20

Episodes = Iterable[Mapping[str, Any]]


def write_dataset(
    directory: str | os.PathLike[str],
    *,
    name: str,
    version: str,
    features: tfds.features.FeaturesDict,
    episodes: Episodes | Mapping[str, Episodes],
    split: str = "train",
    file_format: Literal["array_record", "tfrecord"] = "array_record",
    shards: int | None = None,
    description: str = "",
    citation: str = "",
    overwrite: bool = False,
) -> Path:
    """Writes episodes, one at a time in memory, and returns ``<directory>/<name>/<version>``.

    The files appear under that name only once all is written. Episode i of a split is record i
    over its shards in order, so `RldsDataset` numbers the episodes as they came.

    Note what a ``tf.Example`` can hold: float64 features are stored as float32 (stock TFDS does
    the same); ``encoding="zlib"`` or ``"bytes"`` on the Tensor keeps all bits.

    Args:
      directory: parent of all datasets; created if missing. A local path.
      name: dataset name, letters, digits and underscores.
      version: ``"1.0.0"``.
      features: of an episode, best from `rlds_features`.
      episodes: episodes of ``split``, steps as arrays [T, ...]; or a dict of split name to
        episodes. Text is str or bytes, images are arrays [T, H, W, C] or encoded bytes.
      split: the split's name where ``episodes`` is no dict.
      file_format: array_record for random access, tfrecord for tf.data.
      shards: files of each split, at most one an episode; by default one for each 256 MiB.
      description: free text, goes into the metadata.
      citation: BibTeX, goes into the metadata.
      overwrite: replace a finished dataset of that name and version.

    Raises:
      FileExistsError: the dataset exists and ``overwrite`` is False.
      ValueError: a name, version or option is malformed; an episode does not match the features
        (named by split, episode and field); there is no episode.
    """
    if re.match(r"\w+://", os.fspath(directory)):
        raise ValueError(
            f"cannot write to {os.fspath(directory)!r}: give a local directory, then copy it there"
        )
    _checks.one_of("file_format", file_format, ("array_record", "tfrecord"))
    if not re.fullmatch(r"[a-zA-Z]\w*", name):
        raise ValueError(f"name is {name!r}, expected letters, digits and underscores")
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ValueError(f"version is {version!r}, expected three numbers such as '1.0.0'")
    if shards is not None and shards < 1:
        raise ValueError(f"shards is {shards}, expected at least 1, or None")
    splits = episodes if isinstance(episodes, Mapping) else {split: episodes}
    for split_name in splits:
        if not re.fullmatch(r"[a-zA-Z]\w*", split_name) or split_name == "all":
            raise ValueError(
                f"split is {split_name!r}, expected letters, digits and underscores, not 'all'"
            )
    encoder = EpisodeEncoder(features)

    final = Path(expanded(directory)) / name / version
    _refuse_existing(final, overwrite)
    # Beside its final place, so that the rename stays in one file system; hidden, so that
    # what an interrupt leaves behind is not taken for a version.
    partial = final.parent / f".{version}.partial-{uuid.uuid4().hex[:8]}"
    partial.mkdir(parents=True)
    try:
        info = dataset_info_pb2.DatasetInfo(
            name=name,
            version=version,
            description=description,
            citation=citation,
            file_format=file_format,
        )
        for split_name, split_episodes in splits.items():
            template = naming.ShardedFileTemplate(
                data_dir=partial,
                dataset_name=name,
                split=split_name,
                filetype_suffix=file_format,
            )
            records = _encode(encoder, split_episodes, split_name)
            num_episodes = len(split_episodes) if isinstance(split_episodes, Sized) else None
            info.splits.append(_write_split(template, records, shards, num_episodes))
        features.save_config(partial)
        tfds_dataset_info.write_dataset_info_proto(info, dataset_info_dir=partial)
        _publish(partial, final, overwrite)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sizes = ", ".join(f"{s.name} {sum(s.shard_lengths)} episodes" for s in info.splits)
    logging.info("wrote %s: %s", final, sizes)
    return final


def _refuse_existing(final: Path, overwrite: bool) -> None:
    if final.exists() and not overwrite:
        raise FileExistsError(
            f"{final} exists: choose another version, or pass overwrite=True to replace it"
        )


def _publish(partial: Path, final: Path, overwrite: bool) -> None:
    _refuse_existing(final, overwrite)
    old = final.parent / f".{final.name}.replaced-{uuid.uuid4().hex[:8]}"
    if final.exists():
        final.rename(old)
    partial.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _encode(encoder: EpisodeEncoder, episodes: Episodes, split: str) -> Iterator[bytes]:
    for index, episode in enumerate(episodes):
        try:
            yield encoder(episode)
        except ValueError as error:
            raise ValueError(f"split {split!r}, episode {index}: {error}") from error


def _write_split(
    template: naming.ShardedFileTemplate,
    records: Iterator[bytes],
    shards: int | None,
    num_episodes: int | None,
) -> dataset_info_pb2.SplitInfo:
    prefix = os.fspath(template.data_dir / f"{template.split}.shard")
    starts, spool = None, f"{prefix}.spool"
    if shards is not None:
        if num_episodes is None:  # an even cut needs it: write all to one file to count them
            lengths, _ = _write_shards(spool, records, {0}, "tfrecord")
            num_episodes = sum(lengths)
            spooled = TFRecords([f"{spool}-0"], [num_episodes])
            records = (spooled.read(0, i) for i in range(num_episodes))
        shards = max(1, min(shards, num_episodes))
        starts = {num_episodes * i // shards for i in range(shards)}
    lengths, num_bytes = _write_shards(prefix, records, starts, template.filetype_suffix)
    Path(f"{spool}-0").unlink(missing_ok=True)
    if not lengths:
        raise ValueError(f"split {template.split!r} has no episode: nothing to write")
    # The file names tell the number of shards, which is known only now.
    for index in range(len(lengths)):
        path = template.sharded_filepath(shard_index=index, num_shards=len(lengths))
        os.rename(f"{prefix}-{index}", path)
    return dataset_info_pb2.SplitInfo(
        name=template.split,
        shard_lengths=lengths,
        num_bytes=num_bytes,
        filepath_template=template.template,
    )


def _write_shards(
    prefix: str, records: Iterator[bytes], starts: set[int] | None, file_format: str
) -> tuple[list[int], int]:
    """Writes ``<prefix>-0``, ``-1``...; returns the number of records of each and all bytes.

    ``starts`` are the first records of the shards; None begins a new one every 256 MiB.
    """
    lengths: list[int] = []
    num_bytes = shard_bytes = 0
    writer = None
    try:
        for index, record in enumerate(records):
            full = shard_bytes >= _SHARD_BYTES if starts is None else index in starts
            if writer is None or full:
                if writer is not None:
                    writer.close()
                writer = _writer(f"{prefix}-{len(lengths)}", file_format)
                lengths.append(0)
                shard_bytes = 0
            writer.write(record)
            lengths[-1] += 1
            shard_bytes += len(record)
            num_bytes += len(record)
    finally:
        if writer is not None:
            writer.close()
    return lengths, num_bytes


def _writer(path: str, file_format: str) -> Any:
    if file_format == "tfrecord":
        return tfrecord.TFRecordWriter(path)
    # One record a chunk: what random access wants, and what TFDS itself writes.
    return array_record_module.ArrayRecordWriter(path, "group_size:1")
