"""Runs policies in many episodes of planar pushing at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments import simulate
from experiments.planar_pushing.env import PlanarPushingEnv
from experiments.planar_pushing.scene import TARGET, Physics, Scene


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes.

    Attributes:
      seeds: [N] of their starts.
      lengths: [N] number of steps.
      success: [N] the slider came to rest at its goal in time.
      error: [N, 2] distance [m] and angle [rad] to the goal at the end.
      qpos: [N, T + 1, 9] float32, joint positions before each step, of which the last one is
        repeated once an episode is over; ``qpos[i, : lengths[i] + 1]`` is episode i.
    """

    seeds: np.ndarray
    lengths: np.ndarray
    success: np.ndarray
    error: np.ndarray
    qpos: np.ndarray


class Simulator(simulate.Simulator):
    """Rollouts of a planning function in one world, see ``simulate.Simulator``."""

    def __init__(
        self,
        plan: simulate.Plan,
        *,
        scene: Scene = Scene(),  # noqa: B008
        physics: Physics = TARGET,
        **options: Any,
    ):
        super().__init__(plan, lambda: PlanarPushingEnv(scene, physics), **options)

    def __call__(self, *args: Any, **options: Any) -> Rollouts:
        """One episode for each start; arguments of ``simulate.Simulator.episodes``."""
        made = self.episodes(*args, **options)
        error = made.infos["error"]
        return Rollouts(made.seeds, made.lengths, made.terminated, error, made.qpos)
