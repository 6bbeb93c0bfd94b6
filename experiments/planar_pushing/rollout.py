"""Runs policies in many episodes of planar pushing at once."""

import dataclasses
from typing import Any

import numpy as np

from experiments import simulate
from experiments.planar_pushing.env import PlanarPushingEnv
from experiments.planar_pushing.scene import TARGET, Physics, Scene


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes, see ``simulate.Episodes``."""

    seeds: np.ndarray  # [N] of their starts
    lengths: np.ndarray  # [N] number of steps
    success: np.ndarray  # [N] the slider came to rest at its goal in time
    error: np.ndarray  # [N, 2] distance [m] and angle [rad] to the goal at the end
    qpos: np.ndarray  # [N, T + 1, 9]


class Simulator(simulate.Simulator):
    """Rollouts of a planning function in given physics, see ``simulate.Simulator``."""

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
        """Runs one episode per seed; see ``simulate.Simulator.episodes``."""
        e = self.episodes(*args, **options)
        return Rollouts(e.seeds, e.lengths, e.terminated, e.infos["error"], e.qpos)
