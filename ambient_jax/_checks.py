"""Small trace-time checks with messages that say what came, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'eps'?`` (empty when nothing is near)."""
    near = difflib.get_close_matches(str(name), [str(o) for o in options], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(what: str, value: Any, options: Iterable[str]) -> None:
    """Raises ValueError unless ``value`` is one of ``options``."""
    options = list(options)
    if value not in options:
        raise ValueError(
            f"{what} is {value!r}, expected one of {', '.join(options)}{nearest(value, options)}"
        )


def same_shape(**arrays: Any) -> None:
    """Raises ValueError unless all arrays (None is skipped) have the shape of the first."""
    shapes = {name: np.shape(a) for name, a in arrays.items() if a is not None}
    first, *rest = shapes
    for name in rest:
        if shapes[name] != shapes[first]:
            raise ValueError(
                f"{name} has shape {shapes[name]}, expected {first}'s {shapes[first]}: "
                "give one sample [H, D] to a kernel, or a batch [B, H, D] to its batch_ form"
            )


def one_sample(**arrays: Any) -> None:
    """Raises ValueError unless every array is one sample [H, D]."""
    for name, a in arrays.items():
        if len(np.shape(a)) != 2:
            raise ValueError(
                f"{name} has shape {np.shape(a)}, expected one sample [H, D]: for a batch "
                "[B, H, D] use the batch_ form, or jax.vmap"
            )


def scalar(**values: Any) -> None:
    """Raises ValueError unless every value (None is skipped) is a scalar."""
    for name, value in values.items():
        if value is not None and np.shape(value) != ():
            raise ValueError(
                f"{name} has shape {np.shape(value)}, expected a scalar: a kernel takes one "
                "sample; use its batch_ form, or jax.vmap, for a batch"
            )
