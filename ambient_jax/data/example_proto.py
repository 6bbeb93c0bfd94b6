"""One RLDS episode to and from the bytes of one ``tf.train.Example``, without TensorFlow.

TFDS's own ``deserialize_example_np`` decodes step by step. Here the T values of a field, which are
one list of the proto, become one array [T, ...] at once: 40 times faster if images stay encoded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ambient_jax import _checks
from ambient_jax.data import example_wire, files
from ambient_jax.data.features import Leaf, flatten, is_dict, is_sequence, leaves, nest, select

Episode = dict[str, Any]

_JPEG_QUALITY = 95  # as tf.io.encode_jpeg, and so TFDS


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
        every = leaves(features)
        paths = list(every) if keys is None else select(every, keys, "the dataset")
        self._leaves = [every[p] for p in paths if every[p].kind != "other"]
        self._others = [every[p] for p in paths if every[p].kind == "other"]
        self._other_features = _subtree(features, "", {leaf.path for leaf in self._others})
        self._decode_images = decode_images
        self._paths = None if keys is None else tuple(paths)

    def __call__(self, record: bytes) -> Episode:
        """Decodes one episode.

        Text and undecoded images are bytes; per-step fields are arrays [T, ...] (dtype object for
        bytes, and for ragged fields and images of differing sizes); the rest numpy scalars
        or arrays.

        Raises:
          ValueError: the bytes do not parse, or do not agree with the features.
        """
        with _explained("not a tf.train.Example"):
            fields = example_wire.parse(record, self._paths).feature
        flat: dict[str, Any] = {}
        for leaf in self._leaves:
            if leaf.path + _suffix(leaf) not in fields:
                raise ValueError(f"has no {leaf.path!r}, which features.json promises")
            with _explained(f"{leaf.path!r} cannot be decoded"):
                flat[leaf.path] = self._decode(leaf, fields)
        if self._others:
            names = ", ".join(leaf.path for leaf in self._others)
            what = f"{names} cannot be decoded without TensorFlow"
            with _explained(what, ": leave it out by keys="):
                flat |= _decode_by_tfds(fields, self._other_features, self._others)
        _check_lengths(flat, self._leaves + self._others)
        return nest(flat)

    def _decode(self, leaf: Leaf, fields: Any) -> Any:
        field = fields[leaf.path + _suffix(leaf)]
        stored, expected = field.WhichOneof("kind"), "bytes_list"
        if leaf.kind == "tensor":
            expected = "float_list" if leaf.dtype.kind == "f" else "int64_list"
        if stored not in (None, expected):
            raise ValueError(f"it is stored as {stored}, expected {expected}")
        values = getattr(field, stored).value if stored else []
        if leaf.kind == "tensor":
            return _shaped(_numbers(values, leaf), leaf, fields)
        if leaf.kind == "bytes":
            return _shaped(_objects(values), leaf, fields)
        if leaf.kind == "image":
            if self._decode_images:
                images = [decode_image(blob, leaf.feature) for blob in values]
                return _stacked(images, leaf) if leaf.sequence else images[0]
            return _objects(values) if leaf.sequence else values[0]
        if leaf.feature.to_json_content().encoding == "zlib":
            size = None if None in leaf.shape else _size(leaf) * leaf.dtype.itemsize
            values = example_wire.inflate(values, size)
        if leaf.kind == "ragged":
            return _ragged(values, leaf, fields)
        return _shaped(np.frombuffer(b"".join(values), leaf.dtype).copy(), leaf, fields)


@contextlib.contextmanager
def _explained(what: str, hint: str = "") -> Iterator[None]:
    """Turns any error in here into a ValueError of one line, but for a lack of memory."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{what} ({files.first_line(error)}){hint}") from error


def _suffix(leaf: Leaf) -> str:
    """Where TFDS keeps the values of a field that needs more than one list of the proto."""
    if leaf.rows:
        return "/ragged_flat_values"
    return "/value" if leaf.kind == "ragged" and leaf.shape.count(None) > 1 else ""


def _size(leaf: Leaf) -> int:
    """Numbers in one value of a known shape."""
    return math.prod(d or 0 for d in leaf.shape)


def _numbers(values: Sequence[Any], leaf: Leaf) -> np.ndarray:
    array = np.array(values)
    if leaf.dtype == np.uint64:  # a tf.Example has int64 only, TFDS stores the bits
        return array.astype(np.int64).view(np.uint64)
    cast = array.astype(leaf.dtype, copy=False)
    if leaf.dtype.kind in "iu" and leaf.dtype.itemsize < 8 and (cast != array).any():
        raise ValueError(f"it holds numbers beyond {leaf.dtype}")
    return cast


def _shaped(array: np.ndarray, leaf: Leaf, fields: Any) -> Any:
    shape = [-1 if d is None else d for d in leaf.shape]
    if not leaf.sequence:
        return array.reshape(shape)[()]
    # Without any step, -1 would be ambiguous.
    array = array.reshape(array.size // max(1, _size(leaf)) if _size(leaf) else 0, *shape)
    if not leaf.rows:
        return array
    lengths = np.array(fields[f"{leaf.path}/ragged_row_lengths_0"].int64_list.value).astype(int)
    if (lengths < 0).any() or int(lengths.sum()) != len(array):
        raise ValueError(f"its rows have other lengths than its {len(array)} values")
    if leaf.rows > 0:
        return array.reshape(len(lengths), leaf.rows, *shape)
    return _objects(np.split(array, np.cumsum(lengths))[: len(lengths)])


def _ragged(blobs: Sequence[bytes], leaf: Leaf, fields: Any) -> Any:
    shapes: Any = [[-1 if d is None else d for d in leaf.shape]] * len(blobs)
    if leaf.shape.count(None) > 1:
        shapes = np.array(fields[f"{leaf.path}/shape"].int64_list.value).astype(int)
        shapes = shapes.reshape(len(blobs), len(leaf.shape))
    pairs = zip(blobs, shapes, strict=True)
    arrays = [np.frombuffer(blob, leaf.dtype).copy().reshape(shape) for blob, shape in pairs]
    return _objects(arrays) if leaf.sequence else arrays[0]


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def _stacked(images: list[np.ndarray], leaf: Leaf) -> np.ndarray:
    if not images:
        return np.zeros((0, *(d or 0 for d in leaf.shape)), leaf.dtype)
    return np.stack(images) if len({i.shape for i in images}) == 1 else _objects(images)


def _check_lengths(flat: Mapping[str, Any], fields: Iterable[Leaf]) -> None:
    lengths: dict[str, dict[str, int]] = {}
    for leaf in fields:
        if leaf.sequence:
            lengths.setdefault(leaf.sequence, {})[leaf.path] = len(flat[leaf.path])
    for sequence, by_path in lengths.items():
        if len(set(by_path.values())) > 1:
            numbers = ", ".join(f"{path} {length}" for path, length in by_path.items())
            raise ValueError(f"fields of {sequence!r} differ in length: {numbers}")


def _subtree(feature: Any, path: str, paths: set[str]) -> Any:
    """The features cut down to some leaves, for TFDS's own decoder; None if there are none."""
    if path in paths:
        return feature
    if is_sequence(feature):
        inner = _subtree(feature.feature, path, paths)
        return None if inner is None else type(feature)(inner)
    if is_dict(feature):
        cut = {n: _subtree(f, f"{path}/{n}" if path else n, paths) for n, f in feature.items()}
        cut = {n: f for n, f in cut.items() if f is not None}
        return tfds.features.FeaturesDict(cut) if cut else None
    return None


def _decode_by_tfds(fields: Any, features: Any, chosen: Sequence[Leaf]) -> dict[str, Any]:
    # TFDS's parser fails on a ragged field that is not in its features: cut the record too.
    cut = tf_example_pb2.Example()
    for name, field in fields.items():
        if any(f"{name}/".startswith(f"{leaf.path}/") for leaf in chosen):
            cut.features.feature[name].CopyFrom(field)
    episode = features.deserialize_example_np(cut.SerializeToString())
    flat, sequences = {}, {}
    for leaf in chosen:
        if not leaf.sequence:
            flat[leaf.path] = _get(episode, leaf.path)
            continue
        if leaf.sequence not in sequences:  # TFDS decodes a nested dataset anew at each iteration
            tree = _get(episode, leaf.sequence)
            sequences[leaf.sequence] = tree if isinstance(tree, dict) else list(tree)
        steps, inner = sequences[leaf.sequence], leaf.path[len(leaf.sequence) :].lstrip("/")
        if isinstance(steps, dict):
            flat[leaf.path] = _objects(list(_get(steps, inner)))
        else:
            flat[leaf.path] = _objects([_get(step, inner) for step in steps])
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
        converts = dtype == np.uint8 and mode and image.mode != mode
        array = np.asarray(image.convert(mode) if converts else image).astype(dtype, copy=False)
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
    jpeg = feature.encoding_format == "jpeg"
    options = {"quality": _JPEG_QUALITY} if jpeg else {}
    PIL.Image.fromarray(image).save(out, "JPEG" if jpeg else "PNG", **options)
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
        _check_lengths(values, self._leaves.values())
        fields = {path: _to_feature(leaf, values[path]) for path, leaf in self._leaves.items()}
        example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
        return example.SerializeToString()


def _checked(leaf: Leaf, value: Any) -> Any:
    """The value as an array of the feature's dtype, or as a list of blobs or images."""
    if leaf.kind == "bytes":
        array = np.asarray(value, object)
        _check_shape(leaf, array.shape)
        texts = [v.encode() if isinstance(v, str) else v for v in array.reshape(-1)]
        for text in texts:
            if not isinstance(text, bytes):
                name = type(text).__name__
                raise ValueError(f"{leaf.path!r} holds {name}, expected str or bytes")
        return _objects(texts).reshape(array.shape)
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
    if len(shape) != len(expected) or any(
        e not in (None, n) for n, e in zip(shape, expected, strict=True)
    ):
        names = ["?" if e is None else str(e) for e in expected]
        if leaf.sequence:
            names[0] = "T"
        raise ValueError(f"{leaf.path!r} has shape {list(shape)}, expected [{', '.join(names)}]")


def _to_feature(leaf: Leaf, value: Any) -> tf_feature_pb2.Feature:
    if leaf.kind == "tensor" and leaf.dtype.kind == "f":
        numbers = value.astype(np.float32).reshape(-1).tolist()
        return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=numbers))
    if leaf.kind == "tensor":
        value = value.view(np.int64) if leaf.dtype == np.uint64 else value.astype(np.int64)
        numbers = value.reshape(-1).tolist()
        return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=numbers))
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
