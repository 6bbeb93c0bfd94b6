"""Solves the reverse process from pure noise to samples, as one ``lax.scan`` over noise levels.

Every schedule is the variance-preserving process times ``schedule.scale(sigma)``: solvers work on
the variance-preserving x_t, and a schedule only sets the levels of the grid.

========  ===========  ====================================================================
solver    evaluations  step
========  ===========  ====================================================================
ddpm      n            ancestral: draws from q(x_next | x_t, x0_hat) (Ho et al. 2020)
ddim      n            deterministic first-order exponential integrator (Song et al. 2021);
                       ``eta`` in (0, 1] adds noise, and eta = 1 is ddpm
heun      2 n          second order in s = sigma / alpha (Karras et al. 2022, algorithm 1);
                       its last step, to sigma = 0, is the midpoint rule's
dpmpp_2m  n            DPM-Solver++(2M), second order in log s, from the last two x0_hat
                       (Lu et al. 2022, arXiv 2211.01095, algorithm 2)
========  ===========  ====================================================================

The last step of ddpm, ddim and dpmpp_2m returns x0_hat at the last level s before 0. It is off by
about s^2 / 2 times the curvature of the flow there, which smooths detail finer than s. cosine's
last level falls only like n^-1/2 (its ``offset``) and edm's not below ``s_min``, so this error
falls like 1 / n on cosine and stays on edm. heun's midpoint rule is off by s^4 only, but asks the
network at s / 2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ambient_jax import _checks, corruption, schedules, targets

Array = jax.Array
SOLVERS = _checks.SOLVERS
_VP = schedules.vp()

# First level of a grid (alpha = 0.06). Nearer 1, the error of the network's eps is multiplied by
# 1 / alpha; lower, pure noise approximates x_t worse. On data N(0.5, 0.1), with 20 steps of the vp
# grid and an error of 0.03 in eps, the mean is wrong by 0.21 (ddim) and 2.1 (heun) from 0.9999, by
# 0.07 and 0.12 from 0.999, by 0.05 and 0.04 from 0.998. Other schedules and predictions vary less.
START = 0.998


def levels(schedule: schedules.Schedule, steps: int) -> Array:
    """Returns noise levels [steps + 1] from ``START`` down to 0, equidistant in schedule time.

    At sigma = 1 alpha is 0 and eps does not determine x0, so a grid starts below 1.
    """
    sigma = schedule.sigma(jnp.linspace(schedule.time(START), 0.0, steps + 1))
    return sigma.at[-1].set(0.0)


def initial_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """Draws x_t at the first level: standard normal [B, *shape], each row from its own key."""
    return _noise(keys, 0, shape)


def _noise(keys, index, shape):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), shape))(keys)


def _growth(grid):
    """Returns h / (2 h_before) of each step of ``grid``, where h is the step in log s; 0 for the
    first step, which has no step before it, and for the last, where h is infinite."""
    s = grid[:-1] / schedules.signal(grid[:-1])
    h = jnp.log(s[:-1] / s[1:])
    return jnp.zeros_like(s).at[1:-1].set(h[1:] / (2 * h[:-1]))


def solve(
    denoise: Callable[[Array, Array], Array],
    keys: Array | None,
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
    noise: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Draws samples by solving the reverse process.

    Args:
      denoise: maps (x_t [B, H, D] in variance-preserving scale, sigma scalar) to a prediction
        [B, H, D] of type ``prediction``.
      keys: [B] PRNG keys, one for each row: a row does not depend on the other rows.
      shape: shape of one sample, (H, D).
      steps, schedule: n >= 1 intervals of the grid, see ``levels``; the schedule also colours all
        noise that is drawn, see ``corruption.coloured``.
      clip: bound > 0 on |x0_hat| in normalised units; the remaining noise is computed from the
        bounded x0_hat. None for no bound.
      mask: [D] bool, False for dimensions that training masked out, where x0_hat is set to 0.
      solver, eta: see the module.
      trace: also return x0_hat of each step.
      noise: x_t [B, H, D] at the first level, in place of a draw. Solvers that draw no other noise
        then need no keys (None).

    Returns:
      Samples x0 [B, H, D]; with ``trace``, also x0_hat [n, B, H, D] at the levels before 0, of
      which the last is the sample.
    """
    _checks.solver_options(solver, steps, clip, eta)
    _checks.one_of("prediction", prediction, targets.PREDICTIONS)
    noisiness = 1.0 if solver == "ddpm" else eta
    if keys is not None or noise is None or noisiness:
        keys = _checks.key(keys, "keys")
    if keys is not None and keys.ndim == 0:
        raise ValueError("keys is one key, expected [B], one a row: jax.random.split(key, B)")
    schedules.check(schedule)

    def bounded(x0):
        x0 = x0 if clip is None else jnp.clip(x0, -clip, clip)
        return x0 if mask is None else jnp.where(mask, x0, 0)

    def split(x, sigma):
        """Returns (x0_hat, eps_hat) at x_t."""
        value = denoise(x, sigma)
        common = dict(source=prediction, schedule=_VP)
        x0 = targets.convert(value, x, sigma, target="x0", **common)
        if clip is None and mask is None:
            return x0, targets.convert(value, x, sigma, target="eps", **common)
        x0 = bounded(x0)
        return x0, targets.convert(x0, x, sigma, source="x0", target="eps", schedule=_VP)

    def ddim(x, level, following, index):
        x0, eps = split(x, level)
        if not noisiness:
            return schedules.signal(following) * x0 + following * eps, x0
        # Variance that the process adds from the following (lower) level to this one.
        added = (level - following) * (level + following) / ((1 - following) * (1 + following))
        spread = noisiness * following / level * jnp.sqrt(added)
        remaining = jnp.sqrt(jnp.maximum(following**2 - spread**2, 0))
        z = corruption.coloured(_noise(keys, index + 1, shape), schedule)
        return schedules.signal(following) * x0 + remaining * eps + spread * z, x0

    def heun(x, level, following, _):
        """Steps in y = x / alpha, s = sigma / alpha, where dy/ds = eps."""
        x0, eps = split(x, level)
        last = following == 0
        alpha, s = schedules.signal(level), level / schedules.signal(level)
        # Of the second evaluation; at the last step, that at s / 2.
        target = jnp.where(last, level / jnp.hypot(2 * alpha, level), following)
        scale = schedules.signal(target)
        width = target / scale - s
        x0_there, eps_there = split(scale * (x / alpha + width * eps), target)
        x_next = scale * (x / alpha + width * (eps + eps_there) / 2)
        # y - s eps_there, since the second evaluation is halfway between y and x0_hat.
        sample = bounded(2 * x0_there - x0)
        return jnp.where(last, sample, x_next), jnp.where(last, sample, x0)

    def dpmpp(x, level, following, growth, before):
        x0, _ = split(x, level)
        drawn = x0 + growth * (x0 - before)  # x0_hat halfway, in log s
        ratio = following / level
        alpha, next_alpha = schedules.signal(level), schedules.signal(following)
        return ratio * x + (next_alpha - ratio * alpha) * drawn, x0.astype(x.dtype)

    grid = levels(schedule, steps)
    if noise is None:
        noise = corruption.coloured(initial_noise(_checks.key(keys, "keys"), shape), schedule)
    step: Callable[..., tuple[Array, Array]] = heun if solver == "heun" else ddim
    extra = jnp.arange(steps)
    start: tuple[Array, ...] = (noise,)
    if solver == "dpmpp_2m":
        step, extra, start = dpmpp, _growth(grid), (noise, jnp.zeros_like(noise))

    def body(carry, interval):
        x, *before = carry
        x, x0 = step(x, *interval, *before)
        return (x, x0) if before else (x,), x0 if trace else None

    # One scan over all intervals compiles the network once (heun: twice).
    (x, *_), path = jax.lax.scan(body, start, (grid[:-1], grid[1:], extra))
    return (x, path) if trace else x
