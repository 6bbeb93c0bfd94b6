"""The fields of an RLDS dataset: TFDS feature connectors by flat paths."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax import _checks

_TENSORS = tuple(getattr(tfds.features, n) for n in ("Tensor", "Scalar", "ClassLabel", "Text"))


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One field of a dataset.

    Attributes:
      path: such as ``steps/observation/image``.
      feature: its TFDS feature connector.
      sequence: path of the nested dataset or sequence around it, ``""`` for one value an episode.
      kind: ``tensor``, ``bytes`` (text, raw strings), ``packed`` (a tensor stored as bytes),
        ``image``; or, only read, ``ragged`` (packed tensors of differing shapes) or ``other``
        (decoded by TFDS, step by step).
      rows: 0, or the length of its sequence inside a step, -1 if the length varies (only read).
    """

    path: str
    feature: Any
    sequence: str
    kind: str
    rows: int = 0

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one value, without the steps and rows."""
        return tuple(self.feature.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.feature.np_dtype)


def is_dict(feature: Any) -> bool:
    """Whether a connector is a plain dict of features."""
    return type(feature) is tfds.features.FeaturesDict


def is_sequence(feature: Any) -> bool:
    """Whether a connector is a plain nested dataset or sequence (Video, a subclass, is not)."""
    return type(feature) in (tfds.features.Dataset, tfds.features.Sequence)


def leaves(features: tfds.features.FeaturesDict) -> dict[str, Leaf]:
    """Returns all fields of a dataset by path."""
    fields: dict[str, Leaf] = {}

    def walk(path: str, feature: Any, sequence: str | None, rows: int) -> None:
        if is_dict(feature):
            for name, inner in feature.items():
                walk(f"{path}/{name}" if path else name, inner, sequence, rows)
        elif is_sequence(feature) and sequence is None:
            walk(path, feature.feature, path, rows)
        elif is_sequence(feature) and not rows and _holds_plain_fields(feature.feature):
            walk(path, feature.feature, sequence, feature.to_json_content().length)
        else:
            kind = _kind(feature, sequence is not None)
            fields[path] = Leaf(path, feature, sequence or "", kind, rows)

    walk("", features, None, 0)
    return fields


def _holds_plain_fields(feature: Any) -> bool:
    if is_dict(feature):
        return all(_holds_plain_fields(inner) for inner in feature.values())
    return _kind(feature, True) in ("tensor", "bytes")


def _kind(feature: Any, in_sequence: bool) -> str:
    if type(feature) is tfds.features.Image:
        return "image"
    if type(feature) not in _TENSORS or getattr(feature, "encoder", None):
        return "other"
    kind = np.dtype(feature.np_dtype).kind
    if feature.shape.count(None) > (0 if in_sequence else 1):
        encoding = feature.to_json_content().encoding if type(feature) is _TENSORS[0] else ""
        return "ragged" if encoding in ("bytes", "zlib") else "other"
    if kind in "OSU":
        return "bytes"
    if np.dtype(feature.get_serialized_info().np_dtype).kind in "OSU":
        return "packed"
    return "tensor" if kind in "fiub" else "other"


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Converts ``{"a/b": x}`` to ``{"a": {"b": x}}``."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        functools.reduce(lambda node, p: node.setdefault(p, {}), parents, tree)[name] = value
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Converts ``{"a": {"b": x}}`` to ``{"a/b": x}``."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def select(paths: Iterable[str], keys: Iterable[str], where: str) -> list[str]:
    """Returns the paths at or below ``keys``; raises ValueError for a key that ``where`` lacks."""
    paths, keys = list(paths), list(keys)
    nodes = {"/".join(p.split("/")[: i + 1]) for p in paths for i in range(p.count("/") + 1)}
    for key in keys:
        if key not in nodes:
            hint = _checks.nearest(key, sorted(nodes)) or f"; it has {', '.join(sorted(paths))}"
            raise ValueError(f"{where} has no feature {key!r}{hint}")
    return [p for p in paths if any(p == k or p.startswith(f"{k}/") for k in keys)]
