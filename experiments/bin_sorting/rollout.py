"""Runs policies in many scenes of bin sorting at once."""

import dataclasses
from typing import Any

import numpy as np

from experiments import simulate
from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.scene import Scene


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes, see ``simulate.Episodes``."""

    seeds: np.ndarray  # [N] of their scenes
    lengths: np.ndarray  # [N] number of steps
    placements: np.ndarray  # [N, K] where each block lies at the end
    qpos: np.ndarray  # [N, T + 1, 5 + 7 K]


class Simulator(simulate.Simulator):
    """Rollouts of a planning function in a scene, see ``simulate.Simulator``."""

    def __init__(self, plan: simulate.Plan, *, scene: Scene = Scene(), **options: Any):  # noqa: B008
        super().__init__(plan, lambda: BinSortingEnv(scene), **options)

    def __call__(self, *args: Any, **options: Any) -> Rollouts:
        """Runs one episode per seed; see ``simulate.Simulator.episodes``."""
        e = self.episodes(*args, **options)
        return Rollouts(e.seeds, e.lengths, e.infos["placements"], e.qpos)
