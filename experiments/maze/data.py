"""The maze's data sets on disk, in RLDS: ``maze_gcs`` (clean), ``maze_rrt`` (corrupt) and more.

Build them with ``python -m experiments.maze.data --root=DIR`` (30 s on 2 cores).
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds import open_dataset
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.maze import planners
from experiments.maze.env import DT, PADDING, WORLD
from experiments.table.data import command

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1


def episodes(plans: planners.Plans, planner: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yields one RLDS episode for each plan of [T + 1, 2] positions: T steps, whose action is the
    next position. The last step's action is the goal, so it is terminal with reward 1."""
    for index, positions in enumerate(plans.positions):
        goal, path = plans.goals[index].astype(np.float32), positions.astype(np.float32)
        observation = {"state": path[:-1], "goal": np.tile(goal, (len(path) - 1, 1))}
        yield {
            "steps": demos.steps(observation, path[1:]),
            "episode_metadata": {
                "planner": planner,
                "seed": np.int64(seed),
                "index": np.int64(plans.attempts[index]),
                "goal": goal,
            },
        }


def build(
    root: str | os.PathLike[str],
    *,
    clean: int = 100,
    corrupt: int = 5000,
    shortcut: int = 0,
    held_out: int = 0,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Plans and writes the data sets below ``root``; returns {"gcs": directory, "rrt": ...}.

    A data set that matches its arguments is kept.

    Args:
      root: directory of all data sets; created if missing.
      clean, corrupt, shortcut: number of GCS, RRT and shortcut RRT plans; 0 for no shortcut RRT.
      held_out: number of GCS and of RRT plans of another seed, to test on; 0 for none.
      seed: of goals and planners.
      workers, progress: see ``planners.generate``; they do not change the result.
    """
    names, counts = ("gcs", "rrt", "shortcut", "held_out"), (clean, corrupt, shortcut, held_out)
    for name, count, minimum in zip(names, counts, (1, 1, 0, 0), strict=True):
        if count < minimum or seed < 0:
            raise ValueError(
                f"asked for {count} {name} plans with seed {seed}, expected at least {minimum} and "
                "a non-negative seed"
            )
    recipes = {
        "gcs": ("gcs", clean, seed),
        "rrt": ("rrt", corrupt, seed),
        "shortcut": ("shortcut", shortcut, seed),
        "gcs_held_out": ("gcs", held_out, seed + 1),
        "rrt_held_out": ("rrt", held_out, seed + 1),
    }
    vector = np.zeros(2, np.float32)
    metadata = {"planner": str, "seed": np.int64, "index": np.int64, "goal": vector}
    features = rlds_features({"state": vector, "goal": vector}, vector, episode_metadata=metadata)
    world = {"padding": PADDING, "dt": DT, "world": dataclasses.asdict(WORLD)}
    options = dict(workers=workers, progress=progress)

    def plan(planner, count, seed):
        yield from episodes(planners.generate(planner, count, seed=seed, **options), planner, seed)

    return {
        name: demos.write(
            Path(expanded(root)),
            f"maze_{name}",
            VERSION,
            dict(planner=planner, plans=count, seed=seed, recipe=RECIPE, **world),
            features,
            plan(planner, count, seed),
        )
        for name, (planner, count, seed) in recipes.items()
        if count
    }


def load_positions(directory: str | os.PathLike[str]) -> list[np.ndarray]:
    """Reads the positions [T + 1, 2] of every episode of a data set, in metres."""
    dataset = open_dataset(directory, required=("steps/observation/state", "steps/action"))
    episodes = (dataset[index]["steps"] for index in range(len(dataset)))
    return [np.concatenate([s["observation"]["state"][:1], s["action"]]) for s in episodes]


if __name__ == "__main__":
    command(build)
