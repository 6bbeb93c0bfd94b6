"""Runs policies in many scenes at once: physics in threads, one batched call for all plans."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.scene import Scene

Array = jax.Array
# plan(params, {"state": [N, T, 4 + 7 K], ...}, keys [N]) -> actions [N, E, 4], all E are executed
Plan = Callable[[Any, dict[str, Array], Array], Array]


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes.

    Attributes:
      seeds: [N] of their scenes.
      lengths: [N] number of steps.
      placements: [N, K] where each block lay at the end, see ``BinSortingEnv.placements``.
      qpos: [N, T + 1, 5 + 7 K] float32, joint positions before each step, of which the last one
        is repeated once an episode is over; ``qpos[i, : lengths[i] + 1]`` is episode i.
    """

    seeds: np.ndarray
    lengths: np.ndarray
    placements: np.ndarray
    qpos: np.ndarray


class Simulator:
    """Rollouts of a planning function, compiled once for all the parameters it is given.

    Args:
      plan: pure and jittable, see ``Plan``; its observations are float32, oldest first, the first
        one repeated before the start. All its actions are executed before it is asked again.
      history: T, observations that ``plan`` sees.
      scene: of all episodes.
      threads: that run the physics; None for one per available core.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        history: int = 1,
        scene: Scene = Scene(),  # noqa: B008
        threads: int | None = None,
    ):
        self._plan, self._history, self._scene = jax.jit(plan), history, scene
        affinity = getattr(os, "sched_getaffinity", None)  # not on every system
        self._threads = threads or (len(affinity(0)) if affinity else os.cpu_count() or 1)
        self._envs: list[BinSortingEnv] = []

    def __call__(
        self,
        params: Any,
        seeds: Sequence[int],
        *,
        constant: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
    ) -> Rollouts:
        """One episode for each scene of ``seeds`` [N].

        An episode depends on its scene's seed and on ``seed``, and on the episodes beside it only
        as far as the rounding of a batched call does.

        Args:
          params: first argument of ``plan``.
          seeds: of the scenes, ``BinSortingEnv.reset``.
          constant: {name: [d]} observations beside "state" that stay the same, such as the "task"
            of a task-conditioned policy.
          seed: of the plans' keys.

        Raises:
          ValueError: no seeds, a plan of the wrong shape, or one that is not finite in a running
            episode.
        """
        seeds = np.asarray(seeds)
        if seeds.ndim != 1 or not len(seeds):
            raise ValueError(f"seeds have shape {seeds.shape}, expected [N], at least one")
        count = len(seeds)
        self._envs += [BinSortingEnv(self._scene) for _ in range(count - len(self._envs))]
        envs = self._envs[:count]
        first = [env.reset(seed=int(s))[0]["state"] for env, s in zip(envs, seeds, strict=True)]
        states = np.repeat(np.stack(first)[:, None], self._history, 1)
        extra = {
            name: np.broadcast_to(np.asarray(v, np.float32), (count, self._history, len(v)))
            for name, v in (constant or {}).items()
        }
        live, lengths = np.ones(count, bool), np.zeros(count, int)
        qpos = [np.stack([env.data.qpos for env in envs]).astype(np.float32)]
        rows_keys = jax.vmap(jax.random.fold_in, (None, 0))
        key, index = jax.random.key(seed), 0
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            while live.any():
                keys = rows_keys(jax.random.fold_in(key, index), seeds.astype(np.uint32))
                plan = np.asarray(self._plan(params, {"state": states} | extra, keys))
                self._check(plan, seeds, live)
                for actions in np.moveaxis(plan, 1, 0):
                    rows = np.flatnonzero(live)
                    parts = np.array_split(rows, self._threads)
                    jobs = [pool.submit(_step, envs, actions, part) for part in parts]
                    newest, ended = states[:, -1].copy(), ~live
                    for part, job in zip(parts, jobs, strict=True):
                        if len(part):
                            newest[part], ended[part] = job.result()
                    # What has finished keeps its last observations.
                    moved = np.concatenate([states[:, 1:], newest[:, None]], 1)
                    states = np.where(live[:, None, None], moved, states)
                    lengths += live
                    qpos.append(np.stack([env.data.qpos for env in envs]).astype(np.float32))
                    live = live & ~ended
                    if not live.any():
                        break
                index += 1
        placements = np.stack([env.placements() for env in envs])
        return Rollouts(seeds, lengths, placements, np.stack(qpos, 1))

    def _check(self, plan, seeds, live):
        if plan.ndim != 3 or plan.shape[::2] != (len(seeds), 4) or not plan.shape[1]:
            raise ValueError(f"plan has shape {plan.shape}, expected ({len(seeds)}, E, 4)")
        bad = live & ~np.isfinite(plan).all((1, 2))
        if bad.any():
            raise ValueError(
                f"the plan of episode {int(np.argmax(bad))} is not finite (so of {int(bad.sum())} "
                f"of {len(seeds)} episodes): look at the policy's output"
            )


def _step(envs, actions, rows):
    """Steps the environments of ``rows``: their states and whether they have ended."""
    found = [envs[row].step(actions[row]) for row in rows]
    return [f[0]["state"] for f in found], [f[2] or f[3] for f in found]
