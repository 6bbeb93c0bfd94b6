"""Draws (noise level, sample) for a row of a batch, as a pure function of (key, step, row).

``row`` counts over the batch of all devices and hosts, so a run draws the same on any number of
them. The device path and the stream draw the same from the same seed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks, mixing, schedules

Array = jax.Array

# Independent streams of one run's key. Append only: the position is part of every run's numbers.
_STREAMS = ("choice", "step noise", "fixed noise", "augmentation", "adapters")
_BLOCK_ROWS = 16_384


def stream_key(key: Array, name: str) -> Array:
    """Returns the key of one of the run's streams (such as "choice" or "step noise")."""
    return jax.random.fold_in(_checks.key(key), _STREAMS.index(name))


def noise_keys(key: Array) -> tuple[Array, Array]:
    """Returns (fixed, step): keys of a sample's fixed noise and of the noise of each step."""
    return stream_key(key, "fixed noise"), stream_key(key, "step noise")


def row_key(key: Array, step: Array, row: Array) -> Array:
    """Returns the key of one row (index in the global batch) of one step."""
    return jax.random.fold_in(jax.random.fold_in(_checks.key(key), step), row)


def row_keys(key: Array, step: Array, rows: Array) -> Array:
    """Returns ``row_key`` of rows [B]."""
    key = jax.random.fold_in(_checks.key(key), step)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(rows)


def draw(
    row_key: Array, law: mixing.Law, sources: mixing.Sources, schedule: schedules.Schedule
) -> tuple[Array, Array, Array]:
    """Draws one row's (sigma, source, key of the index inside the source), noise first.

    ``row_key`` comes from the stream "choice".
    """
    choice, within = jax.random.split(_checks.key(row_key))
    return (*mixing.sample(choice, law, sources, schedule), within)


def draw_data_first(
    row_key: Array, law: mixing.Law, sources: mixing.Sources, schedule: schedules.Schedule
) -> tuple[Array, Array, Array, Array]:
    """Draws the source first; returns (sigma, source, key, importance weight), see ``draw``."""
    choice, within = jax.random.split(_checks.key(row_key))
    sigma, source, weight = mixing.sample_data_first(choice, law, sources, schedule)
    return sigma, source, within, weight


def index(within: Array, size: Array) -> Array:
    """Draws a uniform index in [0, size) inside a source, int32.

    It uses integer bits: 24 bits of a float32 would favour some samples of a very large source.
    """
    return jax.random.randint(within, (), 0, size, jnp.int32)


@functools.partial(jax.jit, static_argnames=("law", "schedule", "steps"))
def _draw_block(first, key, rows, sources, *, law, schedule, steps):
    def of_step(step):
        keys = row_keys(key, step, rows)
        return jax.vmap(lambda k: draw(k, law, sources, schedule)[:2])(keys)

    return jax.vmap(of_step)(first + jnp.arange(steps))


class HostDraws:
    """Returns ``(sigma [B], source [B])`` of the rows of one host at any step, as NumPy arrays.

    It draws blocks of steps at once, on the CPU, where the loader needs them. Blocks start at
    multiples of their length, so a step's draws do not depend on where the iteration began.
    """

    def __init__(
        self,
        key: Array,
        rows: np.ndarray,
        law: mixing.Law,
        sources: mixing.Sources,
        schedule: schedules.Schedule,
    ):
        self._steps = max(1, _BLOCK_ROWS // max(1, len(rows)))
        try:
            cpu = jax.local_devices(backend="cpu")[0]
        except RuntimeError:  # JAX_PLATFORMS may exclude the CPU
            cpu = jax.local_devices()[0]
        arguments = stream_key(key, "choice"), np.asarray(rows, np.int32), sources
        self._arguments = jax.device_put(arguments, cpu)
        self._static = {"law": law, "schedule": schedule, "steps": self._steps}
        self._block = -1
        self._drawn: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        block, offset = divmod(step, self._steps)
        if block != self._block:
            first = np.int32(block * self._steps)
            sigma, source = _draw_block(first, *self._arguments, **self._static)
            self._drawn = np.asarray(sigma), np.asarray(source)
            self._block = block
        sigma, source = self._drawn
        return sigma[offset], source[offset]
