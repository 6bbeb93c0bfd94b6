"""The demonstrations on disk, in RLDS: ``push_target`` (clean), ``push_source`` (corrupt), and
``..._held_out`` of each.

Build them with ``python -m experiments.planar_pushing.data --root=DIR`` (some ten seconds).
Images, with ``--camera``, are for data sets and environments: the table's policies see the state.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ambient_jax import _checks
from experiments import demos
from experiments.planar_pushing import expert
from experiments.planar_pushing.env import STATE, PlanarPushingEnv
from experiments.planar_pushing.scene import KNOBS, TARGET, Physics, Scene, between
from experiments.table import data

VERSION = "1.0.0"
# Increase it if the same arguments give other episodes: it is part of the cache's key.
RECIPE = 1
WORLDS = ("target", "source")
STYLE = {"target": "human", "source": "planner"}
# Condition of a domain-conditioned policy: its world.
DOMAIN = {"target": np.array([1, 0], np.float32), "source": np.array([0, 1], np.float32)}


def attempt(
    scene: Scene, physics: Physics, world: str, camera: str, seed: int, index: int
) -> expert.Demonstration | None:
    """Runs attempt ``index`` of a world's stream; returns None if the slider misses its goal."""
    number = data.attempt_number(WORLDS.index(world), len(WORLDS), seed, index)
    demonstration = expert.demonstrate(_env(scene, physics, camera), STYLE[world], number)
    return demonstration if demonstration.success else None


@functools.lru_cache(maxsize=2)
def _env(scene, physics, camera):
    return PlanarPushingEnv(scene, physics, camera=camera)


def demonstrations(
    world: str,
    count: int,
    *,
    physics: Physics | None = None,
    scene: Scene = Scene(),  # noqa: B008
    camera: str = "",
    seed: int = 0,
    **options: Any,
) -> Iterator[tuple[int, expert.Demonstration]]:
    """Yields the first ``count`` successful demonstrations with their attempts. The physics are by
    default the world's. For the options see ``demos.successes``, which raises ValueError if most
    attempts fail. Raises ValueError for an unknown world."""
    _checks.one_of("world", world, WORLDS)
    physics = physics or (TARGET if world == "target" else between(1.0))
    job = functools.partial(attempt, scene, physics, world, camera, seed)
    yield from demos.successes(job, count, label=world, **options)


def episode(index: int, demonstration: expert.Demonstration, world: str) -> dict[str, Any]:
    """Returns one RLDS episode, whose last step is terminal with reward 1 (slider at its goal).
    Observation "domain" states the world, see ``DOMAIN``."""
    metadata = {"world": world, "index": np.int64(index)}
    return demos.tabletop_episode(demonstration, "domain", DOMAIN[world], **metadata)


def build(
    root: str | os.PathLike[str],
    *,
    target: int = 150,
    source: int = 2000,
    held_out: int = 0,
    gap: float = 1.0,
    knobs: tuple[str, ...] = KNOBS,
    seed: int = 0,
    scene: Scene = Scene(),  # noqa: B008
    camera: str = "",
    **options: Any,
) -> dict[str, Path]:
    """Writes the absent data sets of each world, and ``held_out`` more demonstrations of each.

    For the options see ``table.data.build`` and ``demos.successes``, for ``gap`` and ``knobs``
    ``scene.between``; ``camera`` "front" or "top" adds images [96, 96, 3].

    Raises:
      ValueError: a negative count, a seed that is not 0 to 900, unknown knobs, or an expert fails
        too often.
      OSError: no OpenGL for the camera.
    """
    physics = {"target": TARGET, "source": between(gap, knobs)}
    metadata = {"world": str, "index": np.int64}
    features = demos.tabletop_features(STATE, "domain", 2, camera, **metadata)
    options |= dict(scene=scene, camera=camera, seed=seed)

    def data_set(world, count, first):
        key = {"world": world, "demonstrations": count, "first": first, "recipe": RECIPE}
        key |= {"camera": camera, "seed": seed, "scene": dataclasses.asdict(scene)}
        key |= {"physics": dataclasses.asdict(physics[world])}
        numbered = demonstrations(world, count, first=first, physics=physics[world], **options)
        return key, (episode(*pair, world) for pair in numbered)

    counts = {"target": target, "source": source}
    return data.build(root, "push", VERSION, features, counts, held_out, (seed, 900), data_set)


if __name__ == "__main__":
    data.command(build, held_out=50)
