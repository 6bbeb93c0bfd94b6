"""Solvers: from pure noise to samples along a grid of noise levels, as one ``lax.scan``.

Every schedule is the variance-preserving process times ``schedule.scale(sigma)``: solvers work on
the variance-preserving x_t, and a schedule only places the grid's levels.

======  ===========  ======================================================================
solver  evaluations  step
======  ===========  ======================================================================
ddpm    n            ancestral: draws from q(x_next | x_t, x0_hat) (Ho et al. 2020)
ddim    n            deterministic first-order exponential integrator (Song et al. 2021);
                     ``eta`` in (0, 1] adds noise, and eta = 1 is ddpm
heun    2 n - 1      second order in s = sigma / alpha (Karras et al. 2022, algorithm 1);
                     its last step, to sigma = 0, is Euler's
======  ===========  ======================================================================

That last step makes heun first order for cosine beyond some 60 steps (1 / n below its offset).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ambient_jax import _checks, schedules, targets

Array = jax.Array
SOLVERS = _checks.SOLVERS
_VP = schedules.vp()

# Where grids start (alpha = 0.06). Nearer 1, an error of the network's eps is multiplied by
# 1 / alpha; lower, pure noise is a worse stand-in for x_t. On data N(0.5, 0.1), 20 steps of the vp
# grid and eps off by 0.03, the mean is off by 0.21 (ddim) and 2.1 (heun) from 0.9999, 0.07 and 0.12
# from 0.999, 0.05 and 0.04 from 0.998. Other schedules and predictions depend on it less.
START = 0.998


def levels(schedule: schedules.Schedule, steps: int) -> Array:
    """The grid [steps + 1]: noise levels from ``START`` down to 0, equidistant in schedule time.

    At sigma = 1 alpha is 0 and eps says nothing about x0, so a grid starts below.
    """
    sigma = schedule.sigma(jnp.linspace(schedule.time(START), 0.0, steps + 1))
    return sigma.at[-1].set(0.0)


def initial_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """x_t at the first level: standard normal [B, *shape], each row from its own key."""
    return _noise(keys, 0, shape)


def _noise(keys, index, shape):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), shape))(keys)


def solve(
    denoise: Callable[[Array, Array], Array],
    keys: Array,
    shape: tuple[int, ...],
    *,
    solver: str = "ddim",
    steps: int = 20,
    schedule: schedules.Schedule = _VP,
    prediction: str = "eps",
    clip: float | None = None,
    mask: Array | None = None,
    eta: float = 0.0,
    trace: bool = False,
) -> Array | tuple[Array, Array]:
    """Draws samples by solving the reverse process.

    Args:
      denoise: maps (x_t [B, H, D] in variance-preserving scale, sigma scalar) to a prediction
        [B, H, D] of type ``prediction``.
      keys: [B] PRNG keys, one for each row: a row does not depend on what it is batched with.
      shape: of one sample, (H, D).
      steps, schedule: n >= 1 intervals of the grid, see ``levels``.
      clip: bound > 0 on |x0_hat| in normalised units, from which the noise left is computed; None
        for no bound.
      mask: [D] bool, False for dimensions that training masked out, where x0_hat is set to 0.
      solver, eta: see the module.
      trace: also return x0_hat at each step.

    Returns:
      Samples x0 [B, H, D]; with ``trace``, also x0_hat [n, B, H, D] at the levels before 0.
    """
    _checks.solver_options(solver, steps, clip, eta)
    _checks.one_of("prediction", prediction, targets.PREDICTIONS)
    keys = _checks.key(keys, "keys")
    if keys.ndim == 0:
        raise ValueError("keys is one key, expected [B], one a row: jax.random.split(key, B)")
    schedules.check(schedule)

    def split(x, sigma):
        """(x0_hat, eps_hat) at x_t."""
        value = denoise(x, sigma)
        common = dict(source=prediction, schedule=_VP)
        x0 = targets.convert(value, x, sigma, target="x0", **common)
        if clip is None and mask is None:
            return x0, targets.convert(value, x, sigma, target="eps", **common)
        x0 = x0 if clip is None else jnp.clip(x0, -clip, clip)
        x0 = x0 if mask is None else jnp.where(mask, x0, 0)
        return x0, targets.convert(x0, x, sigma, source="x0", target="eps", schedule=_VP)

    grid = levels(schedule, steps)
    if solver == "heun":
        step = lambda x, now, then, _: _heun(split, x, now, then)  # noqa: E731
    else:
        noisiness = 1.0 if solver == "ddpm" else eta

        def step(x, now, then, index):
            x0, eps = split(x, now)
            if not noisiness:
                return schedules.signal(then) * x0 + then * eps, x0
            # (now^2 - then^2) / (1 - then^2) is the variance added from `then` to `now`.
            added = (now - then) * (now + then) / ((1 - then) * (1 + then))
            spread = noisiness * then / now * jnp.sqrt(added)
            kept = jnp.sqrt(jnp.maximum(then**2 - spread**2, 0))
            z = _noise(keys, index + 1, shape)
            return schedules.signal(then) * x0 + kept * eps + spread * z, x0

    def body(x, interval):
        x, x0 = step(x, *interval)
        return x, x0 if trace else None

    # One scan over all intervals: the network is compiled once (heun: twice).
    intervals = grid[:-1], grid[1:], jnp.arange(steps)
    x, path = jax.lax.scan(body, initial_noise(keys, shape), intervals)
    return (x, path) if trace else x


def _heun(split, x, now, then):
    """One step in y = x / alpha, s = sigma / alpha, where dy/ds = eps; and x0_hat before it."""
    x0, eps = split(x, now)
    alpha_now, alpha_then = schedules.signal(now), schedules.signal(then)
    width = then / alpha_then - now / alpha_now

    def corrected():
        euler = alpha_then * (x / alpha_now + width * eps)
        slope = (eps + split(euler, then)[1]) / 2
        return alpha_then * (x / alpha_now + width * slope)

    return jax.lax.cond(then > 0, corrected, lambda: x0), x0
