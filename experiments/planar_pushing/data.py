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
from absl import flags, logging

from ambient_jax import _checks
from ambient_jax.cli import console
from ambient_jax.data.paths import expanded
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.planar_pushing import expert
from experiments.planar_pushing.env import STATE, PlanarPushingEnv
from experiments.planar_pushing.scene import KNOBS, TARGET, Physics, Scene, between
from experiments.tabletop import IMAGE

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1
WORLDS = ("target", "source")
STYLE = {"target": "human", "source": "planner"}
# What a conditioned policy is told: in whose world it is.
DOMAIN = {"target": np.array([1, 0], np.float32), "source": np.array([0, 1], np.float32)}
_HELD_OUT = 500_000  # attempts of held-out demonstrations start here


def attempt(
    scene: Scene, physics: Physics, world: str, camera: str, seed: int, index: int
) -> expert.Demonstration | None:
    """Attempt ``index`` of a world's stream, a pure function of its arguments; None if the slider
    did not come to its goal. ``world`` names the style and the starts, ``physics`` the rest."""
    # Below 2^31, apart for seeds, worlds and attempts, and apart from the seeds of evaluation.
    number = (seed * len(WORLDS) + WORLDS.index(world)) * 1_000_000 + index + 1_000_000
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
    first: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[tuple[int, expert.Demonstration]]:
    """The first ``count`` successful demonstrations from attempt ``first`` on, each with its
    attempt, see ``demos.successes``. ``physics`` are by default those of the world.

    Raises:
      ValueError: an unknown world.
      RuntimeError: more than half of the attempts fail.
    """
    _checks.one_of("world", world, WORLDS)
    physics = physics or (TARGET if world == "target" else between(1.0))
    job = functools.partial(attempt, scene, physics, world, camera, seed)
    yield from demos.successes(
        job, count, label=world, first=first, workers=workers, progress=progress
    )


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
    """Gives and writes the demonstrations below ``root``, unless they are there already.

    Each data set remembers what it was built from: one that matches is kept, another is replaced,
    and it appears under its name only when complete. ``workers`` does not change the result.
    A smaller number of demonstrations is a split: the first 50 are the same of 50 as of 150.

    Args:
      root: directory of all data sets; created if missing.
      target, source: demonstrations of each world; 0 for no such data set.
      held_out: more of each of these worlds that no policy sees, to test on; 0 for none.
      gap: level of the source physics, see ``scene.between``.
      knobs: what the gap is made of.
      seed: of starts and experts.
      scene: what the experts stand before.
      camera: "front" or "top" adds images [96, 96, 3] as observation "image".
      workers: processes; see ``demos.successes``.
      progress: show progress bars.

    Returns:
      ``{"target": directory, ...}`` for ``ambient_jax.data.rlds.open_dataset``.

    Raises:
      ValueError: a negative count, a seed that is not in 0 to 900, or unknown knobs.
      RuntimeError: an expert fails too often, or no OpenGL for the camera.
    """
    counts = {"target": target, "source": source}
    if min(target, source, held_out) < 0 or not 0 <= seed <= 900:
        raise ValueError(
            f"asked for {counts} demonstrations and {held_out} held out with seed {seed}, "
            "expected no negative count and a seed in 0 to 900"
        )
    recipes = {world: (world, count, 0) for world, count in counts.items() if count}
    if held_out:
        recipes |= {f"{w}_held_out": (w, held_out, _HELD_OUT) for w in list(recipes)}
    physics = {"target": TARGET, "source": between(gap, knobs)}
    options = dict(scene=scene, camera=camera, seed=seed)
    run = dict(workers=workers, progress=progress)
    return {
        name: _build_one(
            Path(expanded(root)), f"push_{name}", *recipe, physics[recipe[0]], options, run
        )
        for name, recipe in recipes.items()
    }


def _build_one(
    root: Path,
    name: str,
    world: str,
    count: int,
    first: int,
    physics: Physics,
    options: dict[str, Any],
    run: dict[str, Any],
) -> Path:
    key = {"world": world, "demonstrations": count, "first": first, "recipe": RECIPE}
    key |= {"camera": options["camera"], "seed": options["seed"]}
    key |= {"scene": dataclasses.asdict(options["scene"]), "physics": dataclasses.asdict(physics)}
    observation = {"state": np.zeros(STATE, np.float32), "domain": np.zeros(2, np.float32)}
    if options["camera"]:
        observation["image"] = np.zeros((IMAGE, IMAGE, 3), np.uint8)
    features = rlds_features(
        observation,
        np.zeros(2, np.float32),
        episode_metadata={"world": str, "index": np.int64},
    )
    found = demonstrations(world, count, first=first, physics=physics, **options, **run)
    episodes = (episode(index, demonstration, world) for index, demonstration in found)
    return demos.write(root, name, VERSION, key, features, episodes)


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        given = flags.FLAGS
        counts = {name: given[name].value for name in ("target", "source", "held_out")}
        made = dict(gap=given.gap, knobs=tuple(given.knobs), seed=given.seed, camera=given.camera)
        for name, directory in build(given.root, **counts, **made).items():
            logging.info("%s: %s", name, directory)


if __name__ == "__main__":
    flags.DEFINE_string("root", None, "Directory of all data sets.", required=True)
    flags.DEFINE_integer("target", 150, "Demonstrations in the target's physics.")
    flags.DEFINE_integer("source", 2000, "Demonstrations in the source's physics.")
    flags.DEFINE_integer("held_out", 50, "Demonstrations of each to test on.")
    flags.DEFINE_float("gap", 1.0, "Level of the source's physics; 0 is the target's.")
    flags.DEFINE_list("knobs", list(KNOBS), "What the gap is made of.")
    flags.DEFINE_integer("seed", 0, "Seed of starts and experts.")
    flags.DEFINE_string("camera", "", "front or top: adds images.")
    console.run(_main)
