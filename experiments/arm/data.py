"""The arm's data sets on disk, in RLDS: ``arm_smooth`` (clean) and ``arm_rrt`` (corrupt).

Build them with ``python -m experiments.arm.data --root=DIR`` (13 minutes of one core).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds import open_dataset
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.arm import planners, scene, timing
from experiments.arm.problems import Problem
from experiments.table.data import command

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1
# Seeds of problems: each planner's, those held out, and in evaluations.
_STREAMS = {"smooth": 0, "rrt": 1, "smooth_held_out": 2, "rrt_held_out": 3}
_SEEDS = 1000


def stream(name: str, seed: int) -> int:
    """Returns the seed of a planner's stream of problems, which no other has and no evaluation."""
    return (_STREAMS[name] + 1) * _SEEDS + seed


def episode(problem: Problem, plan: np.ndarray, **metadata: Any) -> dict[str, Any]:
    """Returns the RLDS episode of a plan [T + 1, 7]: T steps, whose action is the next
    configuration."""
    plan = plan.astype(np.float32)
    count = len(plan) - 1
    observation = {
        "state": plan[:-1],
        "goal": np.tile(problem.goal.astype(np.float32), (count, 1)),
        "scene": np.tile(problem.scene.astype(np.float32), (count, 1)),
    }
    return {"steps": demos.steps(observation, plan[1:]), "episode_metadata": metadata}


def build(
    root: str | os.PathLike[str],
    *,
    clean: int = 200,
    corrupt: int = 4000,
    held_out: int = 0,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Plans and writes the data sets below ``root``; returns {"smooth": directory, "rrt": ...}.

    A data set that matches its arguments is kept.

    Args:
      root: directory of all data sets; created if missing.
      clean, corrupt: number of smooth and of RRT-Connect's plans.
      held_out: number of each that no policy sees, to test on; 0 for none.
      seed: of problems and planners, below 1000.
      workers, progress: see ``demos.successes``; they do not change the result.
    """
    if min(clean, corrupt) < 1 or held_out < 0 or not 0 <= seed < _SEEDS:
        raise ValueError(
            f"asked for {clean} smooth, {corrupt} rrt and {held_out} held-out plans with seed "
            f"{seed}, expected at least 1, 1 and 0 and a seed from 0 to {_SEEDS - 1}"
        )
    counts = {"smooth": clean, "rrt": corrupt}
    counts |= {f"{name}_held_out": held_out for name in planners.PLANNERS if held_out}
    joints, numbers = np.zeros(scene.JOINTS, np.float32), np.zeros(scene.SIZE, np.float32)
    features = rlds_features(
        {"state": joints, "goal": joints, "scene": numbers},
        joints,
        episode_metadata={"planner": str, "seed": np.int64, "index": np.int64},
    )

    def episodes(planner: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
        plans = planners.generate(planner, count, seed, workers=workers, progress=progress)
        for index, (problem, plan) in plans:
            about = dict(planner=planner, seed=np.int64(seed), index=np.int64(index))
            yield episode(problem, plan, **about)

    world = {"ranges": scene.RANGES.tolist(), "steps": timing.STEPS, "duration": timing.DURATION}
    written = {}
    for name, count in counts.items():
        planner, number = name.removesuffix("_held_out"), stream(name, seed)
        key = dict(planner=planner, plans=count, seed=number, recipe=RECIPE, **world)
        target = Path(expanded(root)), f"arm_{name}", VERSION
        written[name] = demos.write(*target, key, features, episodes(planner, count, number))
    return written


def load_plans(directory: str | os.PathLike[str]) -> list[np.ndarray]:
    """Reads the plans [T + 1, 7] of every episode of a data set, in rad."""
    dataset = open_dataset(directory, required=("steps/observation/state", "steps/action"))
    episodes = (dataset[index]["steps"] for index in range(len(dataset)))
    return [np.concatenate([s["observation"]["state"][:1], s["action"]]) for s in episodes]


if __name__ == "__main__":
    command(build)
