"""What the fields of a LeRobot data set are: names, types and shapes, as info.json states them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax.data.features import nest

LANGUAGE = "steps/language_instruction"
PICTURES = ("video", "image")
_NUMBERS = {"float16", "float32", "float64", "bool"}
_NUMBERS |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def path_of(name: str) -> str:
    """Where a field of LeRobot lies in an episode."""
    head, _, rest = name.partition(".")
    return f"steps/observation/{rest}" if head == "observation" and rest else f"steps/{name}"


def read_fields(given: Any) -> dict[str, dict[str, Any]]:
    """The "dtype", "shape" and "names" of each feature of info.json; ValueError: malformed."""
    if not isinstance(given, dict) or not given:
        raise ValueError("it has no features, expected the fields of a step")
    return {name: _read_field(name, field, given) for name, field in given.items()}


def _read_field(name: str, field: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if "/" in name or not name:
        raise ValueError(f"the feature {name!r} has a slash in its name")
    if not isinstance(field, dict) or "dtype" not in field or "shape" not in field:
        raise ValueError(f"the feature {name!r} lacks its dtype or shape")
    shape, dtype = field["shape"], field["dtype"]
    if not isinstance(shape, list | tuple) or not all(
        type(n) is int and 0 < n < 1 << 24 for n in shape
    ):
        raise ValueError(f"the feature {name!r} has shape {shape!r}, expected positive numbers")
    if dtype not in (*_NUMBERS, *PICTURES, "string", "language"):
        raise ValueError(f"the feature {name!r} has dtype {dtype!r}, which LeRobot has none of")
    if dtype in PICTURES and len(shape) != 3:
        raise ValueError(f"the {dtype} {name!r} has shape {shape!r}, expected 3 numbers")
    if name == "observation" and any(n.startswith("observation.") for n in given):
        raise ValueError("the feature 'observation' has the place of 'observation.…' ones")
    numbers = name.startswith(("observation", "action"))
    shape = () if list(shape) == [1] and not numbers else tuple(shape)
    return {"dtype": dtype, "shape": shape, "names": _names(field.get("names"))}


def connectors(fields: Mapping[str, Mapping[str, Any]]) -> tfds.features.FeaturesDict:
    """TFDS connectors of an episode with these fields, nested as it is."""
    scalar = tfds.features.Scalar
    flat: dict[str, Any] = {
        "is_first": scalar(np.bool_),
        "is_last": scalar(np.bool_),
        "language_instruction": tfds.features.Text(),
    }
    for name, field in fields.items():
        flat[path_of(name).removeprefix("steps/")] = _connector(field)
    if "next.reward" in fields:
        flat.setdefault("reward", _connector(fields["next.reward"]))
    return tfds.features.FeaturesDict({"steps": tfds.features.Dataset(nest(flat))})


def _names(given: Any) -> tuple[str, ...]:
    """Names of a field's numbers, however they are nested."""
    if isinstance(given, Mapping):
        given = [name for part in given.values() for name in _names(part)]
    if isinstance(given, list | tuple):
        flat = [
            n for part in given for n in (_names(part) if not isinstance(part, str) else (part,))
        ]
        return tuple(flat)
    return ()


def picture_shape(field: Mapping[str, Any]) -> tuple[int, int, int]:
    """(height, width, channels) of a picture, which may be stated with its channels first."""
    shape, names = field["shape"], field["names"]
    unnamed = shape[0] in (1, 3) and shape[2] not in (1, 3)
    first = names[0] in ("channel", "channels", "c") if names else unnamed
    return (*shape[1:], shape[0]) if first else shape


def _connector(field: Mapping[str, Any]) -> Any:
    dtype, shape = field["dtype"], field["shape"]
    if dtype in PICTURES:
        return tfds.features.Image(shape=(*picture_shape(field)[:2], 3))
    if dtype in ("string", "language"):
        return tfds.features.Text()
    return tfds.features.Tensor(shape=shape, dtype=np.dtype(dtype))


def moments(stated: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """ "min", "max", "mean" and "std" of a field, those that are stated."""
    names = ("min", "max", "mean", "std")
    return {n: np.asarray(stated[n], np.float64).ravel() for n in names if n in stated}


def pooled(rows: list[Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Moments of all steps, from those of episodes."""
    out = {}
    for name in rows[0] if rows else ():
        parts = [moments(row[name]) for row in rows if name in row]
        counts = [np.asarray(row[name].get("count", [0])).ravel()[0] for row in rows if name in row]
        if any(len(p) < 4 for p in parts) or not sum(counts):
            continue
        weight = (np.array(counts) / sum(counts))[:, None]
        low, high, mean, std = (np.stack([p[n] for p in parts]) for n in parts[0])
        centre = (weight * mean).sum(0)
        spread = np.sqrt((weight * (std**2 + (mean - centre) ** 2)).sum(0))
        out[path_of(name)] = {"min": low.min(0), "max": high.max(0), "mean": centre, "std": spread}
    return out
