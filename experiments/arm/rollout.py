"""Runs policies: plans of all problems in one batched call, executed open loop or replanned.

A plan is followed in straight segments between its configurations; MuJoCo tests each segment every
``RESOLUTION`` and where it ends, and the joints' limits. The arm stops where it collides.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.arm import planners
from experiments.arm.data import observation
from experiments.arm.problems import Problem
from experiments.arm.scene import JOINTS, Arm, hand_position

Array = jax.Array
# plan(params, {name: [N, 1, d]} of ``data.observation``, keys [N]) -> [N, E, 7] rad
Plan = Callable[[Any, dict[str, Array], Array], Array]

RESOLUTION = 0.02  # rad (Euclidean norm) between two tested configurations
TOLERANCE = 0.05  # rad, of every joint at the goal
_BATCH = 250  # plans of one call


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes.

    ``positions`` [N, T + 1, 7] float32 in rad. Episode i is ``positions[i, : lengths[i] + 1]``,
    after which its last one is repeated. ``success`` [N]: the last one is within ``TOLERANCE`` of
    the goal, nothing collided and no limit was passed; ``collided`` [N]; ``limits`` [N]: a joint
    left its limits. Neither: it ended elsewhere, ``miss`` [N] rad away (the largest of a joint).
    """

    positions: np.ndarray
    lengths: np.ndarray
    success: np.ndarray
    collided: np.ndarray
    limits: np.ndarray
    miss: np.ndarray

    def paths(self, keep: np.ndarray | None = None) -> list[np.ndarray]:
        """Returns the positions [T_i + 1, 7] of each episode, or of those in the mask ``keep``."""
        chosen = range(len(self.lengths)) if keep is None else np.flatnonzero(keep)
        return [self.positions[i, : self.lengths[i] + 1].astype(float) for i in chosen]


class Simulator:
    """Rollouts of a planning function ``plan``, which is compiled once for all its parameters.

    ``replan``: steps that are executed before the next plan, from where the arm is; None: all, open
    loop. A later plan is followed in the time that is left, so an episode has as many steps as a
    plan.
    """

    def __init__(self, plan: Plan, replan: int | None = None):
        self._plan, self._replan, self._arm = jax.jit(plan), replan, Arm()
        self._hand = hand_position()

    def __call__(self, params: Any, problems: Sequence[Problem], *, seed: int = 0) -> Rollouts:
        """Runs one episode for each problem, which depends on it, its index and the seed.

        ValueError: a plan is misshapen or not finite.
        """
        if not len(problems):
            raise ValueError("got no problems, expected at least one")
        paths = [np.asarray(problem.start, float)[None] for problem in problems]
        ended = np.zeros((2, len(problems)), bool)  # collided, passed a limit
        begun, steps = 0, 1
        while begun < steps:
            plans = self._planned(params, problems, paths, jax.random.key(seed + begun))
            steps = plans.shape[1]
            left = np.linspace(0, steps, steps - begun + 1)[1:]  # the plan in the time that is left
            count = min(self._replan or steps, steps - begun)
            for i in map(int, np.flatnonzero(~ended.any(0))):
                whole = np.concatenate([paths[i][-1:], plans[i]])
                rows = [np.interp(left[:count], np.arange(steps + 1), joint) for joint in whole.T]
                paths[i], *ended[:, i] = self._follow(problems[i], paths[i], np.stack(rows, 1))
            begun += count
        lengths = np.array([len(path) - 1 for path in paths])
        positions = [np.pad(p, ((0, steps + 1 - len(p)), (0, 0)), "edge") for p in paths]
        goals = np.stack([problem.goal for problem in problems])
        miss = np.abs([path[-1] for path in paths] - goals).max(1)
        success = ~ended.any(0) & (miss <= TOLERANCE)
        stacked = np.asarray(positions, np.float32)
        return Rollouts(stacked, lengths, success, ended[0], ended[1], miss)

    def _planned(self, params, problems, paths, key):
        """Returns plans [N, E, 7] from the ends of the paths, computed in batches of one size."""
        here = zip(problems, paths, strict=True)
        seen = [observation(p._replace(start=path[-1]), self._hand) for p, path in here]
        stacked = {name: np.stack([s[name] for s in seen])[:, None] for name in seen[0]}
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(len(problems)))
        count = len(problems)
        size = min(_BATCH, count)
        parts = []
        for begin in range(0, count, size):
            rows = np.arange(begin, begin + size) % count
            chosen = {name: value[rows] for name, value in stacked.items()}
            parts.append(np.asarray(self._plan(params, chosen, keys[rows])))
        plans = np.concatenate(parts)[:count].astype(float)
        self._check(plans)
        return plans

    def _follow(self, problem, path, targets):
        """Returns the path with what was reached, whether it collided or passed a limit."""
        self._arm.place(problem.scene)
        low, high = self._arm.limits.T
        rows = list(path)
        for target in targets:
            if ((target < low) | (target > high)).any():
                return np.array(rows), False, True
            if not planners.segment_is_free(self._arm, rows[-1], target, RESOLUTION):
                return np.array(rows), True, False
            rows.append(target)
        return np.array(rows), False, False

    def _check(self, plans):
        if plans.ndim != 3 or plans.shape[2] != JOINTS or not plans.shape[1]:
            raise ValueError(f"plans have shape {plans.shape}, expected (N, E, {JOINTS})")
        bad = ~np.isfinite(plans).all((1, 2))
        if bad.any():
            raise ValueError(
                f"the plan of episode {int(np.argmax(bad))} is not finite (so of {int(bad.sum())} "
                f"of {len(plans)} episodes): look at the policy's output"
            )
