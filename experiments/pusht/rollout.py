"""Runs policies in many environments at once: one batched call for their plans."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from experiments.pusht import env as pusht

# plan(params, {name: [N, T, ...]}, keys [N]) -> actions [N, E, 2], all E are executed
Plan = Callable[[Any, dict[str, jax.Array], jax.Array], jax.Array]
# Once this share of the episodes is left, the others leave the batch.
_KEEP = 2


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes; ``states[i, : lengths[i] + 1]`` is episode i, whose last state is repeated."""

    seeds: np.ndarray  # [N] of their starts
    lengths: np.ndarray  # [N] number of steps
    success: np.ndarray  # [N] more than 95% of the goal was covered in time
    coverage: np.ndarray  # [N] largest share of the goal that was covered
    states: np.ndarray  # [N, T + 1, 5] float32, see ``env.state``


class Simulator:
    """Runs episodes of a planning function, which is compiled once for all its parameters.

    Args:
      plan: pure and jittable, see ``Plan``. Its T = ``history`` observations are oldest first, the
        first one repeated before the start. All its actions are executed.
      names: the observations that it sees, of ``env.observation``, or "small" (an image).
      history: T.
      max_steps: time limit; the benchmark's is 300.
    """

    def __init__(self, plan: Plan, names: Sequence[str], *, history: int = 2, max_steps: int = 300):
        self._plan, self._names = jax.jit(plan), tuple(names)
        self._history, self._max_steps = history, max_steps
        self._envs: list[Any] = []

    def __call__(self, params: Any, seeds: npt.ArrayLike, *, seed: int = 0) -> Rollouts:
        """Runs one episode for each of ``seeds`` [N], the seeds of their starts.

        An episode depends on its start and on ``seed``, that of the plans' keys; the others change
        only the rounding of the batched call. Raises ValueError where there are no seeds, and for a
        plan of the wrong shape or not finite.
        """
        seeds = np.asarray(seeds)
        if seeds.ndim != 1 or not len(seeds):
            raise ValueError(f"seeds have shape {seeds.shape}, expected [N], at least one")
        count, limit = len(seeds), self._max_steps
        self._envs += [pusht.make(limit) for _ in range(count - len(self._envs))]
        states = np.zeros((count, limit + 1, 5))
        for row in range(count):
            self._envs[row].reset(seed=int(seeds[row]))
            states[row, 0] = pusht.state(self._envs[row])
        images = self._seen(range(count)) if "small" in self._names else None
        history = None if images is None else np.repeat(images[:, None], self._history, 1)
        lengths, best = np.full(count, limit), np.zeros(count)
        rows, live, at, index = np.arange(count), np.ones(count, bool), 0, 0
        key, keys_of = jax.random.key(seed), jax.vmap(jax.random.fold_in, (None, 0))
        while live.any() and at < limit:
            if _KEEP * live[rows].sum() <= len(rows):
                # Few are left: go on with these alone, in a smaller batch (one compilation).
                rows = np.resize(np.flatnonzero(live), -(-len(rows) // _KEEP))
            times = np.maximum(np.arange(at - self._history + 1, at + 1), 0)
            observation = pusht.observation(states[rows][:, times])
            if history is not None:
                observation["small"] = history[rows]
            seen = {name: observation[name] for name in self._names}
            keys = keys_of(jax.random.fold_in(key, index), seeds[rows].astype(np.uint32))
            plan = np.asarray(self._plan(params, seen, keys), float)
            _check(plan, rows, live)
            chosen, first = np.unique(rows, return_index=True)
            for actions in np.moveaxis(np.clip(plan[first], 0, pusht.SIZE), 1, 0):
                at += 1
                states[:, at] = states[:, at - 1]
                moving = np.flatnonzero(live[chosen])
                for i in moving:
                    row = chosen[i]
                    reached = pusht.advance(self._envs[row], actions[i])
                    states[row, at] = pusht.state(self._envs[row])
                    best[row] = max(best[row], reached)
                    if reached > pusht.SUCCESS:
                        live[row], lengths[row] = False, at
                if history is not None:
                    history[:, :-1] = history[:, 1:]
                    history[chosen[moving], -1] = self._seen(chosen[moving])
                if at == limit or not live.any():
                    break
            index += 1
        success = best > pusht.SUCCESS
        path = states[:, : lengths.max() + 1].astype(np.float32)
        return Rollouts(seeds, lengths, success, best, path)

    def _seen(self, rows):
        return pusht.small(np.stack([pusht.image(self._envs[row]) for row in rows]))


def _check(plan, rows, live):
    if plan.ndim != 3 or plan.shape[::2] != (len(rows), 2) or not plan.shape[1]:
        raise ValueError(f"plan has shape {plan.shape}, expected ({len(rows)}, E, 2)")
    bad = live[rows] & ~np.isfinite(plan).all((1, 2))
    if bad.any():
        raise ValueError(
            f"the plan of episode {int(rows[np.argmax(bad)])} is not finite (so of "
            f"{int(bad.sum())} of {len(rows)} episodes): look at the policy's output"
        )
