"""The demonstrations on disk, in RLDS: ``push_target`` (clean), ``push_source`` (corrupt), and
``..._held_out`` of each.

Build them with ``python -m experiments.planar_pushing.data --root=DIR`` (some ten seconds).
Images, with ``--camera``, are for data sets and environments: the table's policies see the state.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.planar_pushing import expert
from experiments.planar_pushing.env import STATE, PlanarPushingEnv
from experiments.planar_pushing.scene import KNOBS, TARGET, Physics, Scene, between
from experiments.table import data
from experiments.tabletop import IMAGE

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1
WORLDS = ("target", "source")
STYLE = {"target": "human", "source": "planner"}
# What a conditioned policy is told: in whose world it is.
DOMAIN = {"target": np.array([1, 0], np.float32), "source": np.array([0, 1], np.float32)}


def attempt(
    scene: Scene, physics: Physics, world: str, camera: str, seed: int, index: int
) -> expert.Demonstration | None:
    """Attempt ``index`` of a world's stream, a pure function of its arguments; None if the slider
    did not come to its goal. ``world`` names the style and the starts, ``physics`` the rest."""
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
    """The first ``count`` successful demonstrations, each with its attempt; ``options`` are of
    ``demos.successes``. ``physics`` are by default those of the world.

    Raises:
      ValueError: an unknown world.
      RuntimeError: more than half of the attempts fail.
    """
    _checks.one_of("world", world, WORLDS)
    physics = physics or (TARGET if world == "target" else between(1.0))
    job = functools.partial(attempt, scene, physics, world, camera, seed)
    yield from demos.successes(job, count, label=world, **options)


def episode(index: int, demonstration: expert.Demonstration, world: str) -> dict[str, Any]:
    """One RLDS episode. Its last step, after which the slider is at its goal, is terminal with
    reward 1; observation "domain" says whose world it is, see ``DOMAIN``."""
    observation = {
        "state": demonstration.states,
        "domain": np.tile(DOMAIN[world], (len(demonstration.actions), 1)),
    }
    if demonstration.images is not None:
        observation["image"] = demonstration.images
    return {
        "steps": demos.steps(observation, demonstration.actions),
        "episode_metadata": {"world": world, "index": np.int64(index)},
    }


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
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Writes the data sets that are missing, see ``table.data.build``.

    Args:
      root: directory of all data sets.
      target, source: demonstrations of each world.
      held_out: more of each.
      gap: level of the source physics, see ``scene.between``.
      knobs: what the gap is made of.
      seed: of starts and experts, 0 to 900.
      scene: what the experts stand before.
      camera: "front" or "top" adds images [96, 96, 3] as observation "image".
      workers: processes, which do not change the result; see ``demos.successes``.
      progress: show progress bars.

    Raises:
      ValueError: a negative count, another seed, or unknown knobs.
      RuntimeError: an expert fails too often, or no OpenGL for the camera.
    """
    physics = {"target": TARGET, "source": between(gap, knobs)}
    observation = {"state": np.zeros(STATE, np.float32), "domain": np.zeros(2, np.float32)}
    if camera:
        observation["image"] = np.zeros((IMAGE, IMAGE, 3), np.uint8)
    metadata = {"world": str, "index": np.int64}
    features = rlds_features(observation, np.zeros(2, np.float32), episode_metadata=metadata)
    options = dict(scene=scene, camera=camera, seed=seed, workers=workers, progress=progress)

    def of_world(world, count, first):
        key = {"world": world, "demonstrations": count, "first": first, "recipe": RECIPE}
        key |= {"camera": camera, "seed": seed, "scene": dataclasses.asdict(scene)}
        key |= {"physics": dataclasses.asdict(physics[world])}
        made = demonstrations(world, count, first=first, physics=physics[world], **options)
        return data.DataSet(key, features, (episode(*numbered, world) for numbered in made))

    counts = {"target": target, "source": source}
    return data.build(root, "push", VERSION, counts, held_out, (seed, 900), of_world)


if __name__ == "__main__":
    data.command(build, held_out=50)
