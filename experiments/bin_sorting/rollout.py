"""Runs policies in many scenes of bin sorting at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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

    def __init__(
        self,
        plan: simulate.Plan,
        *,
        history: int = 1,
        scene: Scene = Scene(),  # noqa: B008
        threads: int | None = None,
    ):
        super().__init__(plan, lambda: BinSortingEnv(scene), history=history, threads=threads)

    def __call__(
        self,
        params: Any,
        seeds: Sequence[int],
        *,
        constant: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
    ) -> Rollouts:
        """One episode for each scene of ``seeds`` [N], see ``simulate.Simulator.episodes``."""
        found = self.episodes(params, seeds, constant=constant, seed=seed)
        return Rollouts(found.seeds, found.lengths, found.infos["placements"], found.qpos)
