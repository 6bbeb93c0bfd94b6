"""Writes small data sets with the features of real ones, for tests and trial runs."""

import functools
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from ambient_jax.data import example_encode, write
from ambient_jax.data.features import nest
from ambient_jax.open_x import registry, rotations
from ambient_jax.open_x.spec import Field, Part

_NUMBERS = {
    **{"f32": np.float32, "f64": np.float64, "f32_zlib": np.float32, "u8": np.uint8},
    **{"i32": np.int32, "i64": np.int64, "bool": np.bool_, "codepoints": np.int32},
}
_IMAGES = {"jpeg": np.uint8, "png_u16": np.uint16, "png_f32": np.float32}
_ENTRY = re.compile(r"(?P<path>/?[\w/]+):(?P<type>\w+)(?:\[(?P<shape>[\d,]+)\])?\??")
INSTRUCTIONS = ("pick up the block", "open the drawer", "push the cup to the left")
_FRAMES = 4  # different images per camera, as encoding is slow


def schema(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns type and shape of every stored field of a data set, by path from the episode's root.

    Types are those of schema.csv: numbers, ``text``, ``jpeg``, ``png_u16``, ``png_f32``,
    ``f32_zlib`` (compressed) and ``codepoints``. Flags such as is_first are omitted.
    """
    fields = {}
    for entry in registry.get(name).schema.split(";"):
        match = _ENTRY.fullmatch(entry.strip())
        if not match:
            raise ValueError(
                f"{name}: schema.csv has {entry.strip()!r}, expected 'path:type[shape]'"
            )
        path, kind = match["path"], match["type"]
        shape = tuple(int(n) for n in (match["shape"] or "").split(",") if n)
        fields[path[1:] if path[0] == "/" else f"steps/{path}"] = (kind, shape)
    return fields


def features(name: str) -> tfds.features.FeaturesDict:
    """Returns the TFDS features of a data set of the registry."""
    step: dict[str, Any] = {"observation": {}, "action": {}}
    episode: dict[str, Any] = {}
    for path, (kind, shape) in schema(name).items():
        connector = _connector(kind, shape)
        target, inner = (step, path[6:]) if path.startswith("steps/") else (episode, path)
        group, _, key = inner.partition("/")
        if key:  # keys below observation and action may contain slashes
            target.setdefault(group, {})[key] = connector
        else:
            target[group] = connector
    rlds = write.rlds_features(step.pop("observation"), step.pop("action"), step)
    return tfds.features.FeaturesDict({**dict(rlds.items()), **episode})


def episode(name: str, length: int, seed: int = 0) -> dict[str, Any]:
    """Returns an episode [T = length] of a data set with values in the range of its spec."""
    data_set = registry.get(name)
    rng = np.random.default_rng([seed, length])
    flat: dict[str, Any] = {
        path: _values(rng, path, kind, shape, length if path.startswith("steps/") else None)
        for path, (kind, shape) in schema(name).items()
    }
    if data_set.state_encoding == "POS_QUAT":
        _unit_quaternion(data_set.spec.state, flat)
    for part in data_set.spec.action:
        _fill(rng, part, flat, length)
    steps = np.arange(length)
    flat["steps/is_first"] = steps == 0
    flat["steps/is_last"] = flat["steps/is_terminal"] = steps == length - 1
    flat["steps/reward"] = flat["steps/is_last"].astype(np.float32)
    flat["steps/discount"] = np.ones(length, np.float32)
    return nest(flat)


def write_fixture(
    directory: str | os.PathLike[str],
    name: str,
    *,
    lengths: Sequence[int] = (6, 5),
    file_format: Literal["array_record", "tfrecord"] = "array_record",
    seed: int = 0,
    shards: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a small data set with a registry row's name, version and features.

    Args:
      directory: parent of all data sets; the folder is `folder(name)`.
      name: name of the data set.
      lengths: steps of each episode, at least 3.
      seed: seed of the values.
      file_format, shards, overwrite: see ``write.write_dataset``, also for the result.
    """
    data_set = registry.get(name)
    if not lengths or min(lengths) < 3:
        raise ValueError(f"lengths is {tuple(lengths)}, expected episodes of at least 3 steps")
    return write.write_dataset(
        directory,
        name=folder(name),
        version=data_set.version or "0.1.0",
        features=features(name),
        episodes=[episode(name, n, seed * len(lengths) + i) for i, n in enumerate(lengths)],
        file_format=file_format,
        shards=shards,
        description=f"Random values with the features of {name}.",
        overwrite=overwrite,
    )


def folder(name: str) -> str:
    """Returns the folder that `write_fixture` writes, which differs for each registry row."""
    data_set = registry.get(name)
    rows = [d.name for d in registry.data_sets().values() if d.tfds and d.tfds == data_set.tfds]
    return data_set.tfds if rows and rows[0] == name else name


def _connector(kind: str, shape: tuple[int, ...]) -> Any:
    if kind == "text":
        return tfds.features.Text()
    if kind in _IMAGES:
        dtype, encoding = _IMAGES[kind], kind.partition("_")[0]
        return tfds.features.Image(shape=shape, dtype=dtype, encoding_format=encoding)
    encoding = "zlib" if kind.endswith("zlib") else "none"
    return tfds.features.Tensor(shape=shape, dtype=_NUMBERS[kind], encoding=encoding)


def _values(rng, path: str, kind: str, shape: tuple[int, ...], length: int | None) -> Any:
    """Returns values [T, ...] of a step's field, or one of an episode's field (length None)."""
    count = 1 if length is None else length
    if kind in _IMAGES:
        first = int(rng.integers(_FRAMES))
        return [_frame(kind, shape, (first + t) % _FRAMES) for t in range(count)]
    sentence = INSTRUCTIONS[int(rng.integers(len(INSTRUCTIONS)))]
    if kind == "text":
        if path.endswith("path"):
            sentence = f"/data/{('failure', 'success')[int(rng.integers(2))]}/{path}.h5"
        if path.endswith("labeled_by"):
            sentence = ("human", "classifier")[int(rng.integers(2))]
        return sentence if length is None else np.array([sentence] * count, object)
    if kind == "codepoints":
        points = np.zeros((count, *shape), np.int32)
        points[:, : len(sentence)] = [ord(c) for c in sentence]
        return points
    dtype = _NUMBERS[kind]
    if kind == "bool":
        values = rng.random((count, *shape)) < 0.5
        if path.rsplit("/", 1)[-1].startswith("has_image"):
            values[:] = True
    elif kind in ("u8", "i32", "i64"):
        values = rng.integers(0, 2, (count, *shape)).astype(dtype)
    else:
        values = rng.uniform(-0.5, 0.5, (count, *shape)).astype(dtype)
    if path.endswith("action_mode"):
        values = rng.integers(-1, 2, (count, *shape)).astype(dtype)
    return values if length is not None else values[0]


@functools.lru_cache(maxsize=256)
def _frame(kind: str, shape: tuple[int, ...], number: int) -> bytes:
    """Returns an encoded image: a ramp with a patch that moves with the number."""
    height, width, channels = shape
    ramp = np.linspace(0, 200, width, dtype=np.float32)[None, :, None]
    image = np.broadcast_to(ramp, shape).copy()
    top = number * height // (_FRAMES + 1)
    image[top : top + height // 5, : width // 3] = np.array([255, 128, 0])[:channels]
    image = image.astype(_IMAGES[kind])
    if kind != "jpeg":
        return example_encode.encode_image(image, _connector(kind, shape))
    out = io.BytesIO()
    PIL.Image.fromarray(image).save(out, "JPEG")
    return out.getvalue()


def _unit_quaternion(state: tuple[Field, ...], flat: dict[str, Any]) -> None:
    """Gives numbers 3 to 7 of a state that is a pose with a quaternion unit length."""
    views = []
    for field in state:
        array = flat[field.key]
        views += list(array.reshape(len(array), -1).T[slice(*field.window)])
    if len(views) >= 7:
        norm = np.sqrt(sum(v**2 for v in views[3:7])) + 1e-3
        for view in views[3:7]:
            view /= norm


def _fill(rng: np.random.Generator, part: Part, flat: dict[str, Any], length: int) -> None:
    """Overwrites the numbers that a part of the action reads with values in their range."""
    field = part.field
    if field.constant:
        return
    array = flat[field.key]
    if array.dtype.kind in "bi":
        return  # already 0 or 1
    columns = array.reshape(length, -1)[:, slice(*field.window)]  # a view of the episode
    width = columns.shape[1]
    if part.kind == "grip":
        columns[:] = _gripper(rng, field, length)[:, None]
        return
    small = rng.uniform(-0.05, 0.05, (length, width))
    if part.kind == "joint" or field.has("diff"):
        small = np.cumsum(small, 0) + rng.uniform(-0.5, 0.5, width)
    if part.is_rotation and part.kind not in ("unstated", "yaw"):
        rotvec = rng.uniform(-0.1, 0.1, (length, 3))
        if field.has("diff"):  # about half a turn, so that angles wrap now and then
            rotvec = np.cumsum(rotvec, 0) + np.array([0.0, 0.0, np.pi])
        matrix = rotations.to_matrix("rotvec", rotvec)
        encoding = "rpy" if part.kind == "zxy" else part.kind
        small = rotations.from_matrix(encoding, matrix)
    columns[:] = small / field.scale


def _gripper(rng: np.random.Generator, field: Field, length: int) -> np.ndarray:
    if field.has("relative"):
        return rng.choice([-1.0, 0.0, 1.0], length)
    if field.has("clip"):
        return rng.choice([-1.0, 1.0], length)
    opened = rng.uniform(0, 1, length)
    if field.has("binarise"):
        opened[rng.random(length) < 0.6] = float(rng.integers(2))
    if words := field.words("closed"):
        closed, _, fully = words
        return float(closed) + opened * (float(fully) - float(closed))
    return opened
