"""Writes a TFDS / RLDS dataset to disk without TensorFlow.

`ambient_jax.data.rlds` reads it, and so does `tfds.builder_from_directory` (tfrecord with tf.data,
array_record with `as_data_source`).
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from tensorflow_datasets.core import dataset_info as tfds_dataset_info
from tensorflow_datasets.core import naming
from tensorflow_datasets.core.proto import dataset_info_pb2
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ambient_jax import _checks
from ambient_jax.data.example_proto import check_step_counts, object_array
from ambient_jax.data.features import Leaf, flatten, leaves
from ambient_jax.data.paths import expanded, replacing_folder
from ambient_jax.data.records import TFRecords, TFRecordWriter

_SHARD_BYTES = 256 << 20
_JPEG_QUALITY = 95  # as tf.io.encode_jpeg, and so TFDS

_WRITERS = {
    # One record per chunk, for random access; TFDS writes the same.
    "array_record": lambda path: array_record_module.ArrayRecordWriter(path, "group_size:1"),
    "tfrecord": TFRecordWriter,
}
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
    if re.match(r"\w+://", os.fspath(directory)):
        raise ValueError(
            f"cannot write to {os.fspath(directory)!r}: give a local directory, then copy it there"
        )
    _checks.one_of("file_format", file_format, _WRITERS)
    if not re.fullmatch(r"[a-zA-Z]\w*", name):
        raise ValueError(f"name is {name!r}, expected letters, digits and underscores")
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ValueError(f"version is {version!r}, expected three numbers such as '1.0.0'")
    if shards is not None:
        _checks.number("shards", shards, 1, whole=True)
    splits = episodes if isinstance(episodes, Mapping) else {split: episodes}
    for split_name in splits:
        if not re.fullmatch(r"[a-zA-Z]\w*", split_name) or split_name == "all":
            raise ValueError(
                f"split is {split_name!r}, expected letters, digits and underscores, not 'all'"
            )
    encoder = EpisodeEncoder(features)

    final = Path(expanded(directory)) / name / version
    with replacing_folder(final, overwrite, "version") as partial:
        texts = {"description": description, "citation": citation, "file_format": file_format}
        info = dataset_info_pb2.DatasetInfo(name=name, version=version, **texts)
        for split_name, split_episodes in splits.items():
            names = {"dataset_name": name, "split": split_name, "filetype_suffix": file_format}
            template = naming.ShardedFileTemplate(data_dir=partial, **names)
            records = _encode(encoder, split_episodes, split_name)
            num_episodes = len(split_episodes) if isinstance(split_episodes, Sized) else None
            info.splits.append(_write_split(template, records, shards, num_episodes))
        features.save_config(partial)
        tfds_dataset_info.write_dataset_info_proto(info, dataset_info_dir=partial)
    sizes = ", ".join(f"{s.name} {sum(s.shard_lengths)} episodes" for s in info.splits)
    logging.info("wrote %s: %s", final, sizes)
    return final


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
    # The file names contain the number of shards, which is known only now.
    for index in range(len(lengths)):
        path = template.sharded_filepath(shard_index=index, num_shards=len(lengths))
        os.rename(f"{prefix}-{index}", path)
    sizes = {"shard_lengths": lengths, "num_bytes": num_bytes}
    names = {"name": template.split, "filepath_template": template.template}
    return dataset_info_pb2.SplitInfo(**names, **sizes)


def _write_shards(
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


class EpisodeEncoder:
    """Encodes episodes as ``tf.train.Example``; raises ValueError for an impossible feature."""

    def __init__(self, features: tfds.features.FeaturesDict):
        self._leaves = leaves(features)
        for leaf in self._leaves.values():
            if leaf.rows or leaf.kind in ("ragged", "other"):
                raise ValueError(
                    f"feature {leaf.path!r} cannot be written ({leaf.feature!r} of varying size or "
                    "inside a nested sequence): use Tensor of a fixed shape, Scalar, Text, Image "
                    "or ClassLabel"
                )

    def __call__(self, episode: Mapping[str, Any]) -> bytes:
        """Encodes one episode; raises ValueError if its fields do not match the features."""
        flat = flatten(episode)
        for path in (p for p in self._leaves if p not in flat):
            hint = _checks.nearest(path, flat)
            raise ValueError(f"has no {path!r}, which the features promise{hint}")
        for path in (p for p in flat if p not in self._leaves):
            hint = _checks.nearest(path, self._leaves)
            raise ValueError(f"has {path!r}, which the features do not know{hint}")
        values = {p: _checked(leaf, flat[p]) for p, leaf in self._leaves.items()}
        check_step_counts(values, self._leaves.values())
        fields = {path: _to_feature(leaf, values[path]) for path, leaf in self._leaves.items()}
        example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
        return example.SerializeToString()


def _checked(leaf: Leaf, value: Any) -> Any:
    """Returns the value as an array of the feature's dtype, or as a list of blobs or images."""
    if leaf.kind == "bytes":
        array = np.asarray(value, object)
        _check_shape(leaf, array.shape)
        texts = [v.encode() if isinstance(v, str) else v for v in array.reshape(-1)]
        for text in texts:
            if not isinstance(text, bytes):
                name = type(text).__name__
                raise ValueError(f"{leaf.path!r} holds {name}, expected str or bytes")
        return object_array(texts).reshape(array.shape)
    if leaf.kind == "image":
        images = value if leaf.sequence else [value]
        if not isinstance(images, np.ndarray | Sequence) or isinstance(images, bytes):
            raise ValueError(f"{leaf.path!r} is {type(value).__name__}, expected T images")
        frames = [v if isinstance(v, bytes) else np.asarray(v) for v in images]
        single = dataclasses.replace(leaf, sequence="")
        for frame in frames:
            if not isinstance(frame, bytes):
                _check_dtype(leaf, frame.dtype)
                _check_shape(single, frame.shape)
        return frames
    array = np.asarray(value)
    # A Python number or list has no dtype and takes that of the feature if it fits.
    exact = hasattr(value, "dtype") and not isinstance(value, np.generic)
    if exact or not np.can_cast(array.dtype, leaf.dtype, "same_kind") and array.size:
        _check_dtype(leaf, array.dtype)
    _check_shape(leaf, array.shape)
    cast = array.astype(leaf.dtype, copy=False)
    if leaf.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise ValueError(f"{leaf.path!r} holds values beyond {leaf.dtype}: widen the feature")
    return cast


def _check_dtype(leaf: Leaf, dtype: np.dtype) -> None:
    same_bool = (dtype == np.bool_) == (leaf.dtype == np.bool_)
    if not (same_bool and np.can_cast(dtype, leaf.dtype, "safe")):
        raise ValueError(
            f"{leaf.path!r} has dtype {dtype}, expected {leaf.dtype}: cast it with "
            f".astype(np.{leaf.dtype})"
        )


def _check_shape(leaf: Leaf, shape: tuple[int, ...]) -> None:
    expected = ("T", *leaf.shape) if leaf.sequence else leaf.shape
    fits = [e in (None, "T", n) for n, e in zip(shape, expected, strict=False)]
    if len(shape) != len(expected) or not all(fits):
        names = ", ".join("?" if e is None else str(e) for e in expected)
        raise ValueError(f"{leaf.path!r} has shape {list(shape)}, expected [{names}]")


def _to_feature(leaf: Leaf, value: Any) -> tf_feature_pb2.Feature:
    if leaf.kind == "tensor" and leaf.dtype.kind == "f":
        floats = tf_feature_pb2.FloatList(value=value.astype(np.float32).reshape(-1).tolist())
        return tf_feature_pb2.Feature(float_list=floats)
    if leaf.kind == "tensor":
        value = value.view(np.int64) if leaf.dtype == np.uint64 else value.astype(np.int64)
        integers = tf_feature_pb2.Int64List(value=value.reshape(-1).tolist())
        return tf_feature_pb2.Feature(int64_list=integers)
    if leaf.kind == "bytes":
        blobs = list(value.reshape(-1))
    elif leaf.kind == "image":
        try:
            blobs = [v if isinstance(v, bytes) else encode_image(v, leaf.feature) for v in value]
        except ValueError as error:
            raise ValueError(f"{leaf.path!r}: {error}") from error
    else:
        blobs = [v.tobytes() for v in (value if leaf.sequence else [value])]
        if leaf.feature.to_json_content().encoding == "zlib":
            blobs = [zlib.compress(blob) for blob in blobs]
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=blobs))


def encode_image(image: np.ndarray, feature: tfds.features.Image, compress_level: int = 6) -> bytes:
    """An array [H, W, C] to png of a zlib level, or jpeg where the feature says so."""
    image = np.ascontiguousarray(image)
    if image.dtype == np.float32:
        image = image.view(np.uint8)
    if image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 3 and image.dtype != np.uint8:
        raise ValueError(
            f"{image.dtype} images of several channels cannot be written: use a Tensor"
        )
    out = io.BytesIO()
    jpeg = feature.encoding_format == "jpeg"
    options = {"quality": _JPEG_QUALITY} if jpeg else {"compress_level": compress_level}
    PIL.Image.fromarray(image).save(out, "JPEG" if jpeg else "PNG", **options)
    return out.getvalue()
