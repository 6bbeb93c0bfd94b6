"""Adds noise: to x0, and to x_min (a sample known only at sigma_min) by the Gaussian bridge.

Noise may be coloured along the horizon: eps = L w with w white and a fixed matrix L [H, H]. On the
chunks L^-1 x this is the process with white noise. All targets are linear in x0 and eps, so their
posterior means, the ambient targets and the solvers' steps hold as they are, with eps coloured
wherever it is drawn (``coloured``).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks, schedules, targets

Array = jax.Array
_VP = schedules.vp()


def add_noise(x0: Array, eps: Array, sigma: Array, *, schedule: schedules.Schedule = _VP) -> Array:
    """Returns ``x_t = alpha x0 + noise eps`` at noise level sigma.

    Args:
      x0: sample [H, D] (or any shape).
      eps: standard normal noise of x0's shape.
      sigma: noise level in [0, 1], scalar (or broadcastable).
      schedule: gives (alpha, noise) at sigma.
    """
    schedules.check(schedule)
    x0, eps = targets.arrays(x0=x0, eps=eps)
    alpha, noise = schedule.coefficients(sigma)
    return alpha * x0 + noise * eps


def renoise(
    x_min: Array,
    z: Array,
    sigma: Array,
    sigma_min: Array,
    *,
    schedule: schedules.Schedule = _VP,
) -> Array:
    """Returns ``x_t = r x_min + v z``: adds noise to a sample that already has level sigma_min.

    This is the Gaussian bridge: with x_min = add_noise(x0, e, sigma_min) and z independent of e,
    x_t has exactly the law of add_noise(x0, eps, sigma), and E[x0 | x_t, x_min] = E[x0 | x_min].
    The ambient targets are unbiased under this coupling, and biased if x_t is made from x0 with
    independent noise. With sigma_min = 0 it is add_noise.

    Args:
      x_min: sample at noise level sigma_min, [H, D] (or any shape), scaled as the schedule's x_t.
      z: fresh standard normal noise of x_min's shape.
      sigma: noise level in [sigma_min, 1], scalar (or broadcastable); below sigma_min no noise is
        added, which the losses mask.
      sigma_min: noise level of x_min in [0, 1).
      schedule: gives (alpha, noise).
    """
    schedules.check(schedule)
    x_min, z = targets.arrays(x_min=x_min, z=z)
    sigma, sigma_min = schedules.levels(sigma=sigma, sigma_min=sigma_min)
    alpha_t, noise_t = schedule.coefficients(sigma)
    alpha_m, _ = schedule.coefficients(sigma_min)
    r = alpha_t / jnp.where(alpha_m == 0, 1, alpha_m)
    return r * x_min + noise_t * targets.noise_ratio(sigma, sigma_min, schedule=schedule) * z


def anchor_level(sigma: Array, sigma_min: Array) -> Array:
    """Returns the level of the sample that x_t is made from: sigma_min above it, 0 (x0) below.

    Below sigma_min only the low band (sigma < sigma_max) is admissible, where x0 counts as known:
    the ambient loss at anchor 0 is the denoising loss.
    """
    sigma, sigma_min = schedules.levels(sigma=sigma, sigma_min=sigma_min, nan=True)
    return jnp.where(jnp.asarray(sigma) > sigma_min, sigma_min, 0.0)


def fixed_noise(key: Array, sample_id: Array, shape: tuple[int, ...]) -> Array:
    """Draws the standard normal noise of a sample: a pure function of (key, sample_id).

    A sample has one x_min for all of training. Drawing it from the id keeps it the same under
    shuffling, resuming and a change of hosts, without storing it.

    Args:
      key: PRNG key (or a seed) of the data set, not of the step.
      sample_id: integers [3]: (source, episode, step).
      shape: shape of the sample, [H, D].

    Raises:
      ValueError: sample_id is not three integers (use jax.vmap for a batch of ids).
    """
    key = _checks.key(key)
    sample_id = jnp.asarray(sample_id)
    if jnp.shape(sample_id) != (3,):
        raise ValueError(
            f"sample_id has shape {jnp.shape(sample_id)}, expected (3,): source, episode, step "
            "of one sample; use jax.vmap for a batch"
        )
    if not jnp.issubdtype(sample_id.dtype, jnp.integer):
        raise ValueError(f"sample_id is of type {sample_id.dtype}, expected integers")
    for part in range(3):
        key = jax.random.fold_in(key, sample_id[part])
    return jax.random.normal(key, shape)


def cosines(horizon: int) -> np.ndarray:
    """Returns the orthonormal cosines [H, H], one a row: f = k / 2H for k = 0 ... H - 1."""
    k, h = np.arange(horizon)[:, None], np.arange(horizon)
    return np.cos(np.pi * k * (h + 0.5) / horizon) * np.sqrt(np.where(k, 2, 1) / horizon)


@functools.cache
def colour_matrix(horizon: int, exponent: float) -> np.ndarray:
    """Returns L [H, H], float64, symmetric: L w has psd ~ f^-exponent and the power of white w.

    The basis is the orthonormal cosines (DCT-II) with f = k / 2H: a chunk's ends differ, and a
    Fourier basis would tie the noise at its end to that at its start. k = 0 has the power of k = 1.
    The covariance is L^2, of trace H; exponent 0 gives the identity.

    Raises ValueError if the horizon is not at least 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}, expected at least 1 step")
    basis = cosines(horizon)
    power = np.maximum(np.arange(horizon), 1.0) ** -float(exponent)
    power *= horizon / power.sum()
    matrix = basis.T @ (np.sqrt(power)[:, None] * basis)
    matrix.setflags(write=False)
    return matrix


def coloured(white: Array, schedule: schedules.Schedule = _VP) -> Array:
    """Returns the schedule's noise [..., H, D] made of white noise of that shape.

    It is ``colour_matrix(H, schedule.colour)`` along the horizon; without a colour it is the
    argument itself.
    """
    colour = getattr(schedule, "colour", 0.0)  # a schedule of another package may have none
    if not colour:
        return white
    matrix = jnp.asarray(colour_matrix(white.shape[-2], colour), white.dtype)
    return jnp.einsum("gh,...hd->...gd", matrix, white)
