"""The demonstrations on disk, in RLDS: ``bins_correct`` (clean), ``bins_arbitrary`` and
``bins_opposite`` (corrupt), and ``..._held_out`` of each.

Build them with ``python -m experiments.bin_sorting.data --root=DIR`` (under a minute on 2 cores).
"""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import demos
from experiments.bin_sorting import expert
from experiments.bin_sorting.env import BinSortingEnv, state_size
from experiments.bin_sorting.scene import Scene
from experiments.table import data

VERSION = "1.0.0"
# Increase it if the same arguments give other episodes: it is part of the cache's key.
RECIPE = 1
# Condition of a task-conditioned policy: whether it must follow the correct rule.
TASK = {True: np.array([1, 0], np.float32), False: np.array([0, 1], np.float32)}


def attempt(
    scene: Scene, rule: str, camera: str, seed: int, index: int
) -> expert.Demonstration | None:
    """Runs attempt ``index`` of a rule's stream; returns None if a block misses its bin."""
    number = data.attempt_number(expert.RULES.index(rule), len(expert.RULES), seed, index)
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
    **options: Any,
) -> Iterator[tuple[int, expert.Demonstration]]:
    """Yields the first ``count`` complete demonstrations with their attempts. For the options see
    ``demos.successes``, which raises ValueError if most attempts fail."""
    job = functools.partial(attempt, scene, rule, camera, seed)
    yield from demos.successes(job, count, label=rule, **options)


def episode(index: int, demonstration: expert.Demonstration, rule: str) -> dict[str, Any]:
    """Returns one RLDS episode, whose last step is terminal with reward 1 (all blocks in bins).
    Observation "task" states whether the rule is the correct one, see ``TASK``."""
    metadata = {"index": np.int64(index), "bins": demonstration.bins.astype(np.int64)}
    task = TASK[rule == "correct"]
    return demos.tabletop_episode(demonstration, "task", task, rule=rule, **metadata)


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
    **options: Any,
) -> dict[str, Path]:
    """Writes the absent data sets of each rule, and ``held_out`` more demonstrations of each.

    For the options see ``table.data.build`` and ``demos.successes``. ``camera`` "front" or "top"
    adds images [96, 96, 3].

    Raises:
      ValueError: a negative count, or a seed that is not 0 to 600, or the expert fails too often.
      OSError: no OpenGL for the camera.
    """
    bins = np.zeros(len(scene.colours), np.int64)
    metadata = {"rule": str, "index": np.int64, "bins": bins}
    features = demos.tabletop_features(state_size(scene), "task", 4, camera, **metadata)
    options |= dict(scene=scene, camera=camera, seed=seed)

    def data_set(rule, count, first):
        key = {"rule": rule, "demonstrations": count, "first": first, "recipe": RECIPE}
        key |= {"camera": camera, "seed": seed, "scene": dataclasses.asdict(scene)}
        numbered = demonstrations(rule, count, first=first, **options)
        return key, (episode(*pair, rule) for pair in numbered)

    counts = {"correct": correct, "arbitrary": arbitrary, "opposite": opposite}
    return data.build(root, "bins", VERSION, features, counts, held_out, (seed, 600), data_set)


if __name__ == "__main__":
    data.command(build, held_out=50)
