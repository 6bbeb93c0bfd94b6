"""Mixing laws P(source | sigma): every algorithm is one law of which source trains a noise level.

A source is a set of samples that share role and bounds: a data set, a bucket of it or a datapoint.

===============  =====================================================================
law              P(source k given sigma)
===============  =====================================================================
Filtering        all on clean sources, by weight ("clean only")
CoTraining       by weight; ignores the bounds
Reweighted       alpha on clean, 1 - alpha on corrupt; ignores the bounds
Ambient          by weight among the sources admissible at sigma (Omni: the same, with
                 sigma_max > 0); alpha scales the weights so that clean sources have that share
Exclusive        the admissible corrupt sources by weight; if there is none, the clean ones
Soft             alpha(sigma) on clean, 1 - alpha(sigma) on admissible corrupt sources
BenDavid         Soft with the alpha that minimises the bound of Ben-David et al. (2010)
===============  =====================================================================

Within the clean or the corrupt group, mass is split by weight. Where a group of Soft is empty at
sigma, the other gets its mass. Laws are frozen and hashable (static arguments of ``jax.jit``).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks, _names, admission, ben_david, schedules

Array = jax.Array
_VP = schedules.vp()


class Sources(NamedTuple):
    """K sources as arrays [K]: weight (samples x multiplier), bounds, and role."""

    weight: Array
    sigma_min: Array
    sigma_max: Array
    clean: Array


def make_sources(weight, clean, sigma_min=0.0, sigma_max=None) -> Sources:
    """Checks numbers on the host and returns them as sources.

    Args:
      weight: [K] non-negative, one of them positive; samples times any multiplier.
      clean: [K] booleans, True for clean sources.
      sigma_min, sigma_max: [K] or scalar bounds in [0, 1]; sigma_max None as in ``admission``.
    """
    weight = np.atleast_1d(np.asarray(weight, np.float64))
    if not (np.all(np.isfinite(weight)) and np.all(weight >= 0) and weight.sum() > 0):
        raise ValueError(
            f"source weights are {weight.tolist()}, expected finite numbers >= 0, one of them > 0"
        )
    bounds = admission.Bounds.make(sigma_min, sigma_max)
    for name, value in (("clean", clean), ("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        if value is not None and np.shape(value) not in ((), weight.shape):
            raise ValueError(
                f"{name} has shape {np.shape(value)}, expected a scalar or one entry for each of "
                f"the {weight.size} sources"
            )
    low, high = (np.broadcast_to(bound, weight.shape) for bound in bounds)
    clean = np.broadcast_to(np.asarray(clean, bool), weight.shape)
    return Sources(*map(jnp.asarray, (weight / weight.sum(), low, high, clean)))


class Law:
    """A mixing law: a frozen dataclass of its options, with one of the two methods below.

    A config names a law outside the package "my_package.my_module:MyLaw".
    """

    def simplify(self, sources: Sources) -> tuple[Law, Sources]:
        """Returns the same P(source | sigma) as a simpler law, so that laws share a program."""
        return self, sources

    def probabilities(self, sigma: Array, weight: Array, clean: Array) -> Array:
        """Returns P(source | sigma), which sums to 1, or 0 where no source is admissible.

        Args:
          sigma: noise level in [0, 1], scalar.
          weight: [K] weights of the sources that are admissible at sigma, 0 for the others.
          clean: [K] booleans, True for clean sources.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Filtering(Law):
    """Clean data only."""

    def simplify(self, sources):
        return Ambient(), _everywhere(sources, jnp.where(sources.clean, sources.weight, 0))


@dataclasses.dataclass(frozen=True)
class CoTraining(Law):
    """Natural co-training: every source by its weight at every level."""

    def simplify(self, sources):
        return Ambient(), _everywhere(sources, sources.weight)


@dataclasses.dataclass(frozen=True)
class Reweighted(Law):
    """Co-training with a fixed share ``alpha`` in [0, 1] of clean data."""

    alpha: float = 0.5

    def __post_init__(self):
        _share("alpha", self.alpha)

    def simplify(self, sources):
        weight = _split_by_share(self.alpha, sources.weight, sources.clean)
        return Ambient(), _everywhere(sources, weight)


@dataclasses.dataclass(frozen=True)
class Ambient(Law):
    """Hard bounds: every source by its weight at its admissible levels (Omni included).

    ``alpha`` in [0, 1] first scales the weights so that clean sources have this share of them. It
    is their probability where every source is admissible; elsewhere theirs is larger.
    """

    alpha: float | None = None

    def __post_init__(self):
        if self.alpha is not None:
            _share("alpha", self.alpha)

    def simplify(self, sources):
        if self.alpha is None:
            return self, sources
        weight = _split_by_share(self.alpha, sources.weight, sources.clean)
        return Ambient(), sources._replace(weight=weight)

    def probabilities(self, sigma, weight, clean):
        return _normalise(weight)


@dataclasses.dataclass(frozen=True)
class Exclusive(Law):
    """Exclusive bands: corrupt data where some is admissible, clean data elsewhere."""

    def probabilities(self, sigma, weight, clean):
        corrupt = jnp.where(clean, 0, weight)
        return _normalise(jnp.where(jnp.sum(corrupt) > 0, corrupt, jnp.where(clean, weight, 0)))


class _Shared(Law):
    """A share of clean data that depends on sigma through a piecewise linear curve."""

    sigmas: tuple[float, ...]
    _values: ClassVar[str]  # name of the field with the curve's values at ``sigmas``

    def __post_init__(self):
        for name in ("sigmas", self._values):
            given = getattr(self, name)
            if np.ndim(given) != 1:
                raise ValueError(f"{name} is {given!r}, expected two or more numbers")
            object.__setattr__(self, name, tuple(map(float, given)))
        xs, ys = self.sigmas, getattr(self, self._values)
        curve = f"sigmas {xs} and {self._values} {ys}"
        if len(xs) != len(ys) or len(xs) < 2 or not np.all(np.diff(xs) > 0):
            raise ValueError(
                f"{curve}: expected two or more increasing noise levels and as many values"
            )
        if not all(0 <= v <= 1 for v in (*xs, *ys)):
            raise ValueError(f"{curve}: expected all in [0, 1]")

    def curve(self, sigma: jax.typing.ArrayLike) -> Array:
        return jnp.interp(sigma, jnp.asarray(self.sigmas), jnp.asarray(getattr(self, self._values)))

    def alpha(self, sigma: jax.typing.ArrayLike) -> Array:
        """Returns the share of clean data in [0, 1] at sigma."""
        return self.curve(sigma)

    def probabilities(self, sigma, weight, clean):
        return _split_by_share(self.alpha(sigma), weight, clean)


@dataclasses.dataclass(frozen=True)
class Soft(_Shared):
    """A share of clean data alpha(sigma), piecewise linear; the default falls from 1 to 0."""

    sigmas: tuple[float, ...] = (0.0, 1.0)
    alphas: tuple[float, ...] = (1.0, 0.0)
    _values = "alphas"


@dataclasses.dataclass(frozen=True)
class BenDavid(_Shared):
    """The share of clean data that minimises Ben-David et al.'s bound at each level.

    Attributes:
      n_clean, n_corrupt: numbers of samples.
      sigmas, divergences: D(p_sigma, q_sigma) in [0, 1] at the given levels, piecewise linear.
      capacity: C, the hypothesis class's complexity in the bound (square root of a dimension).
    """

    n_clean: float
    n_corrupt: float
    sigmas: tuple[float, ...]
    divergences: tuple[float, ...]
    capacity: float = 1.0
    _values = "divergences"

    def __post_init__(self):
        super().__post_init__()
        if not (self.n_clean > 0 and self.n_corrupt > 0 and self.capacity > 0):
            raise ValueError(
                f"n_clean {self.n_clean}, n_corrupt {self.n_corrupt}, capacity {self.capacity}: "
                "expected all > 0"
            )

    def alpha(self, sigma):
        return ben_david.best_alpha(self.n_clean, self.n_corrupt, self.curve(sigma), self.capacity)


LAWS: dict[str, type[Law]] = dict(
    filtering=Filtering,
    cotraining=CoTraining,
    reweighted=Reweighted,
    ambient=Ambient,
    exclusive=Exclusive,
    soft=Soft,
    ben_david=BenDavid,
)


def get(name: str, **options: Any) -> Law:
    """Returns the law that a config names: one of ``LAWS``, or "package.module:Class". Raises
    ValueError for an unknown name or option, or a value that the law refuses."""
    options = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in options.items()}
    law = _names.make("law", name, LAWS, options)
    check(law)
    return law


def check(law: Law) -> None:
    """Raises ValueError unless it is a law, rather than its name or class."""
    if not isinstance(law, Law):
        raise ValueError(
            f"law is {' '.join(repr(law).split())[:80]}, expected a law such as "
            f"mixing.get({law if isinstance(law, str) else 'ambient'!r})"
        )


def _share(name, value):
    if not (isinstance(value, float | int | np.number) and 0 <= value <= 1):
        raise ValueError(f"{name} is {value}, expected a share in [0, 1] of clean data")


def resolve(law: Law, sources: Sources) -> tuple[Law, Sources]:
    """Returns the same P(source | sigma) in its simplest form, shared by many laws.

    Data-first sampling must use the bounds returned here, or it misses levels that the law trains.

    Raises:
      ValueError: ``law`` is not a law (but its name, say), or ``sources`` are not ``Sources``.
    """
    check(law)
    if not isinstance(sources, Sources):
        raise ValueError(
            f"sources is of type {type(sources).__name__}, expected mixing.make_sources(...)"
        )
    return law.simplify(sources)


def source_probabilities(law: Law, sigma: Array, sources: Sources) -> Array:
    """Returns P(source | sigma) [K] at a scalar sigma in [0, 1].

    It sums to 1, or is 0 where the law admits nothing (see ``check_law``).
    """
    law, sources = resolve(law, sources)
    _checks.scalar(sigma=sigma)
    sigma = _checks.level("sigma", sigma)
    keep = admission.admissible(sigma, sources.sigma_min, sources.sigma_max)
    return law.probabilities(sigma, jnp.where(keep, sources.weight, 0), sources.clean)


def _everywhere(sources, weight):
    """Returns sources with these weights that are admissible at every level."""
    bounds = jnp.zeros_like(sources.sigma_min), jnp.ones_like(sources.sigma_max)
    return Sources(weight, *bounds, sources.clean)


def _split_by_share(alpha, weight, clean):
    """Returns probability alpha for clean and 1 - alpha for corrupt sources, split by weight.

    If one group is empty, the other gets probability 1.
    """
    clean, corrupt = jnp.where(clean, weight, 0), jnp.where(clean, 0, weight)
    alpha = jnp.where(jnp.sum(clean) > 0, jnp.where(jnp.sum(corrupt) > 0, alpha, 1.0), 0.0)
    return alpha * _normalise(clean) + (1 - alpha) * _normalise(corrupt)


def _normalise(mass):
    total = jnp.sum(mass)
    return mass / jnp.where(total > 0, total, 1)


def sample(
    key: Array, law: Law, sources: Sources, schedule: schedules.Schedule = _VP
) -> tuple[Array, Array]:
    """Draws (sigma, source) noise first: sigma ~ p(sigma), then source ~ P(. | sigma).

    Both data paths (on device and streamed) draw with this function.
    """
    schedules.check(schedule)
    u = jax.random.uniform(_checks.key(key), (2,))
    sigma = schedule.quantile(u[0])
    return sigma, _categorical(u[1], source_probabilities(law, sigma, sources))


def _categorical(u, probabilities):
    """Draws by the inverse CDF; never returns a source of probability 0, despite rounding."""
    cumulative = jnp.cumsum(probabilities)
    positive = probabilities > 0
    # A parallel cumsum can rise by rounding where the probability is 0, so check both.
    beyond = positive & (cumulative > u * cumulative[-1])
    last = jnp.max(jnp.where(positive, jnp.arange(probabilities.size), 0))
    return jnp.where(jnp.any(beyond), jnp.argmax(beyond), last).astype(jnp.int32)


def sample_data_first(
    key: Array, law: Law, sources: Sources, schedule: schedules.Schedule = _VP
) -> tuple[Array, Array, Array]:
    """Draws (sigma, source, weight) data first: source ~ weight, then sigma ~ p | A.

    Returns:
      sigma, source, and the importance weight that makes weighted losses agree with ``sample``.
    """
    law, sources = resolve(law, sources)
    pick, level = jax.random.split(_checks.key(key))
    source = _categorical(jax.random.uniform(pick), sources.weight)
    sigma = admission.sample_sigma(
        level, sources.sigma_min[source], sources.sigma_max[source], schedule
    )
    return sigma, source, data_first_weight(law, sigma, source, sources, schedule)


def data_first_weight(
    law: Law, sigma: Array, source: Array, sources: Sources, schedule: schedules.Schedule = _VP
) -> Array:
    """Returns P(source | sigma) W |A| / w, which makes a data-first stream exact.

    For the ambient law this is ``W |A| / Z(sigma)``, where Z is the admissible weight at sigma.
    Weights and bounds are those of ``resolve``, as in drawing sources.
    """
    law, sources = resolve(law, sources)
    count = len(sources.weight)
    if not isinstance(source, jax.core.Tracer) and not (
        jnp.issubdtype(jnp.result_type(source), jnp.integer) and 0 <= source < count
    ):
        raise ValueError(f"source is {source}, expected an integer from 0 to {count - 1}")
    extent = admission.measure(sources.sigma_min[source], sources.sigma_max[source], schedule)
    share = sources.weight[source] / jnp.sum(sources.weight)
    probability = source_probabilities(law, sigma, sources)[source]
    return jnp.where(share > 0, probability * extent / jnp.where(share > 0, share, 1), 0.0)


def check_law(law: Law, sources: Sources, names: tuple[str, ...] = ()) -> None:
    """Raises ValueError if some noise levels have no source to train them."""
    # Probabilities can vanish only between two neighbouring bounds.
    ends = np.unique(np.concatenate([[0.0, 1.0], sources.sigma_min, sources.sigma_max]))
    middles = ((ends[:-1] + ends[1:]) / 2).astype(sources.weight.dtype)
    total = lambda sigma: jnp.sum(source_probabilities(law, sigma, sources))  # noqa: E731
    totals = jax.jit(functools.partial(jax.lax.map, total))(middles)
    # There is no level between float32 neighbours.
    wide = np.diff(ends) > 1e-6
    gaps = np.flatnonzero(wide & ~(np.abs(np.asarray(totals) - 1) <= 1e-3))
    if not gaps.size:
        return
    listed, most = [], 8  # there may be one source per datapoint
    for k in range(min(len(sources.weight), most)):
        role = "clean" if sources.clean[k] else "corrupt"
        bounds = f"({sources.sigma_min[k]:.3g}, {sources.sigma_max[k]:.3g})"
        empty = "" if sources.weight[k] > 0 else ", weight 0"
        listed.append(f"{names[k] if names else k}: {role}, bounds {bounds}{empty}")
    if len(sources.weight) > most:
        listed.append(f"and {len(sources.weight) - most} more")
    raise ValueError(
        f"law {type(law).__name__} has nothing to train sigma in "
        f"({ends[gaps[0]]:.3g}, {ends[gaps[0] + 1]:.3g}) with: sources are "
        f"[{'; '.join(listed)}]; add a clean source or widen the bounds"
    )
