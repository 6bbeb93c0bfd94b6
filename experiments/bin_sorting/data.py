"""The demonstrations on disk, in RLDS: ``bins_correct`` (clean), ``bins_arbitrary`` and
``bins_opposite`` (corrupt), and ``..._held_out`` of each.

Build them with ``python -m experiments.bin_sorting.data --root=DIR`` (under a minute on 2 cores).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from ambient_jax.cli import console
from ambient_jax.data.paths import expanded
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.bin_sorting import expert
from experiments.bin_sorting.env import BinSortingEnv, state_size
from experiments.bin_sorting.scene import Scene
from experiments.tabletop import IMAGE

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1
# What a task-conditioned policy is told: whose demonstrations it is to follow.
TASK = {True: np.array([1, 0], np.float32), False: np.array([0, 1], np.float32)}
_HELD_OUT = 500_000  # attempts of held-out demonstrations start here


def attempt(
    scene: Scene, rule: str, camera: str, seed: int, index: int
) -> expert.Demonstration | None:
    """Attempt ``index`` of a rule's stream, a pure function of its arguments; None if a block did
    not come to its bin."""
    # Below 2^31, apart for seeds, rules and attempts, and apart from the seeds of evaluation.
    number = (seed * len(expert.RULES) + expert.RULES.index(rule)) * 1_000_000 + index + 1_000_000
    demonstration = expert.demonstrate(_env(scene, camera), rule, number)
    complete = (demonstration.placements == demonstration.bins).all()
    return demonstration if complete else None


@functools.lru_cache(maxsize=2)
def _env(scene, camera):
    return BinSortingEnv(scene, camera=camera)


def demonstrations(
    rule: str,
    count: int,
    *,
    scene: Scene = Scene(),  # noqa: B008
    camera: str = "",
    seed: int = 0,
    first: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[tuple[int, expert.Demonstration]]:
    """The first ``count`` complete demonstrations from attempt ``first`` on, each with its attempt.

    They do not depend on ``workers``. With more than one, processes are spawned: call it from an
    importable main module (``if __name__ == "__main__":``).

    Raises:
      RuntimeError: more than half of the attempts fail.
    """
    job = functools.partial(attempt, scene, rule, camera, seed)
    yield from demos.successes(
        job, count, label=rule, first=first, workers=workers, progress=progress
    )


def episode(index: int, demonstration: expert.Demonstration, rule: str) -> dict[str, Any]:
    """One RLDS episode. Its last step, after which all blocks rest in bins, is terminal with
    reward 1; observation "task" says whether the rule is the correct one, see ``TASK``."""
    observation = {
        "state": demonstration.states,
        "task": np.tile(TASK[rule == "correct"], (len(demonstration.actions), 1)),
    }
    if demonstration.images is not None:
        observation["image"] = demonstration.images
    return {
        "steps": demos.steps(observation, demonstration.actions),
        "episode_metadata": {
            "rule": rule,
            "index": np.int64(index),
            "bins": demonstration.bins.astype(np.int64),
        },
    }


def build(
    root: str | os.PathLike[str],
    *,
    correct: int = 50,
    arbitrary: int = 200,
    opposite: int = 200,
    held_out: int = 0,
    seed: int = 0,
    scene: Scene = Scene(),  # noqa: B008
    camera: str = "",
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Gives and writes the demonstrations below ``root``, unless they are there already.

    Each data set remembers what it was built from: one that matches is kept, another is replaced,
    and it appears under its name only when complete. ``workers`` does not change the result.

    Args:
      root: directory of all data sets; created if missing.
      correct, arbitrary, opposite: demonstrations of each rule; 0 for no such data set.
      held_out: more of each of these rules that no policy sees, to test on; 0 for none.
      seed: of scenes and expert.
      scene: what the expert stands before.
      camera: "front" or "top" adds images [96, 96, 3] as observation "image".
      workers: processes; see ``demonstrations``.
      progress: show progress bars.

    Returns:
      ``{"correct": directory, ...}`` for ``ambient_jax.data.rlds.open_dataset``.

    Raises:
      ValueError: a negative count, or a seed that is not in 0 to 600.
      RuntimeError: the expert fails too often, or no OpenGL for the camera.
    """
    counts = {"correct": correct, "arbitrary": arbitrary, "opposite": opposite}
    if min(*counts.values(), held_out) < 0 or not 0 <= seed <= 600:
        raise ValueError(
            f"asked for {counts} demonstrations and {held_out} held out with seed {seed}, "
            "expected no negative count and a seed in 0 to 600"
        )
    recipes = {rule: (rule, count, 0) for rule, count in counts.items() if count}
    if held_out:
        recipes |= {f"{rule}_held_out": (rule, held_out, _HELD_OUT) for rule in list(recipes)}
    options = dict(scene=scene, camera=camera, seed=seed)
    run = dict(workers=workers, progress=progress)
    return {
        name: _build_one(Path(expanded(root)), f"bins_{name}", *recipe, options, run)
        for name, recipe in recipes.items()
    }


def _build_one(
    root: Path,
    name: str,
    rule: str,
    count: int,
    first: int,
    options: dict[str, Any],
    run: dict[str, Any],
) -> Path:
    scene = dataclasses.asdict(options["scene"])
    key = {"rule": rule, "demonstrations": count, "first": first, "recipe": RECIPE}
    key |= {"camera": options["camera"], "seed": options["seed"], "scene": scene}
    blocks = options["scene"].red + options["scene"].blue
    observation = {
        "state": np.zeros(state_size(options["scene"]), np.float32),
        "task": np.zeros(2, np.float32),
    }
    if options["camera"]:
        observation["image"] = np.zeros((IMAGE, IMAGE, 3), np.uint8)
    features = rlds_features(
        observation,
        np.zeros(4, np.float32),
        episode_metadata={"rule": str, "index": np.int64, "bins": np.zeros(blocks, np.int64)},
    )
    found = demonstrations(rule, count, first=first, **options, **run)
    episodes = (episode(index, demonstration, rule) for index, demonstration in found)
    return demos.write(root, name, VERSION, key, features, episodes)


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        given = flags.FLAGS
        counts = {name: given[name].value for name in (*expert.RULES, "held_out")}
        found = build(given.root, **counts, seed=given.seed, camera=given.camera)
        for name, directory in found.items():
            logging.info("%s: %s", name, directory)


if __name__ == "__main__":
    flags.DEFINE_string("root", None, "Directory of all data sets.", required=True)
    flags.DEFINE_integer("correct", 50, "Demonstrations that sort by the correct rule.")
    flags.DEFINE_integer("arbitrary", 200, "Demonstrations that sort at random.")
    flags.DEFINE_integer("opposite", 200, "Demonstrations that sort the other way round.")
    flags.DEFINE_integer("held_out", 50, "Demonstrations of each rule to test on.")
    flags.DEFINE_integer("seed", 0, "Seed of scenes and expert.")
    flags.DEFINE_string("camera", "", "front or top: adds images.")
    console.run(_main)
