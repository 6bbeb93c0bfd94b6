"""Decodes an RLDS episode from the bytes of one ``tf.train.Example``, without TensorFlow.

The T values of a field are one list of the proto and become one array [T, ...] at once. If images
stay encoded, this is 40 times faster than TFDS's decoder, which goes step by step.
"""

import contextlib
import functools
import io
import math
import operator
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ambient_jax.data import files
from ambient_jax.data.features import Leaf, is_dict, is_sequence, leaves, nest, select

Episode = dict[str, Any]

_FIRST = 0x0A  # tag of field 1 where its length follows
_INFLATED_BYTES, _INFLATED_RATIO = 1 << 30, 200


class EpisodeDecoder:
    """Decodes the bytes of a ``tf.train.Example`` to an episode.

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
        """Decodes one episode; raises ValueError if the bytes do not parse or fit the features.

        Text and undecoded images are bytes; per-step fields are arrays [T, ...] (dtype object for
        bytes, and for ragged fields and images of differing sizes); other fields are numpy scalars
        or arrays.
        """
        with _explained("not a tf.train.Example"):
            fields = parse(record, self._paths).feature
        flat: dict[str, Any] = {}
        for leaf in self._leaves:
            if leaf.path + _suffix(leaf) not in fields:
                raise ValueError(f"has no {leaf.path!r}, which features.json promises")
            with _explained(f"{leaf.path!r} cannot be decoded"):
                flat[leaf.path] = self._decode(leaf, fields)
        if self._others:
            names = ", ".join(leaf.path for leaf in self._others)
            problem = f"{names} cannot be decoded without TensorFlow"
            with _explained(problem, ": leave it out by keys="):
                flat |= _decode_by_tfds(fields, self._other_features, self._others)
        check_step_counts(flat, self._leaves + self._others)
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
            return _shaped(object_array(values), leaf, fields)
        if leaf.kind == "image" and not self._decode_images:
            return object_array(values) if leaf.sequence else values[0]
        if leaf.kind == "image":
            images = [decode_image(blob, leaf.feature) for blob in values]
            if not images and leaf.sequence:
                return np.zeros((0, *(d or 0 for d in leaf.shape)), leaf.dtype)
            one_shape = len({image.shape for image in images}) == 1
            stacked = np.stack if one_shape else object_array
            return stacked(images) if leaf.sequence else images[0]
        if leaf.feature.to_json_content().encoding == "zlib":
            size = None if None in leaf.shape else _size(leaf) * leaf.dtype.itemsize
            values = inflate(values, size)
        if leaf.kind == "ragged":
            return _ragged(values, leaf, fields)
        return _shaped(np.frombuffer(b"".join(values), leaf.dtype).copy(), leaf, fields)


@contextlib.contextmanager
def _explained(problem: str, hint: str = "") -> Iterator[None]:
    """Turns any error except a lack of memory into a ValueError of one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{problem} ({files.first_line(error)}){hint}") from error


def _suffix(leaf: Leaf) -> str:
    """Returns TFDS's suffix for the values of a field with more than one list in the proto."""
    if leaf.rows:
        return "/ragged_flat_values"
    return "/value" if leaf.kind == "ragged" and leaf.shape.count(None) > 1 else ""


def _size(leaf: Leaf) -> int:
    """Returns the number of numbers in one value of a known shape."""
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
    return object_array(np.split(array, np.cumsum(lengths))[: len(lengths)])


def _ragged(blobs: Sequence[bytes], leaf: Leaf, fields: Any) -> Any:
    shapes: Any = [[-1 if d is None else d for d in leaf.shape]] * len(blobs)
    if leaf.shape.count(None) > 1:
        shapes = np.array(fields[f"{leaf.path}/shape"].int64_list.value).astype(int)
        shapes = shapes.reshape(len(blobs), len(leaf.shape))
    pairs = zip(blobs, shapes, strict=True)
    arrays = [np.frombuffer(blob, leaf.dtype).copy().reshape(shape) for blob, shape in pairs]
    return object_array(arrays) if leaf.sequence else arrays[0]


def object_array(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def check_step_counts(flat: Mapping[str, Any], fields: Iterable[Leaf]) -> None:
    """Raises ValueError unless the fields of each sequence have equal lengths."""
    lengths: dict[str, dict[str, int]] = {}
    for leaf in fields:
        if leaf.sequence:
            lengths.setdefault(leaf.sequence, {})[leaf.path] = len(flat[leaf.path])
    for sequence, by_path in lengths.items():
        if len(set(by_path.values())) > 1:
            numbers = ", ".join(f"{path} {length}" for path, length in by_path.items())
            raise ValueError(f"fields of {sequence!r} differ in length: {numbers}")


def _subtree(feature: Any, path: str, paths: set[str]) -> Any:
    """Reduces features to some leaves, for TFDS's decoder; returns None if there are none."""
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
    # TFDS's parser fails on a ragged field that is not in its features: reduce the record too.
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
        one_tree = isinstance(steps, dict)
        values = _get(steps, inner) if one_tree else [_get(step, inner) for step in steps]
        flat[leaf.path] = object_array(list(values))
    return flat


def _get(tree: Any, path: str) -> Any:
    return functools.reduce(operator.getitem, path.split("/") if path else (), tree)


def decode_image(blob: bytes, feature: tfds.features.Image) -> np.ndarray:
    """Decodes an image to an array [H, W, C] of the feature's dtype and channels."""
    dtype, channels = np.dtype(feature.np_dtype), feature.shape[-1]
    with PIL.Image.open(io.BytesIO(blob)) as image:
        if dtype == np.float32:  # TFDS stores the four bytes of a float as the channels of a png
            return np.asarray(image.convert("RGBA")).view(np.float32)
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(channels)
        converts = dtype == np.uint8 and mode and image.mode != mode
        array = np.asarray(image.convert(mode) if converts else image).astype(dtype, copy=False)
    return array[..., None] if array.ndim == 2 else array


def parse(record: bytes, paths: tuple[str, ...] | None = None) -> tf_feature_pb2.Features:
    """Parses the features at some paths and below them; all if ``paths`` is None.

    An Example has one field, Features, which has one field, a map. An entry of the map is a field
    that begins with a name and has a length, so other entries, which may be most of the bytes, are
    skipped (https://protobuf.dev/programming-guides/encoding). A record with another layout is
    parsed as a whole.

    Raises:
      google.protobuf.message.DecodeError: the bytes do not parse.
    """
    if paths is not None:
        try:
            entries = b"".join(_entries(memoryview(record), paths))
        except (IndexError, ValueError):
            return parse(record)
        return tf_feature_pb2.Features.FromString(entries)
    return tf_example_pb2.Example.FromString(record).features


def _entries(record: memoryview, paths: tuple[str, ...]) -> Iterator[memoryview]:
    """Yields the entries of the map at these paths, as stored."""
    for _, begin, end in _fields(record, 0, len(record)):
        for entry, inner, last in _fields(record, begin, end):
            _, first, past = next(_fields(record, inner, last), (0, 0, 0))
            if _is_below(bytes(record[first:past]), paths):
                yield record[entry:last]


@functools.lru_cache(maxsize=4096)
def _is_below(name: bytes, paths: tuple[str, ...]) -> bool:
    return any(f"{name.decode()}/".startswith(f"{path}/") for path in paths)


def _fields(record: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields (start, start of the value, end) of each field; all fields have number 1."""
    while at < end:
        start, size, shift, more = at, 0, 0, True
        if record[at] != _FIRST:
            raise ValueError(f"tag {record[at]} at byte {at}, expected {_FIRST}")
        while more:  # seven bits a byte, the lowest first
            if shift > 63:
                raise ValueError(f"a length of more than ten bytes at byte {start}")
            at += 1
            size |= (record[at] & 0x7F) << shift
            more, shift = record[at] >= 0x80, shift + 7
        begin, at = at + 1, at + 1 + size
        if at > end:
            raise ValueError(f"a field of {size} bytes at byte {start}, {end - begin} are left")
        yield start, begin, at


def inflate(blobs: Sequence[bytes], size: int | None) -> list[bytes]:
    """Decompresses the tensors of a field, each to at most ``size`` bytes, those of its shape.

    If the shape is unknown (None), the limit for all together is 1 GiB, or 200 times their size if
    that is more. Raises ValueError if a tensor is larger or truncated, zlib.error if damaged.
    """
    budget = max(_INFLATED_BYTES, _INFLATED_RATIO * sum(map(len, blobs)))
    tensors = []
    for blob in blobs:
        most = budget if size is None else size
        stream = zlib.decompressobj()
        data = stream.decompress(blob, most + 1)
        if len(data) > most:
            limit = "is too much for one field" if size is None else "its shape has"
            raise ValueError(f"{len(blob)} compressed bytes become more than {most}, which {limit}")
        if not stream.eof:
            raise ValueError(f"its {len(blob)} compressed bytes are cut short")
        budget -= len(data)
        tensors.append(data)
    return tensors
