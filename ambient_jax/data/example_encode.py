"""Encodes an RLDS episode as the bytes of one ``tf.train.Example``, without TensorFlow."""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ambient_jax import _checks
from ambient_jax.data.example_proto import check_step_counts, object_array
from ambient_jax.data.features import Leaf, flatten, leaves

_JPEG_QUALITY = 95  # as tf.io.encode_jpeg, and so TFDS


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
        return example.SerializeToString(deterministic=True)


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
