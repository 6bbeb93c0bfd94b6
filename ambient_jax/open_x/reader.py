"""Reads the fields that a spec names from one episode; messages name the field and episode."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax.data.features import flatten
from ambient_jax.data.storage.video import Clip
from ambient_jax.open_x.spec import Field, Spec


class Reader:
    """Reads the fields [T, ...] of one episode."""

    def __init__(self, where: str, episode: Mapping[str, Any]):
        if not isinstance(episode.get("steps"), Mapping):
            raise ValueError(f"{where}: the episode has no 'steps', expected RLDS")
        self.where = where
        self.flat = flatten(episode)
        by_length = {k: len(v) for k, v in self.flat.items() if k.startswith("steps/")}
        self.length = next(iter(by_length.values()), 0)
        for key, length in by_length.items():
            if length != self.length:
                first = next(iter(by_length))
                raise ValueError(
                    f"{where}: {key} has {length} steps, {first} has {self.length}: the same "
                    "number is expected"
                )

    def ends_in_filler(self, spec: Spec) -> bool:
        """Whether the spec drops the last step, as is_last marks its action as a filler."""
        last = self.flat.get("steps/is_last", ())
        return spec.last_step == "drop" and len(last) > 0 and bool(np.ravel(last)[-1])

    def raw(self, field: Field, use: str) -> np.ndarray:
        """Returns a field as stored; a field of the episode is repeated over the steps."""
        if field.key not in self.flat:
            raise ValueError(missing(self.where, use, field.key, self.flat))
        value = self.flat[field.key]
        if not field.of_episode:
            return np.asarray(value)
        if isinstance(value, np.ndarray):
            return np.broadcast_to(value, (self.length, *value.shape))
        return np.array([value] * self.length, object if isinstance(value, bytes | str) else None)

    def numbers(self, field: Field, use: str) -> np.ndarray:
        """Returns the finite numbers [T, w] in the field's window, float64."""
        raw = self.raw(field, use)
        if raw.dtype.kind not in "fiub":
            raise ValueError(f"{self.where}: {field.key} is {raw.dtype}, expected numbers")
        array = raw.reshape(len(raw), int(np.prod(raw.shape[1:])))
        window = window_of(self.where, field, array.shape[1])
        array = array[:, window].astype(np.float64)
        bad = ~np.isfinite(array)
        if bad.any():
            step, column = np.argwhere(bad)[0]
            raise ValueError(
                f"{self.where}: {field.key} is {array[step, column]} at step {step}, number "
                f"{window.start + column}: leave the episode out or repair it"
            )
        return array * field.scale

    def width(self, field: Field) -> int:
        """Returns how many numbers a field reads."""
        raw = self.raw(field, "action")
        window = window_of(self.where, field, int(np.prod(raw.shape[1:])))
        return window.stop - window.start

    def present(self, field: Field) -> np.ndarray:
        """Whether a camera is there, [T] bool."""
        image = self.flat.get(field.key)
        if isinstance(image, Clip) and image.absent:
            return np.zeros(self.length, bool)
        for path in field.words("if"):
            flag = Field(path.lstrip("/"), path[0] == "/")
            return self.raw(flag, "flag").reshape(self.length).astype(bool)
        return np.ones(self.length, bool)

    def image(self, field: Field) -> np.ndarray | Clip:
        """Returns pictures [T]: encoded, decoded, or a clip of a video."""
        if isinstance(clip := self.flat.get(field.key), Clip):
            return clip
        image = self.raw(field, "camera")
        return image[..., ::-1] if field.has("bgr") and image.ndim == 4 else image

    def depth(self, field: Field) -> np.ndarray:
        depth = self.raw(field, "depth")
        if depth.dtype == object:  # still encoded
            return depth
        depth = depth[..., None] if depth.ndim == 3 else depth
        return (depth * field.scale).astype(np.float32)

    def language(self, fields: tuple[Field, ...]) -> np.ndarray:
        """Returns the first text that is not empty, [T] bytes."""
        out = np.full(self.length, b"", object)
        for field in fields:
            raw = self.raw(field, "language")
            for step in np.flatnonzero(out == b""):
                out[step] = _text(raw[step], field.has("codepoints"))
        return out

    def quality(self, label: str, field: Field) -> np.ndarray:
        """Returns a label [T] float32."""
        raw = self.raw(field, f"quality {label!r}")
        if contains := field.words("contains"):
            part = contains[0].encode()
            return np.array([part in _text(v, False) for v in raw], np.float32)
        numbers = self.numbers(field, f"quality {label!r}")
        if numbers.shape[1] != 1:
            raise ValueError(
                f"{self.where}: quality {label!r} reads {field.key}, {numbers.shape[1]} numbers a "
                "step, expected 1: pick one with [i]"
            )
        numbers = numbers[:, 0]
        if field.has("max"):
            numbers = np.full(self.length, numbers.max())
        for word in field.words("equals"):
            numbers = numbers == float(word)
        return numbers.astype(np.float32)


def window_of(where: str, field: Field, width: int) -> slice:
    """Returns which of ``width`` numbers a field reads; raises ValueError if one is missing."""
    start, stop = field.window
    start = 0 if start is None else start + width * (start < 0)
    stop = width if stop is None else stop + width * (stop < 0)
    if not 0 <= start < stop <= width:
        window = ":".join("" if v is None else str(v) for v in field.window)
        raise ValueError(
            f"{where}: {field.key} has {width} numbers a step, [{window}] is not in it: correct "
            "the spec, or this is another version of the data set"
        )
    return slice(start, stop)


def missing(where: str, use: str, key: str, fields: Iterable[str]) -> str:
    fields = sorted(fields)
    hint = _checks.nearest(key, fields) or f"; it has {', '.join(fields)}"
    return f"{where}: {use} needs {key!r}, which the data set does not have{hint}"


def _text(value: Any, codepoints: bool) -> bytes:
    if codepoints:
        points = np.asarray(value).reshape(-1)
        end = np.flatnonzero(points == 0)
        points = points[: end[0]] if len(end) else points
        return "".join(map(chr, points.tolist())).encode()
    return value.encode() if isinstance(value, str) else bytes(value)
