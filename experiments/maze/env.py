"""The maze: its world, an exact collision test, and the Gymnasium environments over them.

The robot is a point in a walled square. An action is the absolute position [m] that it moves to in
the next 0.1 s, along a straight segment (section 5.1 of the method). Boxes and outer wall are
closed sets: *touching* them is a collision, or the seam of two abutting boxes would be a passage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

DT = 0.1  # seconds per step
GOAL_RADIUS = 0.1  # metres
PADDING = 0.1  # metres kept to every wall by planners and goals; collisions know no padding
MAX_STEPS = 300


@dataclasses.dataclass(frozen=True)
class World:
    """A square ``[low, high]^2`` with axis-aligned boxes (left, right, bottom, top), in metres."""

    low: float
    high: float
    boxes: tuple[tuple[float, float, float, float], ...]
    start: tuple[float, float]

    def padded(self, padding: float) -> World:
        """Returns the world whose boxes and outer wall have grown by ``padding`` metres."""
        boxes = tuple(
            (left - padding, right + padding, bottom - padding, top + padding)
            for left, right, bottom, top in self.boxes
        )
        return World(self.low + padding, self.high - padding, boxes, self.start)


WORLD = World(
    low=0.0,
    high=5.0,
    boxes=(
        (1.0, 2.0, 3.0, 4.5),
        (2.5, 3.0, 1.0, 1.5),
        (3.0, 4.5, 2.5, 3.5),
        (0.5, 1.5, 1.0, 1.5),
        (1.2, 2.7, 0.5, 1.0),
        (3.0, 4.0, 4.0, 4.5),
        (3.7, 4.2, 0.5, 4.5),
        (4.7, 5.0, 1.0, 1.5),
        (0.7, 1.5, 2.5, 3.5),
        (2.0, 2.3, 2.7, 3.5),
    ),
    start=(2.5, 2.5),
)


def collides(start: np.ndarray, end: np.ndarray, world: World = WORLD) -> np.ndarray:
    """Whether the segment from ``start`` to ``end`` touches a box or the outer wall.

    Exact, by separating axes: a segment misses a box if and only if x, y or the segment's own
    normal separates them. Nothing is sampled or divided: length zero is no special case.

    ``start`` and ``end`` [..., 2] in metres broadcast to booleans [...]; non-finite ones collide.
    JAX arrays are tested in JAX, in its default precision, anything else in NumPy's float64.
    """
    xp = jnp if isinstance(start, jax.Array) or isinstance(end, jax.Array) else np
    start, end = xp.broadcast_arrays(xp.asarray(start, float), xp.asarray(end, float))
    low, high = xp.minimum(start, end), xp.maximum(start, end)
    inside = (low > world.low).all(-1) & (high < world.high).all(-1)

    left, right, bottom, top = np.asarray(world.boxes, float).reshape(-1, 4).T
    overlap = (high[..., 0:1] >= left) & (low[..., 0:1] <= right)
    overlap &= (high[..., 1:2] >= bottom) & (low[..., 1:2] <= top)

    dx, dy = xp.moveaxis((end - start)[..., None], -2, 0)
    x, y = xp.moveaxis(start[..., None], -2, 0)
    side = xp.stack([dx * (cy - y) - dy * (cx - x) for cx in (left, right) for cy in (bottom, top)])
    straddles = (side.min(0) <= 0) & (side.max(0) >= 0)
    return ~inside | (overlap & straddles).any(-1)


def free_goals(rng: np.random.Generator, n: int, *, world: World = WORLD) -> np.ndarray:
    """Returns [n, 2] goals, uniform over the free space, ``PADDING`` from every wall (per axis) and
    farther than ``GOAL_RADIUS`` from the start."""
    padded, start = world.padded(PADDING), np.asarray(world.start)
    goals = np.empty((0, 2))
    while len(goals) < n:
        batch = rng.uniform(padded.low, padded.high, (2 * n + 8, 2))
        free = ~collides(batch, batch, padded)
        free &= np.linalg.norm(batch - start, axis=-1) > GOAL_RADIUS
        goals = np.concatenate([goals, batch[free]])
    return goals[:n]


def _spaces(world: World) -> tuple[gymnasium.spaces.Dict, gymnasium.spaces.Box]:
    box = gymnasium.spaces.Box(world.low, world.high, (2,), np.float32)
    observation = gymnasium.spaces.Dict({"state": box, "goal": box})
    return observation, gymnasium.spaces.Box(world.low, world.high, (2,), np.float32)


class MazeVectorEnv(VectorEnv):
    """N mazes stepped at once in numpy.

    Observation: ``{"state": [N, 2], "goal": [N, 2]}``, float32, metres. Action: [N, 2], the next
    position; any finite one is executed, and one beyond the wall is a collision. A step that
    touches an obstacle ends the episode (terminated, info ``collided``) at the last free position;
    one that ends within 0.1 m of the goal ends it with reward 1 (terminated, info ``success``);
    after ``max_steps`` steps the episode is truncated.

    Autoreset: ``NEXT_STEP`` (the step after an episode's last one resets it and ignores its action)
    or ``DISABLED`` (a finished maze ignores actions and repeats its outcome with reward 0 until
    ``reset``, of all or of ``options={"reset_mask": [N] bool}``).
    ``reset(options={"goal": [N, 2] or [2]})`` sets goals; otherwise each maze draws its own from
    its own generator. An integer ``seed`` gives maze i the seed ``seed + i``, and so the goals of a
    ``MazeEnv`` reset with that seed.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_steps: int = MAX_STEPS,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: None = None,
        world: World = WORLD,
    ):
        mode = AutoresetMode(autoreset_mode)
        if mode == AutoresetMode.SAME_STEP:
            raise ValueError("autoreset_mode is SameStep, expected NextStep or Disabled")
        if num_envs < 1 or max_steps < 1:
            raise ValueError(
                f"num_envs is {num_envs} and max_steps {max_steps}, expected both at least 1"
            )
        self.num_envs, self.max_steps, self.world = num_envs, max_steps, world
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.single_observation_space, self.single_action_space = _spaces(world)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._position = np.tile(np.asarray(world.start, float), (num_envs, 1))
        self._goal = np.full((num_envs, 2), np.nan)
        self._steps = np.zeros(num_envs, int)
        self._success = np.zeros(num_envs, bool)
        self._collided = np.zeros(num_envs, bool)

    @property
    def finished(self) -> np.ndarray:
        """[N] booleans: the episode has ended."""
        return self._success | self._collided | (self._steps >= self.max_steps)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Starts new episodes, see the class; ValueError for unknown or misshapen options."""
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)), bool)
        goal = options.pop("goal", None)
        if options:
            raise ValueError(f"unknown reset options {sorted(options)}, expected goal, reset_mask")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {mask.shape}, expected ({self.num_envs},)")
        if seed is not None:
            seeds = [seed + i for i in range(self.num_envs)] if np.ndim(seed) == 0 else list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} environments")
            self._generators = [
                old if s is None else np.random.default_rng(s)
                for old, s in zip(self._generators, seeds, strict=True)
            ]
        self._start(mask, None if goal is None else self._checked_goals(goal, mask))
        return self._observation(), self._info()

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Moves every running maze to its finite action [N, 2]; returns Gymnasium's five."""
        actions = np.asarray(actions, float)
        if actions.shape != (self.num_envs, 2):
            raise ValueError(f"actions have shape {actions.shape}, expected ({self.num_envs}, 2)")
        if np.isnan(self._goal).any():
            raise gymnasium.error.ResetNeeded("step before the first reset: call reset first")
        live = ~self.finished
        bad = np.flatnonzero(live & ~np.isfinite(actions).all(-1))
        if bad.size:
            raise ValueError(
                f"action of environment {bad[0]} is {actions[bad[0]].tolist()} at its step "
                f"{self._steps[bad[0]]}, expected a finite position: look at the policy's output"
            )
        target = np.where(live[:, None], actions, self._position)
        hit = live & collides(self._position, target, self.world)
        self._position = np.where((live & ~hit)[:, None], target, self._position)
        distance = np.linalg.norm(self._position - self._goal, axis=-1)
        reached = live & ~hit & (distance <= GOAL_RADIUS)
        self._collided |= hit
        self._success |= reached
        self._steps += live
        if self.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP and not live.all():
            self._start(~live, None)
        terminated = self._success | self._collided
        truncated = (self._steps >= self.max_steps) & ~terminated
        return self._observation(), reached.astype(float), terminated, truncated, self._info()

    def _start(self, mask: np.ndarray, goals: np.ndarray | None) -> None:
        for i in np.flatnonzero(mask):
            goal = free_goals(self._generators[i], 1, world=self.world)[0]
            self._goal[i] = goal if goals is None else goals[i]
        self._position[mask] = self.world.start
        self._steps[mask] = 0
        self._success[mask] = self._collided[mask] = False

    def _checked_goals(self, goal: np.ndarray, mask: np.ndarray) -> np.ndarray:
        goal = np.asarray(goal, float)
        if goal.shape not in ((2,), (self.num_envs, 2)):
            raise ValueError(f"goal has shape {goal.shape}, expected (2,) or ({self.num_envs}, 2)")
        goal = np.broadcast_to(goal, (self.num_envs, 2))
        bad = np.flatnonzero(mask & collides(goal, goal, self.world))
        if bad.size:
            raise ValueError(
                f"goal of environment {bad[0]} is {goal[bad[0]].tolist()}, expected a free "
                "position: it lies in a box or outside the world"
            )
        return goal

    def _observation(self) -> dict[str, np.ndarray]:
        return {"state": self._position.astype(np.float32), "goal": self._goal.astype(np.float32)}

    def _info(self) -> dict[str, np.ndarray]:
        values = {"success": self._success.copy(), "collided": self._collided.copy()}
        present = {f"_{name}": np.ones(self.num_envs, bool) for name in values}
        return values | present


class MazeEnv(gymnasium.Env):
    """One maze: ``MazeVectorEnv`` without the leading axis and without autoreset."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self, *, max_steps: int = MAX_STEPS, render_mode: None = None, world: World = WORLD
    ):
        self.render_mode = render_mode
        self.observation_space, self.action_space = _spaces(world)
        self._maze = MazeVectorEnv(
            1, max_steps=max_steps, autoreset_mode=AutoresetMode.DISABLED, world=world
        )

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
        """Starts an episode; ``options={"goal": [2]}`` sets its goal."""
        super().reset(seed=seed)
        self._maze._generators = [self.np_random]
        observation, info = self._maze.reset(options=options)
        return self._first(observation, info)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, bool]]:
        """Moves to ``action`` [2]; raises ValueError when it is non-finite or misshapen."""
        observation, reward, terminated, truncated, info = self._maze.step(np.asarray(action)[None])
        observation, info = self._first(observation, info)
        return observation, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def _first(self, observation, info):
        """Returns the observation and the info of the only maze."""
        info = {name: bool(v[0]) for name, v in info.items() if not name.startswith("_")}
        return {name: value[0] for name, value in observation.items()}, info


ENV_ID = "ambient_jax/Maze-v0"
if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=MazeEnv, vector_entry_point=MazeVectorEnv)
