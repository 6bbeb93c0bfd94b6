"""Runs policies in the maze on the device: all episodes at once, chunks executed open loop."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.maze.env import GOAL_RADIUS, MAX_STEPS, WORLD, World, collides

Array = jax.Array
# plan(params, {"state": [N, T, 2], "goal": [N, T, 2]}, keys [N]) -> positions [N, K, 2]
Plan = Callable[[Any, dict[str, Array], Array], Array]
# Once this share of the episodes is left, the others leave the batch.
_KEEP = 4


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes.

    ``positions`` [N, T + 1, 2] float32 and ``goals`` [N, 2] are in metres. Episode i is
    ``positions[i, : lengths[i] + 1]``, after which its last position is repeated; a colliding step
    leaves the robot where it was. ``success`` [N]: ended within 0.1 m of its goal; ``collided``
    [N]: by touching an obstacle; neither: out of time.
    """

    positions: np.ndarray
    lengths: np.ndarray
    success: np.ndarray
    collided: np.ndarray
    goals: np.ndarray

    def paths(self, keep: np.ndarray | None = None) -> list[np.ndarray]:
        """Returns the positions [T_i + 1, 2] of each episode, or of those in the mask ``keep``."""
        chosen = range(len(self.lengths)) if keep is None else np.flatnonzero(keep)
        return [self.positions[i, : self.lengths[i] + 1].astype(float) for i in chosen]


class _Episodes(NamedTuple):
    """The state of N running episodes; ``state`` [N, T, 2] is the history, newest last."""

    state: Array
    lengths: Array
    success: Array
    collided: Array
    invalid: Array

    @property
    def finished(self):
        return self.success | self.collided | self.invalid


class Simulator:
    """Compiled rollouts of a planning function by the rules of ``env.MazeVectorEnv`` in float32.

    ``plan`` is pure and jittable (``Plan``) and sees ``history`` float32 observations, oldest
    first, the first repeated before the start. All its K positions are executed before the next.
    """

    def __init__(
        self, plan: Plan, *, history: int = 1, max_steps: int = MAX_STEPS, world: World = WORLD
    ):
        self._plan, self._history = plan, history
        self._max_steps, self._world = max_steps, world
        self._advance = jax.jit(self._advance_chunk)

    def __call__(self, params: Any, goals: np.ndarray, *, seed: int = 0) -> Rollouts:
        """Runs one episode per goal [N, 2] (metres), which depends on its goal, index and seed.

        ValueError: goals or plan are misshapen, a goal is not free, or a plan is not finite.
        """
        goals = self._checked(goals)
        count = len(goals)
        start = np.tile(np.asarray(self._world.start, np.float32), (count, self._history, 1))
        zeros = np.zeros(count, bool)
        final = _Episodes(start, np.zeros(count, np.int32), zeros, zeros, zeros)
        final = jax.tree.map(np.array, final)
        positions = [start[:, -1]]
        rows, running, targets = np.arange(count), final, goals
        key = jax.random.key(seed)
        index = 0
        while not final.finished.all() and len(positions) <= self._max_steps:
            running, path = self._advance(
                params, running, targets, rows, jax.random.fold_in(key, index), len(positions) - 1
            )
            index += 1
            for array, value in zip(final, running, strict=True):
                array[rows] = value
            block = np.repeat(positions[-1][None], path.shape[1], 0)
            block[:, rows] = np.moveaxis(np.asarray(path), 1, 0)
            positions.extend(block)
            live = rows[~final.finished[rows]]
            if len(live) and len(live) * _KEEP <= len(rows):
                # Few are left: go on with these alone, in a batch of a fourth (one compilation).
                rows = np.resize(live, -(-len(rows) // _KEEP))
                running, targets = jax.tree.map(lambda x: x[rows], final), goals[rows]  # noqa: B023
        if final.invalid.any():
            raise ValueError(
                f"the plan of episode {int(np.argmax(final.invalid))} is not finite (so of "
                f"{int(final.invalid.sum())} of {count} episodes): look at the policy's output"
            )
        longest = int(final.lengths.max())
        return Rollouts(
            np.stack(positions[: longest + 1], 1),
            final.lengths.astype(int),
            final.success,
            final.collided,
            np.asarray(goals, float),
        )

    def _advance_chunk(self, params, episodes, goals, rows, key, begin):
        """Plans once and executes the plan; returns the episodes and their positions [N, K, 2]."""
        goal = jnp.broadcast_to(goals[:, None], episodes.state.shape)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
        plan = self._plan(params, {"state": episodes.state, "goal": goal}, keys)
        if plan.ndim != 3 or plan.shape[::2] != (len(goals), 2) or not plan.shape[1]:
            raise ValueError(f"plan has shape {plan.shape}, expected ({len(goals)}, K, 2)")

        def step(episodes, numbered):
            number, target = numbered
            place = episodes.state[:, -1]
            live = ~episodes.finished & (begin + number < self._max_steps)
            invalid = live & ~jnp.isfinite(target).all(-1)
            target = jnp.where((live & ~invalid)[:, None], target, place)
            hit = live & collides(place, target, self._world)
            place = jnp.where(hit[:, None], place, target)
            reached = live & ~hit & (jnp.linalg.norm(place - goals, axis=-1) <= GOAL_RADIUS)
            history = jnp.concatenate([episodes.state[:, 1:], place[:, None]], 1)
            return _Episodes(
                # Finished episodes keep their last observations.
                jnp.where(live[:, None, None], history, episodes.state),
                episodes.lengths + live,
                episodes.success | reached & ~invalid,
                episodes.collided | hit,
                episodes.invalid | invalid,
            ), place

        numbers = jnp.arange(plan.shape[1])
        episodes, path = jax.lax.scan(step, episodes, (numbers, jnp.moveaxis(plan, 1, 0)))
        return episodes, jnp.moveaxis(path, 0, 1)

    def _checked(self, goals):
        goals = np.asarray(goals, np.float32)
        if goals.ndim != 2 or goals.shape[1] != 2 or not len(goals):
            raise ValueError(f"goals have shape {goals.shape}, expected (N, 2), at least one")
        inside = np.flatnonzero(collides(goals, goals, self._world))
        if inside.size:
            raise ValueError(
                f"goal {inside[0]} is {goals[inside[0]].tolist()}, expected a free position: it "
                "lies in a box or outside the world"
            )
        return goals
