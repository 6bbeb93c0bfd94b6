"""Regression targets x0, eps, v, velocity and score, from clean data or from noisy data only.

With ``x_t = alpha x0 + noise eps`` every target is linear in (x0, eps):

========  ==============================================  =====================================
name      definition                                      note
========  ==============================================  =====================================
x0        x0                                              data prediction
eps       eps                                             noise prediction (DDPM)
v         (alpha eps - noise x0) / hypot(alpha, noise)    the same in every schedule
velocity  eps - x0                                        rectified flow's dx_t/dt; as a target
                                                          it is defined in every schedule
score     -eps / noise                                    gradient of log p(x_t); convert only
========  ==============================================  =====================================

so its ambient target is the same combination of the ambient targets of x0 and eps.

Ambient targets (arXiv 2606.12365; derivation for any alpha, noise): only ``x_min``, the sample at
noise level sigma_min, is known, and ``x_t = r x_min + v z`` with the Gaussian bridge's
``r = alpha_t / alpha_min`` and ``v^2 = noise_t^2 - r^2 noise_min^2``. Then the means ``E[T | x_t]``
of

    T_x0 = (x_min - r noise_min^2 z / v) / alpha_min,     T_eps = (noise_t / v) z

are the posterior means of x0 and eps given x_t. Written in x_t and x_min, variance preserving, with
Delta = sigma^2 - sigma_min^2, a = sqrt(1 - sigma^2) and b = sqrt(1 - sigma_min^2):

    T_eps = sigma (1 - sigma_min^2) / Delta x_t - sigma a b / Delta x_min.

Erratum: both talks of September 2025 print the first coefficient of this eps target as
``sigma^2 (1 - sigma_min^2) / (Delta sqrt(1 - sigma^2))``, which is too large by the factor
sigma / sqrt(1 - sigma^2): it does not become eps as sigma_min -> 0. The code uses the form above.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ambient_jax import _checks, schedules
from ambient_jax.schedules import Schedule

Array = jax.Array
PREDICTIONS = ("x0", "eps", "v", "velocity")
CONVERTIBLE = (*PREDICTIONS, "score")
_VP = schedules.vp()


def _safe_divide(numerator, denominator):
    """Returns numerator / denominator, and the numerator where the denominator is 0."""
    return numerator / jnp.where(denominator == 0, 1, denominator)


def arrays(**values: Any) -> list[Any]:
    """Returns the arrays; raises ValueError that names an array that does not hold floats."""
    return [_checks.array(name, value) for name, value in values.items()]


def _weights(prediction: str, sigma, schedule):
    """Returns (c_x, c_e) with target = c_x x0 + c_e eps at noise level sigma."""
    schedules.check(schedule)
    _checks.one_of("prediction", prediction, CONVERTIBLE)
    sigma = schedule.clip(sigma)
    one, zero = jnp.ones_like(sigma), jnp.zeros_like(sigma)
    weights = {"x0": (one, zero), "eps": (zero, one), "velocity": (-one, one)}
    if prediction in weights:
        return weights[prediction]
    if prediction == "v":
        return -sigma, schedules.signal(sigma)
    return zero, _safe_divide(-one, schedule.coefficients(sigma)[1])


def denoising_target(
    x0: Array, eps: Array, sigma: Array, *, prediction: str = "eps", schedule: Schedule = _VP
) -> Array:
    """Returns the regression target if x0 is known, of x0's shape.

    Args:
      x0: clean sample [H, D] (or any shape).
      eps: the standard normal noise that made x_t, of x0's shape.
      sigma: noise level in [0, 1], a scalar (or broadcastable against x0).
      prediction: "x0", "eps", "v" or "velocity".
      schedule: scales x_t; only "score" uses it.
    """
    c_x, c_e = _weights(prediction, sigma, schedule)
    x0, eps = arrays(x0=x0, eps=eps)
    return c_x * x0 + c_e * eps


def noise_ratio(sigma: Array, sigma_min: Array, *, schedule: Schedule = _VP) -> Array:
    """Returns ``v / noise_t`` in [0, 1]: the share of x_t's noise that the bridge added. It is
    ``sqrt(1 - snr(sigma) / snr(sigma_min))``: 1 for sigma_min = 0, 0 at (and below) sigma_min, and
    the same in every schedule. Its inverse is the standard deviation of the ambient eps target."""
    schedules.check(schedule)
    sigma, sigma_min = schedules.levels(sigma=sigma, sigma_min=sigma_min)
    sigma, sigma_min = schedule.clip(sigma), schedule.clip(sigma_min)
    delta = (sigma - sigma_min) * (sigma + sigma_min)
    squared = _safe_divide(delta, sigma**2 * (1 - sigma_min) * (1 + sigma_min))
    positive = delta > 0
    ratio = jnp.sqrt(jnp.where(positive, squared, 1.0))
    return jnp.where(sigma_min == 0, 1.0, jnp.where(positive, jnp.minimum(ratio, 1.0), 0.0))


def scaled_ambient_target(
    x_min: Array,
    z: Array,
    sigma: Array,
    sigma_min: Array,
    *,
    prediction: str = "eps",
    schedule: Schedule = _VP,
) -> tuple[Array, Array]:
    """Returns ``(noise_ratio * T, noise_ratio)``, finite at sigma == sigma_min. T is the ambient
    target; for the arguments see ``ambient_target``. For prediction "eps" the scaled target is z.
    """
    c_x, c_e = _weights(prediction, sigma, schedule)
    x_min, z = arrays(x_min=x_min, z=z)
    ratio = noise_ratio(sigma, sigma_min, schedule=schedule)
    alpha_t, noise_t = schedule.coefficients(sigma)
    alpha_m, noise_m = schedule.coefficients(sigma_min)
    shrink = _safe_divide(_safe_divide(alpha_t, alpha_m) * noise_m**2, noise_t)
    x0_part = _safe_divide(ratio * x_min - shrink * z, alpha_m)
    return c_x * x0_part + c_e * z, ratio


def ambient_target(
    x_min: Array,
    z: Array,
    sigma: Array,
    sigma_min: Array,
    *,
    prediction: str = "eps",
    schedule: Schedule = _VP,
) -> Array:
    """Returns the regression target, of x_min's shape, if only x_min is known.

    Its mean given ``x_t = renoise(x_min, z, sigma, sigma_min)`` is the posterior mean of the
    denoising target; for sigma_min = 0 it is the denoising target. Its variance grows without bound
    as sigma falls to sigma_min, so the noise ratio is clipped at 1e-3. The losses use
    ``scaled_ambient_target``, which needs no clipping.

    Args:
      x_min: sample at noise level sigma_min, [H, D] (or any shape), scaled as the schedule's x_t.
      z: the standard normal noise of the bridge from x_min to x_t, of x_min's shape.
      sigma, sigma_min: noise levels in [0, 1], scalars, of x_t and of x_min.
      prediction: "x0", "eps", "v" or "velocity".
      schedule: the schedule of x_min and x_t.
    """
    scaled, ratio = scaled_ambient_target(
        x_min, z, sigma, sigma_min, prediction=prediction, schedule=schedule
    )
    return scaled / jnp.maximum(ratio, 1e-3)


def convert(
    value: Array,
    x_t: Array,
    sigma: Array,
    *,
    source: str,
    target: str,
    schedule: Schedule = _VP,
) -> Array:
    """Converts a prediction at (x_t, sigma) from type ``source`` to type ``target``.

    Where the level does not determine the result (eps from x0 at sigma = 0, x0 from eps at
    sigma = 1) it is finite but meaningless.

    Args:
      value: prediction of type ``source``, [H, D] (or any shape).
      x_t: noisy sample of the same shape, scaled as the schedule's.
      sigma: noise level in [0, 1], scalar (or broadcastable).
      source, target: "x0", "eps", "v", "velocity" or "score".
      schedule: the schedule of x_t.
    """
    _checks.one_of("source", source, CONVERTIBLE)
    _checks.one_of("target", target, CONVERTIBLE)
    schedules.check(schedule)
    value, x_t = arrays(value=value, x_t=x_t)
    (sigma,) = schedules.levels(sigma=sigma)
    if source == target:
        return value
    alpha, noise = schedule.coefficients(sigma)
    level = schedule.clip(sigma)
    if source == "score":
        value, source = -noise * value, "eps"
    if source == "x0":
        x0, eps = value, _safe_divide(x_t - alpha * value, noise)
    elif source == "eps":
        x0, eps = _safe_divide(x_t - noise * value, alpha), value
    elif source == "v":
        unit = x_t / schedule.scale(level)
        a = schedules.signal(level)
        x0, eps = a * unit - level * value, level * unit + a * value
    else:
        x0 = (x_t - noise * value) / (alpha + noise)
        eps = x0 + value
    c_x, c_e = _weights(target, sigma, schedule)
    return x0 if target == "x0" else eps if target == "eps" else c_x * x0 + c_e * eps
