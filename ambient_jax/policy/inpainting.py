"""Samples chunks whose first actions are known: inpainting in time, for every solver.

``guide`` wraps a denoiser, so that a solver's samples agree with the known actions. With J the
Jacobian of x0_hat by x_t, W the weights and e = known - x0_hat:

===========  =================================================================================
method       change of x0_hat
===========  =================================================================================
replacement  0: the other entries learn of the known ones through x_t only
guidance     min(1 / alpha, clip sigma) J^T W e: that of real-time chunking, for VP diffusion
projection   J^T W^1/2 z with (W^1/2 J W^1/2 + alpha (1 - W + noise^2 / sigma^2)) z = W^1/2 e, by
             conjugate gradients
trained      none: the network sees the known actions, as it did in training (``Denoiser.prefix``)
===========  =================================================================================

Entries of weight 1 become the known ones in all. Those known in part are cross-faded by
``Policy.chunk``, once: in every step of a solver the weight would count again. ``trained`` does not
use them: what is not yet executed is free to change.

The covariance of x0 given x_t is J sigma^2 / alpha (Tweedie): ``projection`` is exact for Gaussian
data, weights of 0 and 1, and no ``noise``, and ``guidance`` approximates the matrix by alpha. For
smooth chunks, the mean given a prefix is off by 0.1 standard deviations of the conditional
law (projection, no noise), 2.2 (guidance) and 3.9 (replacement) with ddim, see the tests. But a
trained network's J is no covariance: in planar pushing ``projection`` diverged, with ``noise`` too,
and ``guidance`` is the default (experiments/delays/results/README.md).

Black, Galliker, Levine 2025, "Real-Time Execution of Action Chunking Flow Policies",
https://arxiv.org/abs/2506.07339; Pokle et al. 2023, https://arxiv.org/abs/2310.04432; Boys et al.
2023, "Tweedie Moment Projected Diffusions", https://arxiv.org/abs/2310.06721.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks, schedules, targets

Array = jax.Array
Denoise = Callable[[Array, Array], Array]
METHODS = ("replacement", "guidance", "projection", "trained")
_VP = schedules.vp()


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """How known actions enter a sample; raises ValueError for a wrong field."""

    method: str = "guidance"
    clip: float = 20.0  # of ``guidance``: largest weight per sigma (beta; 5 in the paper)
    iterations: int = 2  # of ``projection``: conjugate gradients, a vector-Jacobian product each
    noise: float = 0.1  # of ``projection``: standard deviation of known actions, normalised units

    def __post_init__(self):
        _checks.one_of("method", self.method, METHODS)
        _checks.number("clip", self.clip, 0, above=True)
        _checks.number("iterations", self.iterations, 1, whole=True)
        _checks.number("noise", self.noise, 0, below=True)


def check(
    known: Any, weights: Any, shape: tuple[int, ...], most: int | None = None
) -> dict[str, np.ndarray]:
    """Returns known actions of a shape, [B, H, D] or [H, D], and weights of the same without D, as
    float32 by name.

    {} for None, and where all weights are 0: then nothing is known.

    Raises:
      ValueError: one without the other, a wrong shape, not finite, a weight outside [0, 1], or
        over ``most`` actions of weight 1 in a chunk.
    """
    if known is None and weights is None:
        return {}
    if known is None or weights is None:
        raise ValueError("known actions need weights, and weights known actions: give both")
    given = {"known": np.asarray(known, np.float32), "weights": np.asarray(weights, np.float32)}
    for (name, value), expected in zip(given.items(), (shape, shape[:-1]), strict=True):
        if value.shape != expected:
            raise ValueError(f"{name} has shape {value.shape}, expected {expected}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} has entries that are not finite, expected finite ones")
    if given["weights"].min(initial=0) < 0 or given["weights"].max(initial=0) > 1:
        low, high = given["weights"].min(), given["weights"].max()
        raise ValueError(f"weights are from {low:g} to {high:g}, expected from 0 to 1")
    count = int((given["weights"] >= 1).sum(-1).max(initial=0))
    if most is not None and count > most:
        raise ValueError(
            f"known has {count} actions of weight 1, expected at most the {most} of "
            "config.model.prefix that the model saw in training"
        )
    return given if given["weights"].any() else {}


def guide(
    denoise: Denoise,
    known: Array,
    weights: Array,
    *,
    prediction: str = "eps",
    how: Inpainting = Inpainting(),  # noqa: B008
) -> Denoise:
    """Returns a denoiser whose samples agree with known actions, for ``solvers.solve``.

    Rows of weight 0 are as without it up to rounding; if all are, and outside ``jit``, the denoiser
    itself is returned.

    Args:
      denoise, prediction: see ``solvers.solve``.
      known: [B, H, D] in normalised units; entries of weight 0 are not used.
      weights: [B, H] or [B, H, D] in [0, 1]: 1 for what must be so.
    """
    if not isinstance(weights, jax.core.Tracer) and not np.any(weights):
        return denoise
    weights = jnp.broadcast_to(weights if weights.ndim == 3 else weights[..., None], known.shape)
    root = jnp.sqrt(weights)

    def guided(x, sigma):
        alpha = schedules.signal(sigma)

        def estimate(x):
            value = denoise(x, sigma)
            x0 = targets.convert(value, x, sigma, source=prediction, target="x0", schedule=_VP)
            return x0, value

        if how.method == "replacement":
            x0, value = estimate(x)
            error = known - x0
            change = jnp.zeros_like(x)
        else:
            x0, pullback, value = jax.vjp(estimate, x, has_aux=True)
            error = known - x0
            if how.method == "guidance":
                scale = jnp.minimum(1 / alpha, how.clip * sigma)
                change = scale * pullback(weights * error)[0]
            else:
                product = lambda z: pullback(root * z)[0]  # noqa: E731
                added = alpha * (1 - weights + (how.noise / sigma) ** 2)
                change = _projected(product, root, error, added, how.iterations)
        change = jnp.where(weights >= 1, error, change)
        # Predictions are linear in x0_hat.
        options = dict(source="x0", target=prediction, schedule=_VP)
        return value + targets.convert(change, jnp.zeros_like(x), sigma, **options)

    return guided


def _projected(product, root, error, added, iterations):
    """Returns J^T W^1/2 z; z after some conjugate gradients from 0, row by row."""
    dot = lambda a, b: (a * b).sum((1, 2), keepdims=True)  # noqa: E731
    divide = lambda a, b: jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)  # noqa: E731
    residual = root * error

    def step(_, state):
        residual, direction, total = state
        image = product(direction)
        applied = root * image + added * direction
        size = divide(dot(residual, residual), dot(direction, applied))
        rest = residual - size * applied
        turned = rest + divide(dot(rest, rest), dot(residual, residual)) * direction
        return rest, turned, total + size * image

    # One loop compiles the product once.
    start = residual, residual, jnp.zeros_like(error)
    return jax.lax.fori_loop(0, iterations, step, start)[2]
