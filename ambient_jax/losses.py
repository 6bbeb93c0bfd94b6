"""The denoising loss and the ambient loss: kernels of one sample and their jitted batch forms.

A kernel takes the network's output ``h`` for one sample [H, D] and returns the mean squared error
over the valid entries; batch forms take [B, H, D], levels and bounds [B], and return [B].
Rows that are not admissible give exactly 0 with gradient 0, even if they hold inf or NaN.
Reduce with ``masked_mean``, or across devices with ``masked_sum`` and two psums.

    >>> loss = batch_denoising_loss(h, x0, eps, sigma, sigma_min, prediction="eps")
    >>> masked_mean(loss, batch_keep_mask(sigma, sigma_min))
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from ambient_jax import _checks, _names, admission, corruption, schedules, targets

Array = jax.Array
Kernel = TypeVar("Kernel", bound=Callable[..., Array])
WEIGHTINGS = ("unit", "buffered")
_VP = schedules.vp()

__getattr__ = _names.renamed(__name__, {"counts": "keep_mask", "batch_counts": "batch_keep_mask"})


def check_buffer(buffer: float) -> None:
    """Raises ValueError unless ``buffer`` is a number > 1."""
    _checks.number("buffer", buffer)
    if not buffer > 1:
        raise ValueError(f"buffer is {buffer}, expected S > 1 (4 is the published value)")


def keep_mask(sigma, sigma_min=0.0, sigma_max=None, mask=None) -> Array:
    """Whether the sample counts: it is admissible at sigma and has at least one valid entry."""
    keep = admission.admissible(sigma, sigma_min, sigma_max)
    mask = _checks.mask("mask", mask)
    return keep if mask is None else keep & jnp.any(mask)


def _check_options(*, prediction, schedule, weighting="unit", buffer=4.0):
    schedules.check(schedule)
    _checks.one_of("prediction", prediction, targets.PREDICTIONS)
    _checks.one_of("weighting", weighting, WEIGHTINGS)
    check_buffer(buffer)


def _valid(x, sigma, sigma_min, sigma_max, mask):
    """Returns the validity of the row (scalar) and of its entries (x's shape)."""
    _checks.scalar(sigma=sigma, sigma_min=sigma_min, sigma_max=sigma_max)
    mask = _checks.mask("mask", mask)
    row = keep_mask(sigma, sigma_min, sigma_max, mask)
    entries = jnp.full(jnp.shape(x), row)
    if mask is None:
        return row, entries
    if jnp.shape(mask) not in (jnp.shape(x), jnp.shape(x)[:-1]):
        raise ValueError(
            f"mask has shape {jnp.shape(mask)}, expected one entry per time step, "
            f"{jnp.shape(x)[:-1]} for a sample of shape {jnp.shape(x)}, or one per number"
        )
    mask = jnp.asarray(mask, bool)
    return row, entries & (mask if mask.ndim == entries.ndim else mask[..., None])


def _masked(sigma, sigma_min, sigma_max, mask, **arrays):
    """Checks a kernel's input. Returns the arrays (0 where not valid), the levels, and the validity
    of the row (scalar) and of the entries [H, D]."""
    values = dict(zip(arrays, targets.arrays(**arrays), strict=True))
    levels = schedules.levels(sigma=sigma, sigma_min=sigma_min, sigma_max=sigma_max)
    _checks.one_sample(h=values["h"])
    _checks.same_shape(**values)
    row, valid = _valid(values["h"], *levels, mask)
    # Masked before the arithmetic, so that masked entries do not reach the gradient.
    return [jnp.where(valid, a, 0) for a in values.values()], levels, row, valid


def _mean_square(residual, valid):
    return jnp.sum(jnp.square(residual)) / jnp.maximum(jnp.sum(valid), 1)


def denoising_loss(
    h: Array,
    x0: Array,
    eps: Array,
    sigma: Array,
    sigma_min: jax.typing.ArrayLike = 0.0,
    sigma_max: Array | None = None,
    mask: Array | None = None,
    *,
    prediction: str = "eps",
    schedule: schedules.Schedule = _VP,
) -> Array:
    """Returns ``mean((h - T)^2)`` for one sample whose x0 is known; T is the denoising target.

    Args:
      h: network output at (x_t, sigma), [H, D], for x_t = add_noise(x0, eps, sigma).
      x0: the sample [H, D].
      eps: the standard normal noise in x_t, [H, D].
      sigma: noise level in [0, 1], scalar.
      sigma_min, sigma_max: the sample's bounds, scalars in [0, 1]; sigma_max None means 1 for
        sigma_min = 0 (clean) and 0 otherwise (ambient).
      mask: [H] booleans, False for padded time steps, or [H, D] where the sample lacks some
        dimensions; None: all valid.
      prediction: the target that h predicts: "x0", "eps", "v" or "velocity".
      schedule: the schedule of x_t.

    Returns:
      Scalar loss; 0 (gradient 0) where sigma is not admissible or every step is padded.

    Raises:
      ValueError: the prediction is unknown, shapes differ (nothing is broadcast), arrays hold
        integers, or levels are known (outside ``jit``) and not in [0, 1].
    """
    _check_options(prediction=prediction, schedule=schedule)
    (h, x0, eps), (sigma, *_), row, valid = _masked(
        sigma, sigma_min, sigma_max, mask, h=h, x0=x0, eps=eps
    )
    sigma = jnp.where(row, sigma, 0.5)
    target = targets.denoising_target(x0, eps, sigma, prediction=prediction, schedule=schedule)
    return _mean_square(jnp.where(valid, h - target, 0), valid)


def ambient_loss(
    h: Array,
    x_min: Array,
    z: Array,
    sigma: Array,
    sigma_min: Array,
    sigma_max: Array | None = None,
    mask: Array | None = None,
    *,
    prediction: str = "eps",
    schedule: schedules.Schedule = _VP,
    weighting: str = "unit",
    buffer: float = 4.0,
) -> Array:
    """Returns the loss of a sample known only at noise level sigma_min (arXiv 2606.12365).

    Its expectation given x_t is ``w(sigma) ||h - E[denoising target | x_t]||^2`` plus a constant,
    so it has the denoising loss's minimiser; for sigma_min = 0 it is the denoising loss.
    The variance of the target T explodes as sigma falls to sigma_min. There are two weightings:

    * "unit" (default): ``||rho h - rho T||^2`` with rho = noise_ratio, so w = rho^2 and, for eps,
      the target is the bridge's unit-variance z. It needs no buffer or division and is finite
      everywhere.
    * "buffered": ``||h - T||^2``, which adds the factor 1 / rho^2, clipped at ``buffer`` S. This is
      the published form (weight at most S^2 in T_x0's normalisation, reached at
      sigma = sqrt(S / (S - 1)) sigma_min of a variance-exploding schedule).

    Args:
      h: network output at (x_t, sigma), [H, D], for x_t = renoise(x_min, z, sigma, sigma_min).
      x_min: the sample at noise level sigma_min, [H, D]. In Omni's low band (sigma below sigma_min
        and sigma_max) x_min has more noise than x_t, and this argument must be x0 itself:
        ``corruption.anchor_level`` returns the level to make it at.
      z: the standard normal noise of the bridge, [H, D].
      sigma, sigma_min, sigma_max, mask, prediction, schedule: see ``denoising_loss``, also for the
        result and the errors.
    """
    _check_options(prediction=prediction, schedule=schedule, weighting=weighting, buffer=buffer)
    (h, x_min, z), (sigma, sigma_min, _), row, valid = _masked(
        sigma, sigma_min, sigma_max, mask, h=h, x_min=x_min, z=z
    )
    anchor = jnp.where(row, corruption.anchor_level(sigma, sigma_min), 0)
    sigma = jnp.where(row, sigma, 0.5)
    target, ratio = targets.scaled_ambient_target(
        x_min, z, sigma, anchor, prediction=prediction, schedule=schedule
    )
    loss = _mean_square(jnp.where(valid, ratio * h - target, 0), valid)
    if weighting == "buffered":
        loss *= 1 / jnp.maximum(ratio**2, 1 / buffer)
    return loss


def _over_batch(kernel, *args, **options) -> Array:
    """Maps over the leading axis of every argument that has one; scalars and None are shared."""
    first, *names = list(inspect.signature(kernel).parameters)[: len(args)]
    size = jnp.shape(args[0])[:1]
    if not size:
        raise ValueError(f"{first} is a scalar, expected a batch: a first axis of samples")
    for name, a in zip(names, args[1:], strict=True):
        if a is not None and jnp.ndim(a) and jnp.shape(a)[:1] != size:
            raise ValueError(
                f"{name} has shape {jnp.shape(a)}, expected a first axis of {size[0]}, one entry "
                f"per sample of the batch ({first} has shape {jnp.shape(args[0])})"
            )
    axes = tuple(0 if a is not None and jnp.ndim(a) else None for a in args)
    return jax.vmap(functools.partial(kernel, **options), in_axes=axes)(*args)


def _batch(kernel: Kernel) -> Kernel:
    """Returns ``jit(vmap(kernel))``, which checks its arguments by name before tracing."""
    signature = inspect.signature(kernel)
    options = tuple(n for n, p in signature.parameters.items() if p.kind == p.KEYWORD_ONLY)
    mapped = jax.jit(functools.partial(_over_batch, kernel), static_argnames=options)

    def batch(*args: Any, **options: Any) -> Array:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        _check_options(**bound.kwargs)
        inputs = dict(zip(signature.parameters, bound.args, strict=False))
        mask = _checks.mask("mask", inputs.pop("mask"))
        levels = schedules.levels(**{n: inputs.pop(n) for n in ("sigma", "sigma_min", "sigma_max")})
        return mapped(*targets.arrays(**inputs), *levels, mask, **bound.kwargs)

    batch.__signature__ = signature  # type: ignore[attr-defined]
    batch.__name__ = batch.__qualname__ = f"batch_{kernel.__name__}"
    batch.__doc__ = (
        f"``jit(vmap({kernel.__name__}))``: {', '.join(list(signature.parameters)[:3])} [B, H, D]; "
        "sigma and bounds [B] or scalar; mask [B, H] or [B, H, D]; returns each sample's loss [B], "
        "0 where it is not admissible."
    )
    return cast(Kernel, batch)


batch_denoising_loss = _batch(denoising_loss)
batch_ambient_loss = _batch(ambient_loss)


def batch_keep_mask(sigma, sigma_min=0.0, sigma_max=None, mask=None) -> Array:
    """Returns ``keep_mask`` [B]: sigma [B], bounds [B] or scalar, mask [B, H] or [B, H, D]."""
    levels = schedules.levels(sigma=sigma, sigma_min=sigma_min, sigma_max=sigma_max, nan=True)
    return _over_batch(keep_mask, *levels, _checks.mask("mask", mask))


def masked_sum(values: Array, keep: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Returns ``(sum, count)`` of the kept values [B], whose quotient is their mean.

    Without weights the count is the number kept. The weights of ``mixing.data_first_weight`` have
    mean 1 over all rows *drawn*: with them, the sum is that of weight times value and the count
    comes from ``rows_drawn``. Across devices, psum both and divide once.
    """
    values, keep = _checks.array("values", values), jnp.asarray(_checks.mask("keep", keep), bool)
    weight = None if weight is None else _checks.array("weight", weight)
    _checks.same_shape(values=values, keep=keep, weight=weight)
    values = jnp.where(keep, values, 0)
    if weight is None:
        return jnp.sum(values), jnp.sum(keep).astype(values.dtype)
    total = jnp.sum(values * jnp.where(keep, weight, 0))
    return total, rows_drawn(*weight_sums(keep, weight)).astype(values.dtype)


def weight_sums(keep: Array, weight: Array) -> Array:
    """Returns the three sums over rows [B] that ``rows_drawn`` needs, [3]; add them over devices.

    Rows that are not kept and whose weight is not finite are excluded.
    """
    keep = jnp.asarray(_checks.mask("keep", keep), bool)
    counted = keep | jnp.isfinite(weight)
    sums = [jnp.sum(jnp.where(rows, weight, 0)) for rows in (counted, keep)]
    return jnp.stack([jnp.sum(counted).astype(weight.dtype), *sums])


def rows_drawn(rows: Array, weight: Array, kept: Array) -> Array:
    """Returns the divisor of a weighted sum: the rows drawn times their kept share of weight.

    With importance weights w, the noise-first loss is the expectation of w times loss, averaged
    over all rows drawn. Rows emptied by padding are excluded in proportion to their weight.
    """
    return rows * jnp.where(weight > 0, kept / jnp.where(weight > 0, weight, 1), 1)


def masked_mean(values: Array, keep: Array, weight: Array | None = None) -> Array:
    """Returns the mean of the kept values [B], 0 (gradient 0) if none is kept; see ``masked_sum``.

    With data-first weights it estimates the noise-first mean, unbiased if padding empties no row.
    """
    total, count = masked_sum(values, keep, weight)
    return total / jnp.where(count > 0, count, 1)
