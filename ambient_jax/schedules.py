"""Noise schedules: the scale of x_t, its time, and how often training draws a noise level.

The project has one noise level, ``sigma`` in [0, 1]: the standard deviation of the noise in the
variance-preserving form ``x_t = sqrt(1 - sigma^2) x0 + sigma eps`` (0 = data, 1 = pure noise).
Every other schedule changes scale and time:

* scale: its ``x_t = alpha x0 + noise eps`` is the variance-preserving ``x_t`` times
  ``scale(sigma)``, because only the ratio noise / alpha matters;
* time: ``sigma(t)`` and its inverse ``time(sigma)``, with t in [0, 1] and 0 = data.

Bounds such as ``sigma_min`` are therefore levels sigma and hold in every schedule.
A schedule also has the training law p(sigma), through ``quantile`` and ``cdf``.
Schedules are frozen and hashable (static arguments of ``jax.jit``); every method is pure and takes
Python scalars, NumPy arrays and tracers of any shape.
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from ambient_jax import _checks, _names


def _level(value, name="sigma", noun="a noise level"):
    """Returns numbers as a float array; raises ValueError for known numbers outside [0, 1]."""
    return jnp.asarray(_checks.level(name, value, noun)) * 1.0


def signal(sigma: jax.typing.ArrayLike) -> jax.Array:
    """Returns the signal scale ``sqrt(1 - sigma^2)``, without cancellation near sigma = 1."""
    sigma = _level(sigma)
    return jnp.sqrt((1 - sigma) * (1 + sigma))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Variance preserving, with sigma uniform on [0, 1], as in the Ambient Diffusion talks. It is
    the base class of the other schedules.

    ``colour`` is the exponent a of the noise's spectrum along the horizon, psd ~ f^-a, at the same
    total power: 0 is white noise, see ``corruption.colour_matrix``."""

    name: ClassVar[str] = "vp"
    colour: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self):
        _checks.number("colour", self.colour, -4, 8)

    def sigma(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Returns the noise level in [0, 1] at time t in [0, 1]; it increases."""
        return _level(t, "t", "a time")

    def time(self, sigma: jax.typing.ArrayLike) -> jax.Array:
        """Returns the time in [0, 1] of a noise level: the inverse of ``sigma``."""
        return _level(sigma)

    def scale(self, sigma: jax.typing.ArrayLike) -> jax.Array:
        """Returns this schedule's ``x_t`` divided by the variance-preserving one at sigma."""
        return jnp.ones_like(_level(sigma))

    def clip(self, sigma: jax.typing.ArrayLike) -> jax.Array:
        """Returns the nearest noise level at which the coefficients are finite."""
        return _level(sigma)

    def coefficients(self, sigma: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Returns ``(alpha, noise)`` of ``x_t = alpha x0 + noise eps`` at level sigma."""
        sigma = self.clip(sigma)
        scale = self.scale(sigma)
        return scale * signal(sigma), scale * sigma

    def quantile(self, u: jax.typing.ArrayLike) -> jax.Array:
        """Maps u uniform on [0, 1] to a noise level of the training law; the inverse of ``cdf``."""
        return self.sigma(_level(u, "u", "a probability"))

    def cdf(self, sigma: jax.typing.ArrayLike) -> jax.Array:
        """Returns the probability that the training law p(sigma) draws a level below sigma."""
        return self.time(sigma)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws noise levels from the training law."""
        return self.quantile(jax.random.uniform(_checks.key(key), shape))


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """The cosine schedule of DDPM and Diffusion Policy in continuous time (Nichol 2021, eq. 17).

    t is uniform; ``offset`` keeps sigma small at the first steps.
    """

    name: ClassVar[str] = "cosine"

    offset: float = 0.008

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.offset < math.inf:
            raise ValueError(f"cosine has offset {self.offset}, expected a finite number >= 0")

    @property
    def _start(self) -> float:
        return self.offset / (1 + self.offset) * math.pi / 2

    # alpha = cos(angle) / cos(start). Written with sines, sigma does not cancel near the data.
    def sigma(self, t):
        angle = self._start + _level(t, "t", "a time") * (math.pi / 2 - self._start)
        squared = jnp.sin(angle - self._start) * jnp.sin(angle + self._start)
        return jnp.sqrt(jnp.clip(squared, 0, None)) / math.cos(self._start)

    def time(self, sigma):
        sigma = _level(sigma)
        cos_start, sin_start = math.cos(self._start), math.sin(self._start)
        sine = jnp.sqrt((sigma * cos_start) ** 2 + sin_start**2)
        angle = jnp.arctan2(sine, signal(sigma) * cos_start)
        return jnp.clip((angle - self._start) / (math.pi / 2 - self._start), 0, 1)


@dataclasses.dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Rectified flow (Liu et al. 2022): ``x_t = (1 - t) x0 + t eps`` with t uniform."""

    name: ClassVar[str] = "rectified_flow"

    def sigma(self, t):
        t = _level(t, "t", "a time")
        return t / jnp.sqrt((1 - t) ** 2 + t**2)

    def time(self, sigma):
        sigma = _level(sigma)
        return sigma / (signal(sigma) + sigma)

    def scale(self, sigma):
        return 1 / (signal(sigma) + _level(sigma))


@dataclasses.dataclass(frozen=True)
class EDM(Schedule):
    """Variance exploding, ``x_t = x0 + s eps``, s in [s_min, s_max], for data of unit variance.

    Time follows the power law of rho (Karras et al. 2022, eq. 5). The training law is log-normal in
    s (table 1), truncated to [s_min, s_max]. Levels above that of ``s_max`` are clipped to it.
    """

    name: ClassVar[str] = "edm"
    s_min: float = 0.002
    s_max: float = 80.0
    rho: float = 7.0
    p_mean: float = -1.2
    p_std: float = 1.2

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.s_min < self.s_max < math.inf:
            raise ValueError(
                f"edm has s_min {self.s_min} and s_max {self.s_max}, expected 0 < s_min < s_max"
            )
        if not (self.rho > 0 and self.p_std > 0):
            raise ValueError(f"edm has rho {self.rho}, p_std {self.p_std}, expected both > 0")
        if not all(map(math.isfinite, (self.rho, self.p_mean, self.p_std))):
            raise ValueError(
                f"edm has rho {self.rho}, p_mean {self.p_mean}, p_std {self.p_std}, expected "
                "finite numbers"
            )

    def clip(self, sigma):
        sigma = _level(sigma)
        # The level of a large s_max rounds to 1, where the scale would be infinite.
        below_one = 1 - float(jnp.finfo(sigma.dtype).epsneg)
        return jnp.minimum(sigma, min(self.s_max / math.hypot(1, self.s_max), below_one))

    def scale(self, sigma):
        return 1 / signal(self.clip(sigma))

    def _level(self, s):
        return s / jnp.sqrt(1 + s**2)

    def sigma(self, t):
        low, high = self.s_min ** (1 / self.rho), self.s_max ** (1 / self.rho)
        return self._level((low + _level(t, "t", "a time") * (high - low)) ** self.rho)

    def time(self, sigma):
        low, high = self.s_min ** (1 / self.rho), self.s_max ** (1 / self.rho)
        sigma = self.clip(sigma)
        return jnp.clip(((sigma / signal(sigma)) ** (1 / self.rho) - low) / (high - low), 0, 1)

    def _ends(self):
        ends = [(math.log(s) - self.p_mean) / self.p_std for s in (self.s_min, self.s_max)]
        return [0.5 * math.erfc(-z / math.sqrt(2)) for z in ends]

    def quantile(self, u):
        low, high = self._ends()
        z = ndtri(low + _level(u, "u", "a probability") * (high - low))
        s = jnp.exp(self.p_mean + self.p_std * z)
        return self._level(jnp.clip(s, self.s_min, self.s_max))

    def cdf(self, sigma):
        low, high = self._ends()
        sigma = self.clip(sigma)
        s = jnp.maximum(sigma / signal(sigma), self.s_min)
        z = (jnp.log(s) - self.p_mean) / self.p_std
        return jnp.clip((ndtr(z) - low) / (high - low), 0, 1)


vp, cosine, rectified_flow, edm = Schedule, Cosine, RectifiedFlow, EDM
SCHEDULES: dict[str, type[Schedule]] = {
    schedule.name: schedule for schedule in (Schedule, Cosine, RectifiedFlow, EDM)
}


def get(name: str, **options: Any) -> Schedule:
    """Returns the schedule that a config names: one of ``SCHEDULES``, or "package.module:Class".
    Raises ValueError for an unknown name or option, or a value that the schedule refuses."""
    schedule = _names.make("schedule", name, SCHEDULES, options)
    check(schedule)
    return schedule


def levels(*, nan: bool = False, **values: Any) -> list[Any]:
    """Returns the noise levels; raises ValueError if a known level is not in [0, 1]."""
    return [_checks.level(name, value, nan=nan) for name, value in values.items()]


def check(schedule: Schedule) -> None:
    """Raises ValueError unless ``schedule`` is a schedule, rather than its name or class."""
    if isinstance(schedule, type) or not hasattr(schedule, "coefficients"):
        name = schedule if isinstance(schedule, str) else "vp"
        raise ValueError(
            f"schedule is {' '.join(repr(schedule).split())[:80]}, expected a schedule such as "
            f"schedules.get({name!r})"
        )
