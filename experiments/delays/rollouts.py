"""Runs policies whose chunks come late in many environments at once, one action a step."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
import tqdm

from ambient_jax.policy import chunks
from experiments import simulate
from experiments.maze.env import MazeVectorEnv
from experiments.planar_pushing.env import PlanarPushingEnv
from experiments.planar_pushing.scene import Scene

Observation = dict[str, np.ndarray]


class World(Protocol):
    """N episodes at once. A finished one ignores its actions and keeps its observation."""

    def reset(self) -> Observation: ...  # {name: [N, d]}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray]:
        """Executes actions [N, D]; returns observations, and whether ended and succeeded [N]."""


class Maze:
    """One maze for each of ``goals`` [N, 2] in metres."""

    def __init__(self, goals: np.ndarray):
        self._goals = goals
        self._env = MazeVectorEnv(len(goals), autoreset_mode="Disabled")

    def reset(self):
        return self._env.reset(options={"goal": self._goals})[0]

    def step(self, actions):
        observation, _, terminated, truncated, info = self._env.step(actions)
        return observation, terminated | truncated, info["success"]


class Pushing:
    """Planar pushing in the target's physics from the starts of ``seeds`` [N]."""

    def __init__(self, seeds: Sequence[int], scene: Scene, threads: int | None = None):
        self._seeds = seeds
        self._envs = [PlanarPushingEnv(scene) for _ in seeds]
        self._pool = concurrent.futures.ThreadPoolExecutor(threads or simulate.cores())

    def reset(self):
        begun = [e.reset(seed=int(s)) for e, s in zip(self._envs, self._seeds, strict=True)]
        self._states = np.stack([observation["state"] for observation, _ in begun])
        self._ended, self._success = np.zeros((2, len(begun)), bool)
        return {"state": self._states}

    def step(self, actions):
        live = np.flatnonzero(~self._ended)
        done = self._pool.map(lambda row: self._envs[row].step(actions[row]), live)
        states = self._states.copy()
        for row, (observation, _, terminated, truncated, _) in zip(live, done, strict=True):
            states[row] = observation["state"]
            self._success[row], self._ended[row] = terminated, terminated or truncated
        self._states = states
        return {"state": states}, self._ended, self._success


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes of at most T steps; what is after an episode's end is not part of it."""

    lengths: np.ndarray  # [N] number of steps
    success: np.ndarray  # [N]
    actions: np.ndarray  # [N, T, D] float32, what was executed, in data units
    arrived: np.ndarray  # [N, T] whether an action is the first of a chunk that arrived


class Live:
    """A policy that is called for the running episodes only, in batches of few sizes."""

    def __init__(self, policy: Any, parts: int = 2):
        self._policy, self._parts = policy, parts
        self.check, self.history, self.horizon = policy.check, policy.history, policy.horizon
        self.live = np.zeros(0, bool)

    def __call__(self, observation, key, **given):
        count = len(self.live)
        live = np.flatnonzero(self.live)
        step = -(-count // self._parts)
        rows = np.resize(live, -(-len(live) // step) * step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        seen, known = ({n: v[rows] for n, v in d.items()} for d in (observation, given))
        drawn = np.asarray(self._policy(seen, keys, **known))
        chunk = np.zeros((count, *drawn.shape[1:]), np.float32)
        chunk[rows] = drawn
        return chunk


def run(
    policy: Any,
    world: World,
    strategy: chunks.Strategy,
    *,
    execute: int,
    delay: int,
    seed: int = 0,
    label: str = "",
) -> Rollouts:
    """Runs an episode in each environment of a world; see ``chunks.Control``."""
    policy = Live(policy)
    control = chunks.Control(policy, strategy, execute=execute, delay=delay)
    seen = world.reset()
    seen = {name: value for name, value in seen.items() if name in policy._policy.dims}
    count = len(next(iter(seen.values())))
    policy.live, lengths = np.ones(count, bool), np.zeros(count, int)
    actions, arrived = [], []
    key = jax.random.key(seed)
    with tqdm.tqdm(desc=label, unit="step", leave=False) as bar:
        while policy.live.any():
            control.observe(seen)
            actions.append(control.act(jax.random.fold_in(key, len(actions))))
            arrived.append(control.arrived)
            observation, ended, success = world.step(actions[-1])
            seen = {name: observation[name] for name in seen}
            lengths += policy.live
            policy.live = ~ended
            bar.update()
            bar.set_postfix(running=int(policy.live.sum()))
    return Rollouts(lengths, success.copy(), np.stack(actions, 1), np.stack(arrived, 1))
