"""What the maze's data allow at each noise level, beside ``policy.evaluation.denoising_loss``.

The yardstick is the best linear denoiser given the observation, in closed form from the chunks'
covariance: a network that is no better has learnt no more of that source than its spectrum.
"""

from __future__ import annotations

import os

import numpy as np

from ambient_jax.data import chunk
from ambient_jax.evaluate.evaluation import LEVELS
from experiments.maze import data


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


def linear_loss(
    train: tuple[dict[str, np.ndarray], np.ndarray],
    test: tuple[dict[str, np.ndarray], np.ndarray],
    scale: float,
    *,
    levels: tuple[float, ...] = LEVELS,
) -> np.ndarray:
    """``evaluation.denoising_loss`` [L] of the best linear denoiser, fitted to the first set.

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
