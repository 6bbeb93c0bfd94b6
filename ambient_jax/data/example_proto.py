"""One RLDS episode to and from the bytes of one ``tf.train.Example``, without TensorFlow.

Steps are coded as structures of arrays: a field of T steps is one list of the proto, so it becomes
one numpy array [T, ...] at once instead of T times one step.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ambient_jax import _checks
from ambient_jax.data import example_wire, files
from ambient_jax.data.features import Leaf, flatten, is_dict, is_sequence, leaves, nest, select

Episode = dict[str, Any]

_JPEG_QUALITY = 95  # what tf.io.encode_jpeg, and so TFDS, uses


class EpisodeDecoder:
    """Bytes of a ``tf.train.Example`` to an episode.

    Args:
      features: the dataset's features.
      keys: paths to decode, whole subtrees too (``steps/observation``); all by default.
      decode_images: False leaves images as encoded bytes, an object array [T].
    """

    def __init__(
        self,
        features: tfds.features.FeaturesDict,
        keys: Iterable[str] | None = None,
        decode_images: bool = True,
    ):
        found = leaves(features)
        chosen = found if keys is None else select(found, keys, "the dataset")
        self._leaves = [found[p] for p in chosen if found[p].kind != "other"]
        self._others = [found[p] for p in chosen if found[p].kind == "other"]
        self._decode_images = decode_images
        self._other_features = _subtree(features, self._others) if self._others else None
        self._wanted = None if keys is None else tuple(chosen)

    def __call__(self, record: bytes) -> Episode:
        """Decodes one episode.

        Text and undecoded images are bytes; per-step fields are arrays [T, ...] (dtype object for
        bytes, and for ragged fields and images of differing sizes); the rest numpy scalars
        or arrays.

        Raises:
          ValueError: the bytes do not parse, or do not agree with the features.
        """
        try:
            fields = example_wire.parse(record, self._wanted).feature
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"not a tf.train.Example ({files.first_line(error)})") from error
        flat: dict[str, Any] = {}
        for leaf in self._leaves:
            stored = leaf.path + _stored_suffix(leaf)
            if stored not in fields:
                raise ValueError(f"has no {leaf.path!r}, which features.json promises")
            try:
                flat[leaf.path] = self._decode(leaf, fields[stored], fields)
            except MemoryError:
                raise
            except Exception as error:
                told = files.first_line(error)
                raise ValueError(f"{leaf.path!r} cannot be decoded ({told})") from error
        if self._other_features is not None:
            try:
                flat.update(_decode_by_tfds(fields, self._other_features, self._others))
            except MemoryError:
                raise
            except Exception as error:
                told = ", ".join(leaf.path for leaf in self._others)
                raise ValueError(
                    f"{told} cannot be decoded without TensorFlow ({files.first_line(error)}): "
                    "leave it out by keys="
                ) from error
        lengths = _lengths(flat, self._leaves + self._others)
        for sequence, by_path in lengths.items():
            if len(set(by_path.values())) > 1:
                raise ValueError(f"fields of {sequence!r} differ in length: {by_path}")
        return nest(flat)

    def _decode(self, leaf: Leaf, field: tf_feature_pb2.Feature, fields: Any) -> Any:
        kind = field.WhichOneof("kind")
        values = getattr(field, kind).value if kind else []
        stored = "bytes_list"
        if leaf.kind == "tensor":
            stored = "float_list" if leaf.dtype.kind == "f" else "int64_list"
        if kind and kind != stored:
            raise ValueError(f"it is stored as {kind}, expected {stored}")
        if leaf.kind == "tensor":
            return _reshape(_numbers(values, leaf), leaf, fields)
        blobs = _objects(values)
        if leaf.kind in ("packed", "ragged"):
            if leaf.feature.to_json_content().encoding == "zlib":
                size = None if None in leaf.shape else math.prod(leaf.shape) * leaf.dtype.itemsize
                blobs = example_wire.inflate(blobs, size)
            if leaf.kind == "ragged":
                return _ragged(blobs, leaf, fields)
            return _reshape(np.frombuffer(b"".join(blobs), leaf.dtype).copy(), leaf, fields)
        if leaf.kind == "bytes":
            return _reshape(blobs, leaf, fields)
        if not self._decode_images:
            return blobs if leaf.sequence else blobs[0]
        images = [decode_image(b, leaf.feature) for b in blobs]
        return _stack(images, leaf) if leaf.sequence else images[0]


def _numbers(values: Sequence[Any], leaf: Leaf) -> np.ndarray:
    array = np.array(values)
    if leaf.dtype == np.uint64:  # a tf.Example has int64 only, TFDS stores the bits
        return array.astype(np.int64).view(np.uint64)
    cast = array.astype(leaf.dtype, copy=False)
    if leaf.dtype.kind in "iu" and leaf.dtype.itemsize < 8 and (cast != array).any():
        raise ValueError(f"it holds numbers beyond {leaf.dtype}")
    return cast


def _stored_suffix(leaf: Leaf) -> str:
    """Where TFDS keeps the values of a field that needs more than one list of the proto."""
    if leaf.rows:
        return "/ragged_flat_values"
    return "/value" if leaf.kind == "ragged" and leaf.shape.count(None) > 1 else ""


def _reshape(array: np.ndarray, leaf: Leaf, fields: Any) -> Any:
    shape = [-1 if d is None else d for d in leaf.shape]
    if not leaf.sequence:
        return array.reshape(shape)[()]
    # With no step at all, -1 would be ambiguous.
    array = array.reshape(_count(array, leaf), *shape)
    if not leaf.rows:
        return array
    lengths = np.array(fields[f"{leaf.path}/ragged_row_lengths_0"].int64_list.value).astype(int)
    if (lengths < 0).any() or int(lengths.sum()) != len(array):
        raise ValueError(f"its rows have other lengths than its {len(array)} values")
    if leaf.rows > 0:
        return array.reshape(len(lengths), leaf.rows, *shape)
    return _objects(np.split(array, np.cumsum(lengths))[: len(lengths)])


def _ragged(blobs: Sequence[bytes], leaf: Leaf, fields: Any) -> Any:
    if leaf.shape.count(None) > 1:
        shapes = np.array(fields[f"{leaf.path}/shape"].int64_list.value).astype(int)
        shapes = shapes.reshape(len(blobs), len(leaf.shape))
    else:
        shapes = [[-1 if d is None else d for d in leaf.shape]] * len(blobs)
    arrays = [
        np.frombuffer(b, leaf.dtype).copy().reshape(s) for b, s in zip(blobs, shapes, strict=True)
    ]
    return _objects(arrays) if leaf.sequence else arrays[0]


def _count(array: np.ndarray, leaf: Leaf) -> int:
    size = int(np.prod(leaf.shape))
    return array.size // size if size else 0


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def _stack(images: list[np.ndarray], leaf: Leaf) -> np.ndarray:
    if not images:
        return np.zeros((0, *(d or 0 for d in leaf.shape)), leaf.dtype)
    if len({i.shape for i in images}) == 1:
        return np.stack(images)
    return _objects(images)


def _lengths(flat: Mapping[str, Any], fields: Iterable[Leaf]) -> dict[str, dict[str, int]]:
    lengths: dict[str, dict[str, int]] = {}
    for leaf in fields:
        if leaf.sequence:
            lengths.setdefault(leaf.sequence, {})[leaf.path] = len(flat[leaf.path])
    return lengths


def _subtree(features: Any, chosen: Sequence[Leaf]) -> tfds.features.FeaturesDict:
    """The features cut down to the chosen leaves, for TFDS's own decoder."""

    def cut(path: str, feature: Any) -> Any:
        if any(leaf.path == path for leaf in chosen):
            return feature
        if is_sequence(feature):
            inner = cut(path, feature.feature)
            return None if inner is None else type(feature)(inner)
        if is_dict(feature):
            kept = {n: cut(f"{path}/{n}" if path else n, f) for n, f in feature.items()}
            kept = {n: f for n, f in kept.items() if f is not None}
            return tfds.features.FeaturesDict(kept) if kept else None
        return None

    return cut("", features)


def _decode_by_tfds(fields: Any, features: Any, chosen: Sequence[Leaf]) -> dict[str, Any]:
    flat = {}
    # TFDS's parser stumbles over a ragged field that is not in its features: cut the record too.
    cut = tf_example_pb2.Example()
    for name, field in fields.items():
        if any(f"{name}/".startswith(f"{leaf.path}/") for leaf in chosen):
            cut.features.feature[name].CopyFrom(field)
    episode = features.deserialize_example_np(cut.SerializeToString())
    steps = {  # TFDS decodes a nested dataset anew at each iteration
        s: list(tree) if not isinstance(tree := _get(episode, s), dict) else tree
        for s in {leaf.sequence for leaf in chosen if leaf.sequence}
    }
    for leaf in chosen:
        inner = leaf.path[len(leaf.sequence) :].lstrip("/")
        if not leaf.sequence:
            flat[leaf.path] = _get(episode, leaf.path)
        elif isinstance(steps[leaf.sequence], dict):
            flat[leaf.path] = _objects(list(_get(steps[leaf.sequence], inner)))
        else:
            flat[leaf.path] = _objects([_get(step, inner) for step in steps[leaf.sequence]])
    return flat


def _get(tree: Any, path: str) -> Any:
    for name in path.split("/") if path else ():
        tree = tree[name]
    return tree


def decode_image(blob: bytes, feature: tfds.features.Image) -> np.ndarray:
    """An encoded image to an array [H, W, C] of the feature's dtype and channels."""
    dtype, channels = np.dtype(feature.np_dtype), feature.shape[-1]
    with PIL.Image.open(io.BytesIO(blob)) as image:
        if dtype == np.float32:  # TFDS stores the four bytes of a float as the channels of a png
            return np.asarray(image.convert("RGBA")).view(np.float32)
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(channels)
        if dtype == np.uint8 and mode and image.mode != mode:
            image = image.convert(mode)
        array = np.asarray(image).astype(dtype, copy=False)
    return array[..., None] if array.ndim == 2 else array


def encode_image(image: np.ndarray, feature: tfds.features.Image) -> bytes:
    """An array [H, W, C] to png, or jpeg where the feature says so."""
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
    if feature.encoding_format == "jpeg":
        PIL.Image.fromarray(image).save(out, "JPEG", quality=_JPEG_QUALITY)
    else:
        PIL.Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


class EpisodeEncoder:
    """An episode to the bytes of a ``tf.train.Example``, every field checked.

    Raises:
      ValueError: a feature is of a kind that cannot be written.
    """

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
        """Encodes one episode.

        Raises:
          ValueError: a field is missing or unknown, its shape or dtype is not the feature's, or
            the fields of the steps differ in length.
        """
        flat = flatten(episode)
        for path in self._leaves:
            if path not in flat:
                raise ValueError(
                    f"has no {path!r}, which the features promise{_checks.nearest(path, flat)}"
                )
        for path in flat:
            if path not in self._leaves:
                hint = _checks.nearest(path, self._leaves)
                raise ValueError(f"has {path!r}, which the features do not know{hint}")
        values = {p: _checked(leaf, flat[p]) for p, leaf in self._leaves.items()}
        for sequence, by_path in _lengths(values, self._leaves.values()).items():
            if len(set(by_path.values())) > 1:
                told = ", ".join(f"{p} {n}" for p, n in by_path.items())
                raise ValueError(f"fields of {sequence!r} differ in length: {told}")
        fields = {}
        for path, leaf in self._leaves.items():
            try:
                fields[path] = _to_feature(leaf, values[path])
            except ValueError as error:
                raise ValueError(f"{path!r}: {error}") from error
        example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
        return example.SerializeToString()


def _checked(leaf: Leaf, value: Any) -> Any:
    """The value as an array of the feature's dtype, or as a list of blobs or images."""
    if leaf.kind == "bytes":
        array = np.asarray(value, object)
        _check_shape(leaf, array.shape)
        return _objects([_as_bytes(leaf, v) for v in array.reshape(-1)]).reshape(array.shape)
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
    # A Python number or list has no dtype of its own: it takes the feature's if it fits.
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
    expected = (None, *leaf.shape) if leaf.sequence else leaf.shape
    ok = len(shape) == len(expected) and all(
        e is None or e == s for s, e in zip(shape, expected, strict=True)
    )
    if not ok:
        names = [str(e) if e is not None else "?" for e in expected]
        if leaf.sequence:
            names[0] = "T"
        raise ValueError(f"{leaf.path!r} has shape {list(shape)}, expected [{', '.join(names)}]")


def _as_bytes(leaf: Leaf, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise ValueError(f"{leaf.path!r} holds {type(value).__name__}, expected str or bytes")


def _to_feature(leaf: Leaf, value: Any) -> tf_feature_pb2.Feature:
    if leaf.kind == "image":
        blobs = [v if isinstance(v, bytes) else encode_image(v, leaf.feature) for v in value]
    elif leaf.kind == "bytes":
        blobs = list(value.reshape(-1))
    elif leaf.kind == "packed":
        blobs = [v.tobytes() for v in (value if leaf.sequence else [value])]
        if leaf.feature.to_json_content().encoding == "zlib":
            blobs = [zlib.compress(b) for b in blobs]
    elif leaf.dtype.kind == "f":
        numbers = value.astype(np.float32).reshape(-1).tolist()
        return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=numbers))
    else:
        if leaf.dtype == np.uint64:
            value = value.view(np.int64)
        numbers = value.astype(np.int64).reshape(-1).tolist()
        return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=numbers))
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=blobs))
