"""Writes a TFDS / RLDS dataset to disk without TensorFlow.

`ambient_jax.data.rlds` reads it, and so does `tfds.builder_from_directory` (tfrecord with tf.data,
array_record with `as_data_source`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import dataset_info as tfds_dataset_info
from tensorflow_datasets.core import naming
from tensorflow_datasets.core.proto import dataset_info_pb2

from ambient_jax import _checks
from ambient_jax.data.example_encode import EpisodeEncoder
from ambient_jax.data.paths import expanded, replacing_folder
from ambient_jax.data.records import ArrayRecordWriter, TFRecords, TFRecordWriter

_SHARD_BYTES = 256 << 20

_WRITERS: Any = {"array_record": ArrayRecordWriter, "tfrecord": TFRecordWriter}
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

    The folder appears when all files are written. Shards keep the order of the episodes, so
    `RldsDataset` numbers them in this order. float64 features are stored as float32, as in TFDS;
    ``encoding="zlib"`` or ``"bytes"`` of the Tensor keeps all bits.

    Args:
      directory: parent of all datasets; created if missing. A local path.
      name: dataset name, letters, digits and underscores.
      version: such as ``"1.0.0"``.
      features: features of an episode, best from `rlds_features`.
      episodes: episodes of ``split``, steps as arrays [T, ...]; or a dict of split name to
        episodes. Text is str or bytes, images are arrays [T, H, W, C] or encoded bytes.
      split: the split's name, if ``episodes`` is no dict.
      file_format: array_record for random access, tfrecord for tf.data.
      shards: files of each split, at most one per episode; by default one per 256 MiB.
      description, citation: free text and BibTeX for the metadata.
      overwrite: replace a finished dataset of that name and version.

    Raises:
      FileExistsError: the dataset exists and ``overwrite`` is False.
      ValueError: a name, version or option is malformed; an episode does not match the features
        (with split, episode and field); there is no episode.
    """
    splits = episodes if isinstance(episodes, Mapping) else {split: episodes}
    check_names(directory, name, version, splits)
    _checks.one_of("file_format", file_format, _WRITERS)
    if shards is not None:
        _checks.number("shards", shards, 1, whole=True)
    encoder = EpisodeEncoder(features)

    final = Path(expanded(directory)) / name / version
    with replacing_folder(final, overwrite, "version") as partial:
        written = []
        for split_name, split_episodes in splits.items():
            template = template_of(partial, name, split_name, file_format)
            records = _encode(encoder, split_episodes, split_name)
            num_episodes = len(split_episodes) if isinstance(split_episodes, Sized) else None
            written.append(_write_split(template, records, shards, num_episodes))
        texts = {"description": description, "citation": citation, "file_format": file_format}
        info = dataset_info_pb2.DatasetInfo(name=name, version=version, splits=written, **texts)
        write_metadata(partial, info, features)
    sizes = ", ".join(f"{s.name} {sum(s.shard_lengths)} episodes" for s in written)
    logging.info("wrote %s: %s", final, sizes)
    return final


def check_names(
    directory: str | os.PathLike[str], name: str, version: str, splits: Iterable[str]
) -> None:
    """Raises ValueError if no data set can be written into a folder under these names."""
    if re.match(r"\w+://", os.fspath(directory)):
        raise ValueError(
            f"cannot write to {os.fspath(directory)!r}: give a local directory, then copy it there"
        )
    if not re.fullmatch(r"[a-zA-Z]\w*", name):
        raise ValueError(f"name is {name!r}, expected letters, digits and underscores")
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ValueError(f"version is {version!r}, expected three numbers such as '1.0.0'")
    for split in splits:
        if not re.fullmatch(r"[a-zA-Z]\w*", split) or split == "all":
            raise ValueError(
                f"split is {split!r}, expected letters, digits and underscores, not 'all'"
            )


def template_of(
    folder: Path, name: str, split: str, file_format: str
) -> naming.ShardedFileTemplate:
    """Returns how TFDS names the shards of a split."""
    names = {"dataset_name": name, "split": split, "filetype_suffix": file_format}
    return naming.ShardedFileTemplate(data_dir=folder, **names)


def split_info(
    template: naming.ShardedFileTemplate, lengths: Sequence[int], num_bytes: int
) -> dataset_info_pb2.SplitInfo:
    """Returns what the metadata say of a split whose shards hold ``lengths`` episodes."""
    sizes = {"shard_lengths": lengths, "num_bytes": num_bytes}
    names = {"name": template.split, "filepath_template": template.template}
    return dataset_info_pb2.SplitInfo(**names, **sizes)


def write_metadata(
    folder: Path, info: dataset_info_pb2.DatasetInfo, features: tfds.features.FeaturesDict
) -> None:
    """Writes the files beside the shards; the last one makes the folder a data set."""
    features.save_config(folder)
    tfds_dataset_info.write_dataset_info_proto(info, dataset_info_dir=folder)


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
        if num_episodes is None:  # write all episodes to one file to count them
            lengths, _ = write_shards(spool, records, {0}, "tfrecord")
            num_episodes = sum(lengths)
            spooled = TFRecords([f"{spool}-0"], [num_episodes])
            records = (spooled.read(0, i) for i in range(num_episodes))
        shards = max(1, min(shards, num_episodes))
        starts = {num_episodes * i // shards for i in range(shards)}
    lengths, num_bytes = write_shards(prefix, records, starts, template.filetype_suffix)
    Path(f"{spool}-0").unlink(missing_ok=True)
    if not lengths:
        raise ValueError(f"split {template.split!r} has no episode: nothing to write")
    # The file names contain the number of shards, which is known only now.
    for index in range(len(lengths)):
        path = template.sharded_filepath(shard_index=index, num_shards=len(lengths))
        os.rename(f"{prefix}-{index}", path)
    return split_info(template, lengths, num_bytes)


def write_shards(
    prefix: str, records: Iterator[bytes], starts: set[int] | None, file_format: str
) -> tuple[list[int], int]:
    """Writes ``<prefix>-0``, ``-1``..., with a new file at the records ``starts``, or per 256 MiB.

    Returns the number of records of each file, and the total bytes.
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
                path, shard_bytes = f"{prefix}-{len(lengths)}", 0
                lengths.append(0)
                writer = _WRITERS[file_format](path)
            writer.write(record)
            lengths[-1] += 1
            shard_bytes += len(record)
            num_bytes += len(record)
    finally:
        if writer is not None:
            writer.close()
    return lengths, num_bytes


def rlds_features(
    observation: Mapping[str, Any],
    action: Any,
    step_extra: Mapping[str, Any] | None = None,
    episode_metadata: Mapping[str, Any] | None = None,
) -> tfds.features.FeaturesDict:
    """Returns the standard RLDS features for an observation and an action.

    A field is a TFDS feature connector, a dtype (``str`` is text), an object with a shape and a
    dtype (an array or a ``jax.ShapeDtypeStruct``), or a dict of these. It describes ONE step.

    Args:
      observation: fields of ``steps/observation``.
      action: ``steps/action``, [D] or a dict.
      step_extra: further fields of a step.
      episode_metadata: fields of the episode; None for none.

    Returns:
      Features that also have ``is_first``, ``is_last``, ``is_terminal`` (bool), ``reward`` and
      ``discount`` (float32) in every step.
    """
    step = {"observation": observation, "action": action}
    step |= dict.fromkeys(("is_first", "is_last", "is_terminal"), np.bool_)
    step |= dict.fromkeys(("reward", "discount"), np.float32) | dict(step_extra or {})
    features = {"steps": tfds.features.Dataset({n: _connector(v) for n, v in step.items()})}
    if episode_metadata is not None:
        features["episode_metadata"] = _connector(episode_metadata)
    return tfds.features.FeaturesDict(features)


def _connector(value: Any) -> Any:
    if isinstance(value, tfds.features.FeatureConnector):
        return value
    if isinstance(value, Mapping):
        return tfds.features.FeaturesDict({k: _connector(v) for k, v in value.items()})
    if value is str:
        return tfds.features.Text()
    if hasattr(value, "shape") and not isinstance(value, type | np.dtype):
        return tfds.features.Tensor(shape=tuple(value.shape), dtype=np.dtype(value.dtype))
    return tfds.features.Scalar(dtype=np.dtype(value))
