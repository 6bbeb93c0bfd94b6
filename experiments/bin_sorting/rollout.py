"""Runs policies in many scenes of bin sorting at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments import simulate
from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.scene import Scene


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N episodes.

    Attributes:
      seeds: [N] of their scenes.
      lengths: [N] number of steps.
      placements: [N, K] where each block lay at the end, see ``BinSortingEnv.placements``.
      qpos: [N, T + 1, 5 + 7 K] float32, joint positions before each step, of which the last one
        is repeated once an episode is over; ``qpos[i, : lengths[i] + 1]`` is episode i.
    """

    seeds: np.ndarray
    lengths: np.ndarray
    placements: np.ndarray
    qpos: np.ndarray


class Simulator(simulate.Simulator):
    """Rollouts of a planning function in one kind of scene, see ``simulate.Simulator``."""

    def __init__(self, plan: simulate.Plan, *, scene: Scene = Scene(), **options: Any):  # noqa: B008
        super().__init__(plan, lambda: BinSortingEnv(scene), **options)

    def __call__(self, *args: Any, **options: Any) -> Rollouts:
        """One episode for each scene; arguments of ``simulate.Simulator.episodes``."""
        made = self.episodes(*args, **options)
        return Rollouts(made.seeds, made.lengths, made.infos["placements"], made.qpos)
