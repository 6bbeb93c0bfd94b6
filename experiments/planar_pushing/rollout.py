"""Runs policies in many episodes of planar pushing at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
        history: int = 1,
        scene: Scene = Scene(),  # noqa: B008
        physics: Physics = TARGET,
        threads: int | None = None,
    ):
        make = lambda: PlanarPushingEnv(scene, physics)  # noqa: E731
        super().__init__(plan, make, history=history, threads=threads)

    def __call__(
        self,
        params: Any,
        seeds: Sequence[int],
        *,
        constant: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
    ) -> Rollouts:
        """One episode for each start of ``seeds`` [N], see ``simulate.Simulator.episodes``."""
        found = self.episodes(params, seeds, constant=constant, seed=seed)
        error = found.infos["error"]
        return Rollouts(found.seeds, found.lengths, found.terminated, error, found.qpos)
