"""Chooses at which pairs of levels (sigma of the action, rho of the observation) data are used.

A classifier sees noised actions and noised observations (``Options.noised``), is told both levels,
and compares p(A | O_rho) with q(A | O_rho) at even odds. Where it cannot tell corrupt rows from
clean ones they are admissible; the border is a curve rho(sigma), ``observations.curve``.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption, observations
from ambient_jax.annotate import classifier, thresholds
from ambient_jax.data import device

Array = jax.Array


def probabilities(
    fitted: classifier.Fitted,
    data: device.DeviceData,
    positions: np.ndarray,
    levels: np.ndarray,
    observation_levels: np.ndarray,
    *,
    pair: int | np.ndarray = 0,
    draws: int = 2,
    batch_size: int = 1024,
    seed: int = 0,
) -> np.ndarray:
    """Returns P(clean) [N, M, L] of chunks at each observation level and noise level.

    It is averaged over noise draws; the classifier of a chunk's own fold predicts. For the
    arguments see ``classifier.probabilities``.

    Args:
      fitted: of ``classifier.fit`` with ``Options.observed`` and ``Options.noised``.
      observation_levels: rho [M] in [0, 1].

    Raises:
      ValueError: the classifier does not see noised observations.
    """
    if not fitted.options.noised:
        raise ValueError(
            "the classifier has no noised observations, expected one that was fitted with "
            "Options(observed=True, noised=(names of observations))"
        )
    rho = jnp.asarray(observation_levels, jnp.float32)
    # The levels are arguments of the jitted function, not of its closure.
    ask = functools.partial(_probabilities, draws=draws)
    asked = lambda *args, **options: ask(rho, *args, **options)  # noqa: E731
    return classifier.by_fold(asked, fitted, data, positions, pair, levels, batch_size, seed)


@functools.partial(jax.jit, static_argnames=("network", "options", "draws"))
def _probabilities(
    observation_levels,
    data,
    levels,
    pairs,
    member,
    positions,
    pair,
    key,
    *,
    network,
    options,
    draws,
):
    observation, x0, eps = classifier.cut(data, positions, options, key)
    params, temperature = member
    rows = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)

    def seen(rho, draw):
        keys = jax.vmap(lambda k: jax.random.fold_in(jax.random.fold_in(k, 7), draw))(rows)
        least = jnp.full(len(x0), rho)
        return observations.noised(observation, options.noised, least, keys)

    def at_rho(rho):
        def at_sigma(sigma):
            scale = classifier.temperature_at(sigma, temperature, pair)

            def add(draw, total):
                noised = seen(rho, draw)
                logits = lambda x, s: network.apply(  # noqa: E731
                    params, x, jnp.full(len(x), s), pair, pairs, noised
                )
                x_t = corruption.add_noise(x0, eps(draw), sigma)
                gain = logits(x_t, sigma) - logits(x0, 1.0)
                return total + jax.nn.sigmoid(gain / scale)

            return jax.lax.fori_loop(0, draws, add, jnp.zeros(len(x0))) / draws

        return jax.lax.map(at_sigma, levels)

    return jnp.transpose(jax.lax.map(at_rho, observation_levels), (2, 0, 1))


def border(observation_levels: Any, clean_probability: Any, *, tau: float = 0.05) -> np.ndarray:
    """Returns the least admissible rho [L] at each of L increasing noise levels.

    It is where P(clean) passes 0.5 - tau on the way to rho = 1 (``thresholds.sigma_min``), and does
    not rise with sigma: noise on the action hides what noise on the observation does.

    Args:
      observation_levels: [M] increasing, from 0 to 1.
      clean_probability: [M, L], averaged over corrupt chunks.
      tau: how far below 0.5 still counts as "cannot tell".
    """
    curve = np.asarray(clean_probability).T
    least = thresholds.sigma_min(observation_levels, curve, tau=tau)
    # The nearest curve that falls, in least squares.
    return np.clip(-thresholds.isotonic(-least), 0, 1)


def sigma_min(levels: Any, clean_probability: Any, *, tau: float = 0.05) -> float:
    """Returns sigma_min of the pair as it is: of P(clean) [L] at rho = 0."""
    return float(thresholds.sigma_min(levels, clean_probability, tau=tau))
