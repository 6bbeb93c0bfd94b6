"""Runs a policy in the maze, one episode per goal, action chunks executed open loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from gymnasium.vector import AutoresetMode

from experiments.maze.env import MAX_STEPS, MazeVectorEnv

Act = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes. ``positions`` [N, T + 1, 2] repeat the last position once an episode is over.

    Attributes:
      positions: where the robot was, in metres; ``positions[i, : lengths[i] + 1]`` is episode i.
        A colliding step leaves the robot where it was, so its last position is repeated.
      lengths: [N] number of steps.
      success: [N] ended within 0.1 m of its goal.
      collided: [N] ended by touching an obstacle; neither flag means out of time.
      goals: [N, 2].
    """

    positions: np.ndarray
    lengths: np.ndarray
    success: np.ndarray
    collided: np.ndarray
    goals: np.ndarray

    def paths(self, keep: np.ndarray | None = None) -> list[np.ndarray]:
        """The unpadded positions [T_i + 1, 2] of each episode, or of those in the mask ``keep``."""
        chosen = range(len(self.lengths)) if keep is None else np.flatnonzero(keep)
        return [self.positions[i, : self.lengths[i] + 1] for i in chosen]


def make_env(num_envs: int, max_steps: int = MAX_STEPS) -> MazeVectorEnv:
    """The vector environment in the mode ``rollout`` needs: finished episodes wait."""
    return MazeVectorEnv(num_envs, max_steps=max_steps, autoreset_mode=AutoresetMode.DISABLED)


def rollout(env: MazeVectorEnv, act: Act, goals: np.ndarray, *, history: int = 1) -> Rollouts:
    """Runs one episode per goal.

    Args:
      env: N environments from ``make_env``.
      act: maps observations ``{"state": [N, history, 2], "goal": [N, history, 2]}`` (float32,
        oldest first; before the first step the first observation is repeated) to an action chunk
        [N, K, 2] of absolute positions, of which all K are executed before ``act`` is asked
        again. Slice the chunk to execute less of it. Always called with all N episodes, so its
        shapes are static; rows of finished episodes are ignored.
      goals: [N, 2] in metres.
      history: number of observations ``act`` sees.

    Raises:
      ValueError: the environment resets itself, there is not one goal per environment, or an
        action chunk has the wrong shape or a non-finite entry in a running episode.
    """
    goals = np.asarray(goals, float)
    if env.metadata["autoreset_mode"] != AutoresetMode.DISABLED:
        raise ValueError("rollout needs an environment that does not reset itself: use make_env")
    if goals.shape != (env.num_envs, 2):
        raise ValueError(f"goals have shape {goals.shape}, expected ({env.num_envs}, 2)")
    observation, _ = env.reset(options={"goal": goals})
    seen = {name: np.repeat(value[:, None], history, 1) for name, value in observation.items()}
    positions, lengths = [observation["state"]], np.zeros(env.num_envs, int)
    while not env.finished.all():
        chunk = np.asarray(act(seen))
        if chunk.ndim != 3 or chunk.shape[::2] != (env.num_envs, 2) or not chunk.size:
            raise ValueError(f"act returned shape {chunk.shape}, expected ({env.num_envs}, K, 2)")
        for action in np.moveaxis(chunk, 1, 0):
            lengths += ~env.finished
            observation, _, _, _, info = env.step(action)
            seen = {
                name: np.concatenate([value[:, 1:], observation[name][:, None]], 1)
                for name, value in seen.items()
            }
            positions.append(observation["state"])
            if env.finished.all():
                break
    return Rollouts(np.stack(positions, 1), lengths, info["success"], info["collided"], goals)
