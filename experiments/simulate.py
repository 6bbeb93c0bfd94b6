"""Runs policies in many environments at once: physics in threads, one batched call for plans."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Array = jax.Array
# plan(params, {"state": [N, T, d], ...}, keys [N]) -> actions [N, E, a], all E are executed
Plan = Callable[[Any, dict[str, Array], Array], Array]


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Episodes:
    """N episodes; ``qpos[i, : lengths[i] + 1]`` is episode i, whose last position is repeated."""

    seeds: np.ndarray  # [N] of their scenes
    lengths: np.ndarray  # [N] number of steps
    infos: dict[str, np.ndarray]  # {name: [N, ...]} last info of each episode
    terminated: np.ndarray  # [N] whether it ended before the time limit
    qpos: np.ndarray  # [N, T + 1, q] float32, joint positions before each step


class Simulator:
    """Runs episodes of a planning function, which is compiled once for all its parameters.

    Args:
      plan: pure and jittable, see ``Plan``; its T = ``history`` observations are float32, oldest
        first, the first one repeated before the start. All its actions are executed.
      make: makes an environment over MuJoCo (with ``data``), once for each simultaneous episode.
        Only its observation "state" is used.
      threads: number of threads that run the physics; None for one per available core.
    """

    def __init__(
        self, plan: Plan, make: Callable[[], Any], *, history: int = 1, threads: int | None = None
    ):
        self._plan, self._history, self._make = jax.jit(plan), history, make
        self._threads = threads or cores()
        self._envs: list[Any] = []

    def episodes(
        self,
        params: Any,
        seeds: Sequence[int],
        *,
        constant: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
    ) -> Episodes:
        """Runs one episode for each of ``seeds`` [N], the seeds of their scenes.

        An episode depends on its scene's seed and on ``seed``, that of the plans' keys; the
        episodes beside it change only the rounding of the batched call. ``params`` is the first
        argument of ``plan``; ``constant`` {name: [d]} are observations beside "state" that never
        change, such as a "task". Raises ValueError where there are no seeds, and for a plan of the
        wrong shape or not finite in a running episode.
        """
        seeds = np.asarray(seeds)
        if seeds.ndim != 1 or not len(seeds):
            raise ValueError(f"seeds have shape {seeds.shape}, expected [N], at least one")
        count = len(seeds)
        self._envs += [self._make() for _ in range(count - len(self._envs))]
        envs = self._envs[:count]
        begun = [env.reset(seed=int(s)) for env, s in zip(envs, seeds, strict=True)]
        states = np.repeat(np.stack([b[0]["state"] for b in begun])[:, None], self._history, 1)
        infos = [b[1] for b in begun]
        extra = {
            name: np.broadcast_to(np.asarray(v, np.float32), (count, self._history, len(v)))
            for name, v in (constant or {}).items()
        }
        live, lengths = np.ones(count, bool), np.zeros(count, int)
        terminated = np.zeros(count, bool)
        qpos = [np.stack([env.data.qpos for env in envs]).astype(np.float32)]
        rows_keys = jax.vmap(jax.random.fold_in, (None, 0))
        key, index = jax.random.key(seed), 0
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            while live.any():
                keys = rows_keys(jax.random.fold_in(key, index), seeds.astype(np.uint32))
                plan = np.asarray(self._plan(params, {"state": states} | extra, keys))
                self._check(plan, envs[0].action_space.shape[0], seeds, live)
                for actions in np.moveaxis(plan, 1, 0):
                    parts = np.array_split(np.flatnonzero(live), self._threads)
                    jobs = [pool.submit(_step, envs, actions, part) for part in parts]
                    newest, ended = states[:, -1].copy(), ~live
                    for part, job in zip(parts, jobs, strict=True):
                        for row, (observation, _, over, late, info) in zip(
                            part, job.result(), strict=True
                        ):
                            newest[row], infos[row] = observation["state"], info
                            terminated[row], ended[row] = over, over or late
                    # Finished episodes keep their last observations.
                    moved = np.concatenate([states[:, 1:], newest[:, None]], 1)
                    states = np.where(live[:, None, None], moved, states)
                    lengths += live
                    qpos.append(np.stack([env.data.qpos for env in envs]).astype(np.float32))
                    live = live & ~ended
                    if not live.any():
                        break
                index += 1
        last = {name: np.stack([info[name] for info in infos]) for name in infos[0]}
        return Episodes(seeds, lengths, last, terminated, np.stack(qpos, 1))

    def _check(self, plan, size, seeds, live):
        if plan.ndim != 3 or plan.shape[::2] != (len(seeds), size) or not plan.shape[1]:
            raise ValueError(f"plan has shape {plan.shape}, expected ({len(seeds)}, E, {size})")
        bad = live & ~np.isfinite(plan).all((1, 2))
        if bad.any():
            raise ValueError(
                f"the plan of episode {int(np.argmax(bad))} is not finite (so of {int(bad.sum())} "
                f"of {len(seeds)} episodes): look at the policy's output"
            )


def _step(envs, actions, rows):
    return [envs[row].step(actions[row]) for row in rows]
