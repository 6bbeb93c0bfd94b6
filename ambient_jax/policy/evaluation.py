"""What a policy does on recorded data: denoising loss at each noise level, error of its chunks."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption, schedules, targets
from ambient_jax.data import chunk, rlds, statistics
from ambient_jax.policy.policy import Policy

# Noise levels sigma, equidistant in log(sigma / alpha) from 0.004 to 16.
LEVELS = tuple(float(s / np.hypot(1, s)) for s in np.geomspace(0.004, 16, 19))


class Chunks(NamedTuple):
    """N recorded chunks in data units: {name: [N, T, d]}, [N, H, D] and its mask [N, H]."""

    observation: dict[str, np.ndarray]
    action: np.ndarray
    mask: np.ndarray


def recorded(
    dataset: rlds.RldsDataset,
    policy: Policy,
    *,
    action: str = "action",
    padding: str = "mask",
    episodes: int = 200,
    samples: int = 4096,
    seed: int = 0,
) -> Chunks:
    """Chunks of a data set as a policy sees them.

    Args:
      dataset: from ``rlds.open_dataset``.
      policy: whose observations, history and horizon are taken.
      action, padding: as in the training's data section.
      episodes: at most so many are read, drawn without replacement.
      samples: at most so many chunks are drawn from them.
      seed: of both draws.

    Raises:
      ValueError: fields that are missing or not finite, naming the episode.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(dataset))[:episodes])
    names = tuple(policy.dims)
    read = functools.partial(
        statistics.read, observation=names, action=action, transform=None, source=dataset.name
    )
    found = [read(dataset[int(i)], index=int(i)) for i in chosen]
    sizes = np.array([len(each[chunk.ACTION]) for each in found])
    steps = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    end = np.cumsum(sizes)
    at = rng.permutation(end[-1])[:samples]
    own = np.searchsorted(end, at, side="right")
    start = (end - sizes)[own]
    return Chunks(
        *chunk.gather(
            steps, at, start, end[own], policy.history, policy.horizon, xp=np, padding=padding
        )
    )


def denoising_loss(
    policy: Policy,
    observation: dict[str, np.ndarray],
    action: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    levels: tuple[float, ...] = LEVELS,
    samples: int = 4096,
    seed: int = 0,
    params: Any = None,
) -> np.ndarray:
    """Mean squared error of x0_hat per number (normalised units) at each level [L].

    Args:
      policy: whose network is measured.
      observation, action, mask: chunks in data units, see ``Chunks``; no mask counts all.
      levels: noise levels sigma in (0, 1).
      samples: at most so many chunks, drawn without replacement.
      seed: of that draw and of the noise; the same for every policy.
      params: in place of the policy's own, such as those of another step: nothing is compiled anew.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(action))[:samples]
    observation = {name: np.asarray(v[rows], np.float32) for name, v in observation.items()}
    x0 = policy.normalizer.normalize("action", np.asarray(action[rows], np.float32))
    mask = np.ones(x0.shape[:2], bool) if mask is None else mask[rows]
    levels = jnp.asarray(levels)
    params = policy.params if params is None else params
    return np.asarray(_losses(policy, params, observation, x0, mask, levels, seed))


@functools.partial(jax.jit, static_argnums=0)
def _losses(policy: Policy, params: Any, observation, x0, mask, levels, seed):
    denoise = policy.denoiser(params, observation)
    eps = jax.random.normal(jax.random.key(seed), x0.shape)
    weight = mask[..., None] / jnp.maximum(jnp.sum(mask) * x0.shape[-1], 1)

    def at(sigma):
        x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(x0, eps)
        kind = dict(source=policy.prediction, target="x0", schedule=schedules.vp())
        x0_hat = targets.convert(denoise(x_t, sigma), x_t, sigma, **kind)
        return jnp.sum(weight * (x0_hat - x0) ** 2)

    return jax.lax.map(at, levels)


def action_error(
    policy: Policy, chunks: Chunks, *, samples: int = 512, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared difference of sampled chunks from the recorded ones, in data units.

    A policy of several right answers does not reach 0: compare policies, not zeros.

    Args:
      policy: which samples with its own solver.
      chunks: recorded ones.
      samples: at most so many of them.
      seed: of the policy's draws.

    Returns:
      Of each action dimension [D], over all unmasked steps; and of each step ahead [H], over all
      dimensions (NaN where every chunk is masked).
    """
    rows = slice(0, samples)
    observation = {name: value[rows] for name, value in chunks.observation.items()}
    found = np.asarray(policy(observation, jax.random.key(seed)))
    mask = chunks.mask[rows][..., None]
    square = np.where(mask, (found - chunks.action[rows]) ** 2, 0)
    count = mask.sum((0, 1)), mask.sum((0, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(square.sum((0, 1)) / count[0]), np.sqrt(square.mean(2).sum(0) / count[1])
