"""Bounds (sigma_min, sigma_max): the noise levels that a sample may train.

A sample is admissible at ``sigma > sigma_min``, where it looks like clean data, and at
``sigma < sigma_max``, where the denoiser is too local to see the sample's faults.

=================  ======================  ==============================================
sample             (sigma_min, sigma_max)  admissible levels
=================  ======================  ==============================================
clean              (0, 1)                  all
ambient            (s, 0)                  above s
ambient omni       (s, m), m <= s          below m and above s; the middle is clean data's
unusable           (1, 0)                  none
=================  ======================  ==============================================

``sigma_max`` may be None: then it is 1 where ``sigma_min`` is 0 (clean), else 0 (ambient).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks, schedules

Array = jax.Array


class Bounds(NamedTuple):
    """Bounds of N samples, or of one. Immutable, a pytree, and unpacks as (sigma_min, sigma_max).

    Attributes:
      sigma_min, sigma_max: [N] or scalar float32, noise levels in [0, 1].
    """

    sigma_min: np.ndarray
    sigma_max: np.ndarray

    @classmethod
    def make(cls, sigma_min: Any, sigma_max: Any = None, *args: Any, **options: Any) -> Bounds:
        """Checks bounds on the host and returns them; for the arguments see ``check_bounds``.

        A sigma_max of None becomes that of clean or ambient samples.
        """
        check_bounds(sigma_min, sigma_max, *args, **options)
        low = np.asarray(sigma_min, np.float32)
        high = np.where(low <= 0, 1, 0) if sigma_max is None else sigma_max
        return cls(low, np.asarray(high, np.float32))


def default_sigma_max(sigma_min: jax.typing.ArrayLike, sigma_max=None) -> Array:
    """Returns ``sigma_max``; if it is None, the value of a clean or ambient sample."""
    sigma_min = jnp.asarray(_checks.level("sigma_min", sigma_min, nan=True)) * 1.0
    if sigma_max is None:
        return jnp.where(sigma_min <= 0, 1.0, 0.0).astype(sigma_min.dtype)
    return jnp.asarray(_checks.level("sigma_max", sigma_max, nan=True)) * 1.0


def admissible(sigma, sigma_min, sigma_max=None) -> Array:
    """Returns booleans, True where a sample with these bounds may be used at noise level sigma.

    A NaN level or sigma_min is never admissible.

    Args:
      sigma: noise level(s) in [0, 1]; broadcasts with the bounds.
      sigma_min: lower bound of the high band, in [0, 1].
      sigma_max: upper bound of the low band, in [0, 1]; for None see the module.

    Raises:
      ValueError: a level or bound is known (outside ``jit``) and not in [0, 1].
    """
    sigma = jnp.asarray(_checks.level("sigma", sigma, nan=True))
    sigma_min = _checks.level("sigma_min", sigma_min, nan=True)
    low = sigma < default_sigma_max(sigma_min, sigma_max)
    return (sigma > jnp.asarray(sigma_min)) | (low & ~jnp.isnan(jnp.asarray(sigma_min) * 1.0))


def measure(sigma_min, sigma_max=None, schedule: schedules.Schedule | None = None) -> Array:
    """Returns |A|, the probability in [0, 1] that the training law draws an admissible level."""
    low, high = _bands(sigma_min, sigma_max, schedule or schedules.vp())
    return low + high


def _bands(sigma_min, sigma_max, schedule):
    """Returns the training law's mass in the low and in the high band (disjoint; sum |A|)."""
    schedules.check(schedule)
    sigma_min, sigma_max = schedules.levels(sigma_min=sigma_min, sigma_max=sigma_max)
    below_max = schedule.cdf(default_sigma_max(sigma_min, sigma_max))
    below_min = schedule.cdf(sigma_min)
    return jnp.minimum(below_max, below_min), 1 - below_min


def sample_sigma(
    key: Array, sigma_min, sigma_max=None, schedule: schedules.Schedule | None = None
) -> Array:
    """Draws a noise level from p(sigma) restricted to one sample's admissible set.

    Bounds are scalars in [0, 1]; p(sigma) is the schedule's training law (default: uniform). A
    sample that no level admits, (1, 0), gets sigma = 1, where its loss is masked.
    """
    _checks.scalar(sigma_min=sigma_min, sigma_max=sigma_max)
    key, schedule = _checks.key(key), schedule or schedules.vp()
    low, high = _bands(sigma_min, sigma_max, schedule)
    # 1 - uniform lies in (0, 1], as the high band is open below.
    u = (1 - jax.random.uniform(key, dtype=low.dtype)) * (low + high)
    in_low = u < low
    rank = jnp.where(in_low, u, 1 - (low + high) + u)
    sigma = schedule.quantile(jnp.clip(rank, 0, 1))
    # Rounding in cdf and quantile may reach the bound or pass it slightly.
    upper = default_sigma_max(sigma_min, sigma_max).astype(sigma.dtype)
    lower = jnp.asarray(sigma_min, sigma.dtype)
    one = jnp.ones((), sigma.dtype)
    inside_low = jnp.clip(sigma, 0, jnp.nextafter(jnp.minimum(upper, lower), -one))
    inside_high = jnp.clip(sigma, jnp.minimum(jnp.nextafter(lower, 2 * one), 1), 1)
    return jnp.where(in_low, jnp.maximum(inside_low, 0), inside_high)


def check_bounds(
    sigma_min,
    sigma_max=None,
    ids: Sequence[Any] | None = None,
    *,
    ordered: bool = False,
    where: Callable[[int], str] | None = None,
) -> None:
    """Raises ValueError unless all bounds are in [0, 1] at float32, the precision of storage.

    The message names the first bad sample and counts the bad ones.

    Args:
      sigma_min, sigma_max: [N] or scalar; sigma_max None is not checked.
      ids: [N] names of the samples, for the message.
      ordered: also refuse ``sigma_max > sigma_min``, except for clean data (0, 1). Such bounds
        admit every level, which is valid in a kernel but a mistake in data.
      where: ``where(i)`` names sample i, instead of ``ids``.
    """
    bounds = {"sigma_min": sigma_min, "sigma_max": sigma_max}
    bounds = {n: np.atleast_1d(np.asarray(v)) for n, v in bounds.items() if v is not None}
    name = where or (lambda i: f"index {i}" if ids is None else repr(ids[i]))

    def refuse(bad, message):
        count = f"; {bad.sum()} rows of {bad.size} are bad" if bad.size > 1 else ""
        raise ValueError(f"{message(int(np.flatnonzero(bad)[0]))}{count}")

    for field, values in bounds.items():
        if values.dtype.kind not in "iuf":
            some = str(values.ravel()[:1].tolist())[:80]
            raise ValueError(f"{field} is {some}, expected numbers, noise levels in [0, 1]")
        preposition = "at" if where is None and ids is None else "of"
        level = values.astype(np.float32)
        bad = ~((level >= 0) & (level <= 1))
        if bad.any():
            refuse(
                bad,
                lambda i: (
                    f"{field} {preposition} {name(i)} is {values[i]}, expected a noise level in "  # noqa: B023
                    "[0, 1] (0 = data, 1 = pure noise): convert other schedules with "
                    "Schedule.sigma(t)"
                ),
            )
    if ordered and sigma_max is not None:
        low, high = np.broadcast_arrays(*(v.astype(np.float32) for v in bounds.values()))
        bad = (high > low) & ~((low == 0) & (high == 1))
        if bad.any():
            refuse(
                bad,
                lambda i: (
                    f"{'' if where else 'source '}{name(i)} has sigma_max {high[i]:g} above "
                    f"sigma_min {low[i]:g}, which admits every noise level: expected sigma_max <= "
                    "sigma_min (1 to use it below sigma_max alone), or (0, 1) for clean data"
                ),
            )
