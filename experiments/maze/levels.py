"""Loss per noise level: a policy's network on plans it has not seen, beside what the data allow.

The yardstick is the best linear denoiser given the observation, in closed form from the chunks'
covariance: a network that is no better has learnt no more of that source than its spectrum.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption, schedules, targets
from ambient_jax.data import chunk
from ambient_jax.policy.policy import Policy
from experiments.maze import data

# Noise levels sigma, equidistant in log(sigma / alpha) from 0.004 to 16.
LEVELS = tuple(float(s / np.hypot(1, s)) for s in np.geomspace(0.004, 16, 19))


def chunks(
    directory: str | os.PathLike[str], *, history: int, horizon: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every chunk of a maze data set, in metres: observations {name: [N, T, 2]}, actions [N, H, 2].

    Past an episode's end the last action is held.
    """
    paths = data.load_positions(directory)
    sizes = np.array([len(path) - 1 for path in paths])
    end = np.repeat(np.cumsum(sizes), sizes)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    steps = {
        "observation/state": np.concatenate([path[:-1] for path in paths]),
        "observation/goal": np.concatenate([np.tile(p[-1], (len(p) - 1, 1)) for p in paths]),
        "action": np.concatenate([path[1:] for path in paths]),
    }
    at = np.arange(len(end))
    observation, action, _ = chunk.gather(
        steps, at, start, end, history, horizon, xp=np, padding="hold"
    )
    return observation, action


def network_loss(
    policy: Policy,
    observation: dict[str, np.ndarray],
    action: np.ndarray,
    *,
    levels: tuple[float, ...] = LEVELS,
    samples: int = 4096,
    seed: int = 0,
) -> np.ndarray:
    """Mean squared error of x0_hat per number (normalised units) at each level [L].

    Args:
      policy: whose network is measured.
      observation, action: chunks in metres, see ``chunks``.
      levels: noise levels sigma in (0, 1).
      samples: at most so many chunks, drawn without replacement.
      seed: of that draw and of the noise; the same for every policy.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(action))[:samples]
    observation = {name: np.asarray(v[rows], np.float32) for name, v in observation.items()}
    x0 = policy.normalizer.normalize("action", np.asarray(action[rows], np.float32))
    return np.asarray(_losses(policy, policy.params, observation, x0, jnp.asarray(levels), seed))


@functools.partial(jax.jit, static_argnums=0)
def _losses(policy: Policy, params: Any, observation, x0, levels, seed):
    denoise = policy.denoiser(params, observation)
    eps = jax.random.normal(jax.random.key(seed), x0.shape)

    def at(sigma):
        x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(x0, eps)
        kind = dict(source=policy.prediction, target="x0", schedule=schedules.vp())
        return jnp.mean((targets.convert(denoise(x_t, sigma), x_t, sigma, **kind) - x0) ** 2)

    return jax.lax.map(at, levels)


def linear_loss(
    train: tuple[dict[str, np.ndarray], np.ndarray],
    test: tuple[dict[str, np.ndarray], np.ndarray],
    scale: float,
    *,
    levels: tuple[float, ...] = LEVELS,
) -> np.ndarray:
    """As ``network_loss``, of the best linear denoiser: fitted to one set, expected on another [L].

    x0 = B o + r: B by least squares on the observation, then the Wiener filter of r's covariance C,
    ``K = alpha C (alpha^2 C + sigma^2)^-1``, whose error is known without drawing noise.

    Args:
      train, test: chunks as from ``chunks``, in metres.
      scale: metres in one normalised unit.
      levels: noise levels sigma in (0, 1).
    """
    inputs, outputs = _design(*train, scale)
    fit = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    rest = outputs - inputs @ fit
    variances, modes = np.linalg.eigh(rest.T @ rest / len(rest))
    variances = np.maximum(variances, 0)
    inputs, outputs = _design(*test, scale)
    rest = (outputs - inputs @ fit) @ modes
    power = np.mean(rest**2, 0)
    losses = []
    for sigma in levels:
        alpha = np.sqrt((1 - sigma) * (1 + sigma))
        gain = alpha * variances / (alpha**2 * variances + sigma**2)
        losses.append(np.mean((alpha * gain - 1) ** 2 * power + sigma**2 * gain**2))
    return np.array(losses)


def _design(observation, action, scale):
    flat = [observation[name].reshape(len(action), -1) for name in sorted(observation)]
    inputs = np.concatenate([*flat, np.ones((len(action), 1))], 1)
    return inputs / scale, action.reshape(len(action), -1) / scale
