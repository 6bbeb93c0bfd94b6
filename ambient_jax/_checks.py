"""Checks whose messages state the value, the expectation and the remedy.

Shapes and types are checked under ``jit`` as well; values only outside it, where they are known.
"""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SOLVERS = ("ddpm", "ddim", "heun", "dpmpp_2m")  # also for the config of a training run
_LISTED = 40  # options in one message


def nearest(name: str, options: Iterable[str]) -> str:
    """Returns a hint such as ``; did you mean 'eps'?``, or "" if no option is similar."""
    near = difflib.get_close_matches(str(name), [str(o) for o in options], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(field: str, value: Any, options: Iterable[str]) -> None:
    """Raises ValueError unless ``value`` is one of ``options``; it lists the first of many."""
    options = list(options)
    if value not in options:
        left = len(options) - _LISTED
        listed = ", ".join(options[:_LISTED]) + (f" and {left} more" if left > 0 else "")
        raise ValueError(f"{field} is {value!r}, expected one of {listed}{nearest(value, options)}")


def number(
    field: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    whole: bool = False,
    above: bool = False,
    below: bool = False,
) -> None:
    """Raises ValueError unless ``value`` is a number from ``low`` to ``high``; ``above`` and
    ``below`` exclude these; ``whole`` allows only integers. Booleans and NaN are refused."""
    number_type = numbers.Integral if whole else numbers.Real
    is_number = isinstance(value, number_type) and not isinstance(value, bool | np.bool_)
    is_number = is_number and not math.isnan(value)
    if is_number and (low < value if above else low <= value):
        if value < high if below else value <= high:
            return
    if math.isinf(high) or (whole and is_number and value < low):
        limits = "" if math.isinf(low) else f"above {low}" if above else f"at least {low}"
        limits += " and finite" if below and math.isinf(high) else ""
    elif whole and is_number:
        limits = f"at most {high}"
    else:
        limits = f"in {'(' if above else '['}{low}, {high}{')' if below else ']'}"
    expected = "" if is_number else "a whole number " if whole else "a number "
    raise ValueError(f"{field} is {value!r}, expected {expected}{limits}".rstrip())


def names(field: str, value: Any) -> None:
    """Raises ValueError unless ``value`` is a tuple or list of distinct, non-empty strings."""
    if isinstance(value, str):
        raise ValueError(f"{field} is the text {value!r}, expected a tuple of names: ({value!r},)")
    if not isinstance(value, tuple | list):
        raise ValueError(f"{field} is {value!r}, expected a tuple of names")
    for name in value:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{field} has the entry {name!r}, expected names (str)")
        if list(value).count(name) > 1:
            raise ValueError(f"{field} has {name!r} more than once, expected each name once")


def flag(field: str, value: Any) -> None:
    """Raises ValueError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{field} is {value!r}, expected True or False")


def solver_options(solver: Any, steps: Any, clip: Any, eta: Any = 0.0) -> None:
    """Raises ValueError unless ``policy.solvers.solve`` accepts these options."""
    one_of("solver", solver, SOLVERS)
    number("steps", steps, 1, whole=True)
    real = isinstance(clip, numbers.Real) and not isinstance(clip, bool)
    if clip is not None and not (real and clip > 0):
        raise ValueError(f"clip is {clip!r}, expected a bound > 0 on |x0_hat|, or None")
    number("eta", eta, 0, 1)
    if eta and solver != "ddim":
        raise ValueError(f"eta is {eta} with solver {solver!r}, expected 0: it is ddim's option")


def same_shape(**arrays: Any) -> None:
    """Raises ValueError unless all arrays (None is skipped) have the shape of the first."""
    shapes = {name: np.shape(a) for name, a in arrays.items() if a is not None}
    first, *names = shapes
    for name in names:
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
    """Returns ``value`` (a list as an array); raises ValueError unless it holds real floats."""
    value = _listed(name, value)
    dtype = getattr(value, "dtype", None)
    floating = isinstance(value, float | int) if dtype is None else _is(dtype, jnp.floating)
    if not floating or isinstance(value, bool):
        raise ValueError(
            f"{name} is {_describe(value)}, expected floating-point numbers: convert with "
            "jnp.asarray(x, jnp.float32)"
        )
    return value


def level(name: str, value: Any, noun: str = "a noise level", *, nan: bool = False) -> Any:
    """Returns ``value`` (a list as an array); raises ValueError unless its numbers are in [0, 1].

    None and tracers pass, and NaN if ``nan``; the message calls the numbers ``noun``.
    """
    value = _listed(name, value)
    if value is None or (isinstance(value, float) and 0 <= value <= 1):
        return value
    dtype = getattr(value, "dtype", None)
    number = isinstance(value, float | int)
    real = number if dtype is None else _is(dtype, jnp.floating, jnp.integer)
    if not real or isinstance(value, bool):
        raise ValueError(f"{name} is {_describe(value)}, expected {noun} in [0, 1]")
    if isinstance(value, jax.core.Tracer):
        return value
    values = np.asarray(value)
    bad = ~((values >= 0) & (values <= 1))
    if nan:
        bad &= values == values
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        at = f" at index {first[0] if len(first) == 1 else first}" if first else ""
        hint = " (0 = data, 1 = pure noise): convert other schedules with Schedule.sigma(t)"
        raise ValueError(
            f"{name}{at} is {values[first]}, expected {noun} in [0, 1]"
            f"{hint if noun == 'a noise level' else ''}"
        )
    return value


def key(value: Any, name: str = "key") -> jax.Array:
    """Returns a typed PRNG key (or array of keys) from a typed key, an old-style key or a seed."""
    dtype = getattr(value, "dtype", None)
    if _is(dtype, jax.dtypes.prng_key):
        return value
    try:
        if dtype == np.uint32 and np.ndim(value):
            return jax.random.wrap_key_data(jnp.asarray(value))
        if _is(dtype, jnp.integer) or type(value) is int:
            return jax.random.key(value)
    except (ValueError, TypeError, OverflowError):
        pass
    raise ValueError(
        f"{name} is {_describe(value)}, expected jax.random.key(seed), jax.random.PRNGKey(seed) "
        "or a seed, an integer"
    )


def row_keys(value: Any, rows: int) -> jax.Array:
    """Returns the keys [rows]: ``fold_in(key, i)`` of one key or seed, or those that came."""
    keys = key(value)
    if not keys.ndim:
        return jax.vmap(jax.random.fold_in, (None, 0))(keys, jnp.arange(rows))
    if keys.shape != (rows,):
        raise ValueError(f"key has {keys.size} keys, expected one, or one for each of {rows} rows")
    return keys


def _is(dtype, *supertypes):
    return dtype is not None and any(jnp.issubdtype(dtype, s) for s in supertypes)


def mask(name: str, value: Any) -> Any:
    """Returns ``value`` (a list as an array); raises ValueError unless it is a mask or None."""
    value = _listed(name, value)
    boolean = _is(getattr(value, "dtype", None), jnp.bool_, jnp.floating, jnp.integer)
    if value is not None and not boolean and not isinstance(value, bool):
        raise ValueError(f"{name} is {_describe(value)}, expected booleans")
    return value


def _listed(name, value):
    if not isinstance(value, list | tuple):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {_describe(value)}, expected an array of numbers") from None


def _describe(value):
    """Describes a value in one short line, for a message."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None:
        return f"an array of {dtype} and shape {np.shape(value)}"
    return f"{' '.join(repr(value).split())[:80]} of type {type(value).__name__}"
