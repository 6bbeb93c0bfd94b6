"""Small checks with messages that say what came, what was expected and what to do.

Shapes and types are checked under ``jit`` as well; values only where they are known, outside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
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


def array(name: str, value: Any) -> Any:
    """``value``, a list as an array; ValueError unless it holds real numbers of floating point."""
    value = _listed(name, value)
    dtype = getattr(value, "dtype", None)
    floating = isinstance(value, float | int) if dtype is None else _is(dtype, jnp.floating)
    if not floating or isinstance(value, bool):
        raise ValueError(
            f"{name} is {_told(value)}, expected floating-point numbers: convert with "
            "jnp.asarray(x, jnp.float32)"
        )
    return value


def level(name: str, value: Any, what: str = "a noise level", *, nan: bool = False) -> Any:
    """``value``, a list as an array; ValueError unless its numbers are in [0, 1].

    Args:
      name: of the argument.
      value: of any shape; None is let through, and so is what ``jit`` does not know yet.
      what: is expected.
      nan: let NaN through, where it has a meaning.
    """
    value = _listed(name, value)
    if value is None or (isinstance(value, float) and 0 <= value <= 1):
        return value
    dtype = getattr(value, "dtype", None)
    real = (
        isinstance(value, float | int) if dtype is None else _is(dtype, jnp.floating, jnp.integer)
    )
    if not real or isinstance(value, bool):
        raise ValueError(f"{name} is {_told(value)}, expected {what} in [0, 1]")
    if isinstance(value, jax.core.Tracer):
        return value
    known = np.asarray(value)
    bad = ~((known >= 0) & (known <= 1))
    if nan:
        bad &= known == known
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        at = f" at index {first[0] if len(first) == 1 else first}" if first else ""
        hint = " (0 = data, 1 = pure noise): convert other schedules with Schedule.sigma(t)"
        raise ValueError(
            f"{name}{at} is {known[first]}, expected {what} in [0, 1]"
            f"{hint if what == 'a noise level' else ''}"
        )
    return value


def key(value: Any, name: str = "key") -> jax.Array:
    """A PRNG key, or an array of them, from one of either kind or from a seed.

    Raises:
      ValueError: for anything else.
    """
    dtype = getattr(value, "dtype", None)
    if dtype is not None and _is(dtype, jax.dtypes.prng_key):
        return value
    try:
        if dtype == np.uint32 and np.ndim(value):
            return jax.random.wrap_key_data(jnp.asarray(value))
        if _is(dtype, jnp.integer) if dtype is not None else type(value) is int:
            return jax.random.key(value)
    except (ValueError, TypeError, OverflowError):
        pass
    raise ValueError(
        f"{name} is {_told(value)}, expected jax.random.key(seed), jax.random.PRNGKey(seed) or a "
        "seed, an integer"
    )


def _is(dtype, *kinds):
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _listed(name, value):
    if not isinstance(value, list | tuple):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {_told(value)}, expected an array of numbers") from None


def _told(value):
    """What came, in a few words of one line."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None:
        return f"an array of {dtype} and shape {np.shape(value)}"
    return f"{' '.join(repr(value).split())[:80]} of type {type(value).__name__}"
