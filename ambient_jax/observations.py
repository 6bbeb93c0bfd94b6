"""Noise on observations: at which of its levels data with shifted observations may be used.

The actions' noise has a level sigma; the observation gets a level of its own, rho in [0, 1], which
the network is told as the input ``LEVEL``. It sees

    shown = sqrt(1 - rho^2) (sqrt(1 - rho^2) O + rho eps),

the mean of O given its variance-preserving noised version, for O of unit variance. At rho = 0 that
is O. At rho = 1 it is 0 whatever O was: the observation is dropped, as in classifier-free guidance
(Ho and Salimans 2022, https://arxiv.org/abs/2207.12598).

A row has a least level ``minimum`` at its sigma and is admissible at ``rho >= minimum``:

=====================================  ============================================
row                                    minimum
=====================================  ============================================
clean, or used as it is                0: every level
used with noised observations          m: the levels from m on
used without observation               1: only dropped
used as it is above sigma_min alone    ((sigma_min, 1), (sigma_min, 0)): a step
=====================================  ============================================

Policies ask at rho = 0, which rows of minimum > 0 reach only through the network's smoothness.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks

Array = jax.Array
LEVEL = "observation_level"  # name of the input among the observations, [B, 1, 1]
Curve = tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Levels:
    """The law of rho: 0 with probability ``clean``, 1 with probability ``dropped``, and otherwise
    uniform between. Raises ValueError for probabilities that are negative or add to more than 1."""

    clean: float = 0.5
    dropped: float = 0.0

    def __post_init__(self):
        for name in ("clean", "dropped"):
            _checks.number(name, getattr(self, name), 0, 1)
        if self.clean + self.dropped > 1:
            raise ValueError(
                f"clean is {self.clean} and dropped {self.dropped}, expected probabilities that "
                "add to at most 1"
            )

    def _masses(self, minimum):
        """Returns the probabilities of 0, of (0, 1) and of 1 that ``minimum`` admits."""
        minimum = jnp.asarray(minimum) * 1.0
        between = (1 - self.clean - self.dropped) * (1 - minimum)
        return jnp.where(minimum <= 0, self.clean, 0.0), between, self.dropped

    def sample(self, key: Array, minimum: jax.typing.ArrayLike) -> Array:
        """Draws a level that ``minimum`` (a scalar in [0, 1]) admits; 1 if the law draws none."""
        _checks.scalar(minimum=minimum)
        clean, between, dropped = self._masses(minimum)
        u = jax.random.uniform(_checks.key(key)) * (clean + between + dropped)
        inside = minimum + (1 - minimum) * (u - clean) / jnp.where(between > 0, between, 1)
        low, middle = u < clean, u < clean + between
        return jnp.where(low, 0.0, jnp.where(middle, jnp.clip(inside, minimum, 1), 1.0))


def curve(minimum: float | Sequence[Sequence[float]]) -> Curve:
    """Returns the knots (sigma [K], level [K]) of a minimum: a number, or pairs (sigma, level).

    Between two knots the level is linear, beyond the ends constant; of two knots at one sigma, a
    step, the first holds up to and at it.

    Raises:
      ValueError: no numbers in [0, 1], no pair, or sigmas that fall.
    """
    if isinstance(minimum, int | float):
        pairs: Any = ((0.0, minimum),)
    else:
        pairs = tuple(minimum) if isinstance(minimum, list | tuple) else ()
    if not pairs or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise ValueError(
            f"observation_min is {minimum!r}, expected a level in [0, 1] or pairs (sigma, level), "
            "such as ((0.3, 1.0), (0.3, 0.0))"
        )
    for pair in pairs:
        for name, value in zip(("sigma", "level"), pair, strict=True):
            _checks.number(f"a {name} of observation_min", value, 0, 1)
    sigma, level = (tuple(float(p[i]) for p in pairs) for i in (0, 1))
    if any(b < a for a, b in zip(sigma, sigma[1:], strict=False)):
        raise ValueError(f"observation_min has sigmas {sigma}, expected that they do not fall")
    return sigma, level


def minimum_at(sigma: Array, knots: Curve) -> Array:
    """Returns the minimum at levels sigma (any shape) of a curve with these knots."""
    x, y = np.asarray(knots[0], np.float64), np.asarray(knots[1], np.float64)
    right = jnp.searchsorted(jnp.asarray(x), jnp.asarray(sigma), side="left")
    i, j = (jnp.clip(k, 0, len(x) - 1) for k in (right - 1, right))
    width = jnp.asarray(x)[j] - jnp.asarray(x)[i]
    share = (sigma - jnp.asarray(x)[i]) / jnp.where(width > 0, width, 1)
    low, high = jnp.asarray(y)[i], jnp.asarray(y)[j]
    return low + jnp.where(width > 0, share, 0) * (high - low)


def show(observation: Array, eps: Array, level: Array) -> Array:
    """Returns what the network sees of an observation (any shape) at a level rho, a scalar in
    [0, 1], with standard normal ``eps`` of its shape. At rho = 1 it is 0, whatever the inputs."""
    signal = jnp.sqrt((1 - level) * (1 + level))
    seen = signal * (signal * observation + level * eps)
    return jnp.where(level >= 1, jnp.zeros_like(seen), seen)


def with_level(observation: Mapping[str, Array]) -> Mapping[str, Array]:
    """Returns the observations {name: [B, ...]} with ``LEVEL``, 0 where it is not given."""
    if LEVEL in observation:
        return observation
    rows = jax.tree.leaves(observation)[0].shape[0]
    return {**observation, LEVEL: jnp.zeros((rows, 1, 1))}


def noised(
    observation: Mapping[str, Array], names: Sequence[str], level: Array, keys: Array
) -> dict[str, Array]:
    """Returns the observations {name: [B, T, d]}, those of ``names`` noised, and ``LEVEL``.

    Each number of a history has noise of its own, a function of the row's key. Raises ValueError
    for a name that is no observation of floats.

    Args:
      level: rho of the rows, [B].
      keys: [B] keys of the rows.
    """
    seen = dict(observation)
    for i, name in enumerate(names):
        _checks.one_of("a name of noised observations", name, observation)
        value = observation[name]
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                f"observation {name!r} is of type {value.dtype} and named to be noised, expected "
                "floats"
            )
        normal = functools.partial(jax.random.normal, shape=value.shape[1:], dtype=value.dtype)
        eps = jax.vmap(lambda k, i=i, normal=normal: normal(jax.random.fold_in(k, 1 + i)))(keys)
        seen[name] = jax.vmap(show)(value, eps, level.astype(value.dtype))
    return seen | {LEVEL: level[:, None, None].astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
class ObservationNoise:
    """Noise of a training's observations.

    Attributes:
      names: the observations that get noise, each number of a history its own.
      levels: the law of rho.
      minimum: the minimum of each source, in the order of the mixture.
    """

    names: tuple[str, ...]
    levels: Levels
    minimum: tuple[Curve, ...]

    def of_rows(self, sigma: Array, source: Array) -> Array:
        """Returns the minimum of rows [B] at their sigma [B]."""
        each = jnp.stack([minimum_at(sigma, knots) for knots in self.minimum])
        return jnp.take_along_axis(each, source[None], 0)[0]

    def noised(
        self, observation: Mapping[str, Array], sigma: Array, source: Array, keys: Array
    ) -> dict[str, Array]:
        """Returns the observations {name: [B, T, d]} with noise of an admissible level of each row
        and ``LEVEL``: a function of the rows' keys [B]; for errors see ``noised``."""
        level = jax.vmap(self.levels.sample)(keys, self.of_rows(sigma, source))
        return noised(observation, self.names, level, keys)
