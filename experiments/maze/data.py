"""The maze's data sets on disk, in RLDS: ``maze_gcs`` (clean), ``maze_rrt`` (corrupt) and more.

Build them with ``python -m experiments.maze.data --root=DIR`` (30 s on 2 cores).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from ambient_jax.cli import console
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds import open_dataset
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.maze import planners
from experiments.maze.env import DT, PADDING, WORLD

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1


def episodes(plans: planners.Plans, planner: str, seed: int) -> Iterator[dict[str, Any]]:
    """One RLDS episode for each plan of [T + 1, 2] positions: T steps, whose action is the next
    position. The last step's action is the goal, so it is terminal with reward 1."""
    for index, positions in enumerate(plans.positions):
        steps = len(positions) - 1
        last = np.arange(steps) == steps - 1
        goal = plans.goals[index].astype(np.float32)
        yield {
            "steps": {
                "observation": {
                    "state": positions[:-1].astype(np.float32),
                    "goal": np.tile(goal, (steps, 1)),
                },
                "action": positions[1:].astype(np.float32),
                "is_first": np.arange(steps) == 0,
                "is_last": last,
                "is_terminal": last,
                "reward": last.astype(np.float32),
                "discount": 1.0 - last.astype(np.float32),
            },
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
    """Plans and writes the data sets below ``root``, unless they are there already.

    Each data set remembers what it was built from: one that matches is kept, another is replaced,
    and it appears under its name only when complete. ``workers`` does not change the result.

    Args:
      root: directory of all data sets; created if missing.
      clean: number of GCS plans, at least 1.
      corrupt: number of RRT plans, at least 1.
      shortcut: number of shortcut RRT plans; 0 for no such data set.
      held_out: number of GCS and of RRT plans of another seed, to test on; 0 for none.
      seed: of goals and planners.
      workers: processes that plan; see ``planners.generate``.
      progress: show progress bars.

    Returns:
      ``{"gcs": directory, "rrt": directory, ...}`` for ``ambient_jax.data.rlds.open_dataset``.

    Raises:
      ValueError: a count below the least, or a negative seed.
    """
    least = {"gcs": (clean, 1), "rrt": (corrupt, 1), "shortcut": (shortcut, 0)}
    least["held_out"] = held_out, 0
    for name, (count, minimum) in least.items():
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
    return {
        name: _build_one(Path(expanded(root)), f"maze_{name}", *recipe, workers, progress)
        for name, recipe in recipes.items()
        if recipe[1]
    }


def _build_one(
    root: Path,
    name: str,
    planner: str,
    count: int,
    seed: int,
    workers: int | None,
    progress: bool,
) -> Path:
    key = {
        "planner": planner,
        "plans": count,
        "seed": seed,
        "recipe": RECIPE,
        "padding": PADDING,
        "dt": DT,
        "world": dataclasses.asdict(WORLD),
    }
    vector = np.zeros(2, np.float32)
    features = rlds_features(
        {"state": vector, "goal": vector},
        vector,
        episode_metadata={"planner": str, "seed": np.int64, "index": np.int64, "goal": vector},
    )

    def found():
        plans = planners.generate(planner, count, seed=seed, workers=workers, progress=progress)
        if plans.failures:
            logging.info("%s: %d attempts failed and were replaced", name, plans.failures)
        yield from episodes(plans, planner, seed)

    return demos.write(root, name, VERSION, key, features, found())


def load_positions(directory: str | os.PathLike[str]) -> list[np.ndarray]:
    """The positions [T + 1, 2] of every episode of a data set, in metres, for metrics and figures.

    Raises:
      FileNotFoundError: no data set at ``directory``.
    """
    dataset = open_dataset(directory, required=("steps/observation/state", "steps/action"))
    paths = []
    for index in range(len(dataset)):
        steps = dataset[index]["steps"]
        paths.append(np.concatenate([steps["observation"]["state"][:1], steps["action"]]))
    return paths


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        given = flags.FLAGS
        found = build(given.root, clean=given.clean, corrupt=given.corrupt, seed=given.seed)
        for name, directory in found.items():
            logging.info("%s: %s", name, directory)


if __name__ == "__main__":
    flags.DEFINE_string("root", None, "Directory of all data sets.", required=True)
    flags.DEFINE_integer("clean", 100, "Number of GCS plans.")
    flags.DEFINE_integer("corrupt", 5000, "Number of RRT plans.")
    flags.DEFINE_integer("seed", 0, "Seed of goals and planners.")
    console.run(_main)
