"""Fields of any data set as features of LeRobot, and those that LeRobot has no place for."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import tensorflow_datasets as tfds

from ambient_jax.data.dataset import Dataset, FolderDataset
from ambient_jax.data.example_encode import encode_image
from ambient_jax.data.example_proto import decode_image
from ambient_jax.data.features import Leaf, leaves
from ambient_jax.data.storage.lerobot import LeRobotDataset
from ambient_jax.data.storage.lerobot_schema import LANGUAGE
from ambient_jax.data.storage.video import Clip

NUMBERED = ("frame_index", "episode_index", "index", "task_index")
_PNG_LEVEL = 1  # a quarter of the time of level 6 for a fifth more bytes
_BOUNDARIES = ("steps/is_first", "steps/is_last")


@dataclasses.dataclass(frozen=True)
class Field:
    """One feature of LeRobot.

    Attributes:
      path: where it lies in an episode.
      name: in LeRobot.
      kind: "number", "text" or "picture".
      dtype: as info.json has it; of pictures "video" or "image".
      shape: of one step.
      names: of its numbers, nested as they were given.
      feature: TFDS connector.
    """

    path: str
    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    names: Any
    feature: Any

    @property
    def info(self) -> dict[str, Any]:
        """As it stands in info.json."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}

    @property
    def arrow(self) -> pa.DataType:
        """Type of its column."""
        if self.kind == "picture":
            return pa.struct({"bytes": pa.binary(), "path": pa.string()})
        kind = pa.string() if self.kind == "text" else pa.from_numpy_dtype(np.dtype(self.dtype))
        if self.shape == (1,):
            return kind
        if len(self.shape) == 1:
            return pa.list_(kind, self.shape[0])
        for _ in self.shape:
            kind = pa.list_(kind)
        return kind


def name_of(path: str) -> str:
    """LeRobot's name of a path, the inverse of ``lerobot_schema.path_of``; nesting becomes dots."""
    return path.removeprefix("steps/").replace("/", ".")


def fields(
    dataset: Dataset,
    episode: Mapping[str, Any],
    known: Mapping[str, Any],
    videos: bool,
    task: str,
) -> tuple[dict[str, Field], dict[str, str]]:
    """(fields by path, why by path of those left out) of a data set, given one flat episode.

    Args:
      known: what LeRobot says about it, see ``lerobot_write.about``; {} if it never was one.
      videos: whether pictures go to videos.
      task: path of the text that becomes the task.

    Raises:
      ValueError: two fields would get one name.
    """
    names = known.get("names", {})
    kept: dict[str, Field] = {}
    left_out: dict[str, str] = {}
    taken: dict[str, str] = {}
    for path, leaf in leaves(dataset.features).items():
        if path not in episode or path == task == LANGUAGE:
            continue
        if _is_made(dataset, path, bool(known), "steps/next.reward" in episode):
            continue
        if why := _unfit(leaf):
            left_out[path] = why
            continue
        name = name_of(path)
        if name in (*NUMBERED, "timestamp"):
            continue
        if name in taken:
            raise ValueError(
                f"{dataset.directory}: {taken[name]} and {path} would both be {name!r} in LeRobot: "
                "leave one of them out"
            )
        taken[name] = path
        kept[path] = _field(path, name, leaf, episode[path], names.get(name), videos)
    return kept, left_out


def _is_made(dataset: Dataset, path: str, was_lerobot: bool, has_reward: bool) -> bool:
    """Whether a field is no part of the files: a reader made it, and makes it again."""
    if isinstance(dataset, LeRobotDataset):
        return name_of(path) not in dataset.meta.fields and path != LANGUAGE
    if path in _BOUNDARIES:
        return was_lerobot or isinstance(dataset, FolderDataset)
    return was_lerobot and has_reward and path == "steps/reward"


def _unfit(leaf: Leaf) -> str:
    """Why LeRobot has no place for a field, "" if it has."""
    if leaf.sequence != "steps":
        return "it is no field of a step"
    if leaf.rows or leaf.kind in ("ragged", "other"):
        return "its size varies, or TFDS alone can decode it"
    if is_picture(leaf):
        fits = leaf.dtype == np.uint8 and leaf.shape[-1] in (1, 3)
        return "" if fits else f"it holds {leaf.dtype} pictures of {leaf.shape[-1]} channels"
    if None in leaf.shape or 0 in leaf.shape:
        return f"it has shape {list(leaf.shape)}"
    if leaf.kind == "bytes":
        return "it holds several texts a step" if leaf.shape else ""
    return "" if leaf.dtype.kind in "fiub" else f"it holds {leaf.dtype}"


def is_picture(leaf: Leaf) -> bool:
    """Whether a field is a camera: an image, or uint8 numbers [h, w, 3]."""
    shape = leaf.shape
    raw = leaf.kind in ("tensor", "packed") and leaf.dtype == np.uint8 and len(shape) == 3
    return leaf.kind == "image" or (raw and shape[-1] == 3 and None not in shape)


def _field(path: str, name: str, leaf: Leaf, value: Any, names: Any, videos: bool) -> Field:
    if is_picture(leaf):
        dtype, names = ("video" if videos else "image"), ["height", "width", "channels"]
        shape = next(pictures(value)).shape
        if not videos and leaf.kind == "image":
            shape = (*shape[:2], leaf.shape[-1])
        return Field(path, name, "picture", dtype, shape, names, leaf.feature)
    if leaf.kind == "bytes":
        return Field(path, name, "text", "string", (1,), None, leaf.feature)
    shape = tuple(int(n or 0) for n in leaf.shape) or (1,)
    return Field(path, name, "number", leaf.dtype.name, shape, names or None, leaf.feature)


def pictures(value: Any) -> Iterator[np.ndarray]:
    """RGB pictures uint8 [h, w, 3] of a clip, of encoded bytes or of an array."""
    if not isinstance(value, Clip) and len(value) and isinstance(value[0], bytes):
        rgb = tfds.features.Image(shape=(None, None, 3))
        value = (decode_image(blob, rgb) for blob in value)
    for picture in value:
        yield np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture


def encoded(value: Any, feature: Any) -> Iterator[bytes]:
    """Encoded pictures: bytes as they are, others as PNG, or JPEG where the feature says so."""
    if not isinstance(feature, tfds.features.Image):
        feature = tfds.features.Image(shape=(None, None, 3))
    for picture in value:
        yield picture if isinstance(picture, bytes) else encode_image(picture, feature, _PNG_LEVEL)


def column(field: Field, value: Any) -> pa.Array:
    """An episode's values [T, ...] as a column; ValueError: they do not match the field."""
    if field.kind == "picture":
        return pa.array(
            [_stored(blob, field) for blob in encoded(value, field.feature)], field.arrow
        )
    if field.kind == "text":
        try:
            texts = [t.decode() if isinstance(t, bytes) else str(t) for t in value]
        except UnicodeDecodeError as error:
            raise ValueError(f"{field.path} is no UTF-8 text ({error})") from error
        return pa.array(texts, field.arrow)
    array = np.asarray(value, field.dtype)
    shape = () if field.shape == (1,) and array.ndim == 1 else field.shape
    if array.shape[1:] != shape:
        raise ValueError(f"{field.path} has shape {list(array.shape)}, expected [T, {field.shape}]")
    flat = pa.array(array.reshape(-1))
    if field.shape == (1,):
        return flat
    if len(field.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, field.shape[0])
    for size in field.shape[::-1]:
        ends = np.arange(0, len(flat) + 1, size, dtype=np.int32)
        flat = pa.ListArray.from_arrays(pa.array(ends), flat)
    return flat


def _stored(blob: bytes, field: Field) -> dict[str, Any]:
    with PIL.Image.open(io.BytesIO(blob)) as picture:
        if (picture.height, picture.width) != field.shape[:2]:
            raise ValueError(
                f"{field.path} has a picture of {picture.height}x{picture.width}, expected "
                f"{field.shape[0]}x{field.shape[1]} as the first"
            )
    return {"bytes": blob, "path": None}
