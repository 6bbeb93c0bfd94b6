"""Finds where the camera of each episode stood, by a policy of clean data alone.

The actions of a shifted episode are right, and the policy knows p(A | O) of right observations. So
an episode's camera is the one under which its actions are the most likely: that of the least loss
of eps, over noise levels spread evenly in log(sigma / alpha), which bounds the likelihood. This
assumes what moved (a camera that sees the table from above: three numbers an episode), not by how
much. It needs no true observation and no rollout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from ambient_jax import corruption, schedules, targets
from ambient_jax.evaluate.evaluation import Chunks
from ambient_jax.policy.policy import Policy

Array = jax.Array
UNIT = (0.02, 0.02, 0.1)  # m, m, radian: steps of a camera are counted in these


@dataclasses.dataclass(frozen=True)
class Options:
    """How cameras are found.

    Attributes:
      chunks: chunks of an episode that are used, spread over it.
      batch: of these, so many are drawn for each step.
      steps: steps of Adam; a camera is the mean over the last half of them.
      rate: largest learning rate, in ``UNIT``.
      levels: the least and the largest noise level.
    """

    chunks: int = 32
    batch: int = 6
    steps: int = 120
    rate: float = 0.15
    levels: tuple[float, float] = (0.1, 0.97)


def seen_from(observation: Mapping[str, Array], camera: Array) -> dict[str, Array]:
    """Returns what cameras report that are moved by ``camera`` [..., 3]: x and y in metres and an
    angle in radian about the world's origin.

    The observations are "pusher" [..., T, 2], which stays, and "slider" [..., T, 10]
    (``shifts.split``).
    """
    pusher, slider = (jnp.asarray(observation[name]) for name in ("pusher", "slider"))
    offset, turn = camera[..., None, :2], camera[..., 2]
    c, s = jnp.cos(turn), jnp.sin(turn)
    turned = jnp.stack([jnp.stack([c, s], -1), jnp.stack([-s, c], -1)], -2)
    points = slider[..., 4:].reshape(*slider.shape[:-1], 3, 2) + pusher[..., None, :]
    points = points @ turned[..., None, :, :] + (offset - pusher)[..., None, :]
    parts = slider[..., :2] @ turned + offset, slider[..., 2:4] @ turned
    flat = points.reshape(*slider.shape[:-1], 6)
    return {"pusher": pusher, "slider": jnp.concatenate([*parts, flat], -1)}


def find(policy: Policy, chunks: Chunks, options: Options = Options()) -> np.ndarray:  # noqa: B008
    """Returns for each episode the camera [E, 3] from which its observations, ``seen_from``, make
    its actions the most likely under the policy.

    Args:
      policy: trained on clean data; its observations are "pusher" and "slider".
      chunks: of all episodes, in data units, with their ``origin``.
    """
    rows = jnp.asarray(_spread(chunks.origin, options.chunks))
    observed = {n: jnp.asarray(v, jnp.float32) for n, v in chunks.observation.items()}
    action = jnp.asarray(policy.normalised(chunks.action))
    ends = [np.log(s / np.sqrt(1 - s**2)) for s in options.levels]
    forms: dict[str, Any] = dict(source=policy.prediction, target="eps", schedule=schedules.vp())

    def loss(units, key):
        of_rows, of_levels, of_noise = jax.random.split(key, 3)
        shape = len(rows), options.batch
        chosen = jnp.take_along_axis(rows, jax.random.randint(of_rows, shape, 0, rows.shape[1]), 1)
        camera = units[:, None] * jnp.asarray(UNIT)
        seen = seen_from({n: v[chosen] for n, v in observed.items()}, camera)
        seen = {n: v.reshape(-1, *v.shape[2:]) for n, v in seen.items()}
        # The levels of an episode's chunks are spread evenly.
        u = (jnp.arange(options.batch) + jax.random.uniform(of_levels, shape)) / options.batch
        ratio = jnp.exp(ends[0] + (ends[1] - ends[0]) * u.reshape(-1))
        sigma = ratio / jnp.sqrt(1 + ratio**2)
        x0 = action[chosen.reshape(-1)]
        eps = jax.random.normal(of_noise, x0.shape)
        x_t = jax.vmap(corruption.add_noise)(x0, eps, sigma)
        h = policy.model.apply({"params": policy.params}, x_t, sigma, policy.chain.observe(seen))
        eps_hat = jax.vmap(lambda *row: targets.convert(*row, **forms))(h, x_t, sigma)
        return jnp.sum((eps_hat - eps) ** 2)  # of all episodes: each has a gradient of its own

    optimizer = optax.adam(optax.cosine_decay_schedule(options.rate, options.steps, 0.1))

    @jax.jit
    def step(units, state, key):
        updates, state = optimizer.update(jax.grad(loss)(units, key), state)
        return optax.apply_updates(units, updates), state

    units = jnp.zeros((len(rows), 3))
    state, late = optimizer.init(units), []
    keys = jax.random.split(jax.random.key(0), options.steps)
    for i, key in enumerate(tqdm.tqdm(keys, desc="cameras", unit="step")):
        units, state = step(units, state, key)
        if i >= options.steps // 2:
            late.append(units)
    return np.asarray(jnp.mean(jnp.stack(late), 0) * jnp.asarray(UNIT))


def apart(sliders: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the mean distance [m] and angle [rad], [2], between two reports [T, 10]."""
    distance = np.linalg.norm(sliders[:, :2] - others[:, :2], axis=1)
    cosine, sine = sliders[:, 2], sliders[:, 3]
    turn = np.arctan2(
        sine * others[:, 2] - cosine * others[:, 3], cosine * others[:, 2] + sine * others[:, 3]
    )
    return np.array([distance.mean(), np.abs(turn).mean()])


def _spread(origin, count):
    """Returns rows [E, count] of each episode's chunks, evenly spread; an episode with fewer has
    some of them twice."""
    order = np.lexsort(origin.T[::-1])
    parts = np.split(order, np.flatnonzero(np.diff(origin[order, 0])) + 1)
    at = (np.arange(count) + 0.5) / count
    return np.stack([part[(at * len(part)).astype(int)] for part in parts])
