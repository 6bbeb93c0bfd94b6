"""The demonstrations on disk, in RLDS: ``paper_target`` (a person, clean), ``paper_source`` (a
planner, corrupt), ``..._held_out`` of each, and the first of each with pictures, ``paper_images``.

Build them with ``python -m experiments.paper_pushing.data --root=DIR`` (three minutes of one core).
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds

from ambient_jax import _checks
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.paper_pushing import cameras, expert
from experiments.paper_pushing.env import SOURCE, TARGET, PaperPushingEnv, PaperScene
from experiments.planar_pushing.data import DOMAIN
from experiments.planar_pushing.env import STATE
from experiments.planar_pushing.expert import Demonstration
from experiments.planar_pushing.scene import Physics
from experiments.table import data

VERSION = "1.0.0"
# Increase it if the same arguments give other episodes: it is part of the cache's key.
RECIPE = 1
WORLDS = {"target": TARGET, "source": SOURCE}
STYLE = {"target": "person", "source": "planner"}
# Where the library's loader finds actions, the pusher's place and pictures, see ``open_x.spec``.
SPEC = {
    "hz": 10,
    "action": "joint action",
    "state": "observation/pusher",
    "primary": "observation/image_primary",
    "wrist": "observation/image_wrist",
    "last_step": "keep",
}


def attempt(scene: PaperScene, world: str, seed: int, index: int) -> Demonstration | None:
    """Runs attempt ``index`` of a world's stream; returns None if it does not succeed."""
    number = data.attempt_number(list(WORLDS).index(world), len(WORLDS), seed, index)
    demonstration = expert.demonstrate(_env(scene, WORLDS[world]), STYLE[world], number)
    return demonstration if demonstration.success else None


@functools.lru_cache(maxsize=2)
def _env(scene: PaperScene, physics: Physics) -> PaperPushingEnv:
    return PaperPushingEnv(scene, physics)


def demonstrations(
    world: str,
    count: int,
    *,
    scene: PaperScene = PaperScene(),  # noqa: B008
    seed: int = 0,
    **options: Any,
) -> Iterator[tuple[int, Demonstration]]:
    """Yields the first ``count`` successful demonstrations with their attempts. For the options see
    ``demos.successes``. Raises ValueError for an unknown world."""
    _checks.one_of("world", world, WORLDS)
    job = functools.partial(attempt, scene, world, seed)
    yield from demos.successes(job, count, label=world, **options)


def episode(
    index: int, demonstration: Demonstration, world: str, pictures: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns one RLDS episode, whose last step is terminal with reward 1. Its observation is the
    state and the world (``DOMAIN``), or with ``pictures`` these and the pusher's place."""
    states = demonstration.states
    observation: dict[str, np.ndarray] = {"pusher": states[:, :2], **pictures}
    if not pictures:
        domain = np.tile(DOMAIN[world], (len(states), 1))
        observation = {"state": states, "domain": domain}
    metadata = {"world": world, "index": np.int64(index)}
    return {"steps": demos.steps(observation, demonstration.actions), "episode_metadata": metadata}


def build(
    root: str | os.PathLike[str],
    *,
    target: int = 2000,
    source: int = 2000,
    held_out: int = 50,
    images_target: int = 0,
    images_source: int = 0,
    seed: int = 0,
    scene: PaperScene = PaperScene(),  # noqa: B008
    **options: Any,
) -> dict[str, Path]:
    """Writes the absent data sets; returns their directories by world.

    ``target`` and ``source`` are numbers of demonstrations, ``held_out`` of further ones of each,
    ``images_...`` of the first ones with pictures. Raises ValueError for a negative count or a seed
    that is not 0 to 900, and if an expert fails too often.
    """
    metadata = {"world": str, "index": np.int64}
    action = np.zeros(2, np.float32)
    picture = tfds.features.Image(shape=(cameras.PIXELS, cameras.PIXELS, 3), encoding_format="png")
    low = {"state": np.zeros(STATE, np.float32), "domain": np.zeros(2, np.float32)}
    seen = {"pusher": np.zeros(2, np.float32)} | dict.fromkeys(cameras.WIDTHS, picture)
    drawn = jax.jit(jax.vmap(functools.partial(cameras.draw, scene=scene)))

    def data_set(images, world, count, first):
        key = {"world": world, "demonstrations": count, "first": first, "recipe": RECIPE}
        key |= {"seed": seed, "scene": dataclasses.asdict(scene), "images": images}
        key |= {"physics": dataclasses.asdict(WORLDS[world])}
        made = demonstrations(world, count, first=first, scene=scene, seed=seed, **options)
        draw = functools.partial(_pictures, drawn) if images else lambda states: {}
        return key, (episode(i, d, world, draw(d.states)) for i, d in made)

    written = {}
    for prefix, images, observation, counts, more in (
        ("paper", False, low, {"target": target, "source": source}, held_out),
        ("paper_images", True, seen, {"target": images_target, "source": images_source}, 0),
    ):
        features = rlds_features(observation, action, episode_metadata=metadata)
        make = functools.partial(data_set, images)
        arguments = VERSION, features, counts, more, (seed, 900), make
        directories = data.build(root, prefix, *arguments)
        written |= {f"images_{n}" if images else n: path for n, path in directories.items()}
    return written


def _pictures(drawn, states):
    """Draws in one compiled size, a multiple of 64 steps."""
    steps = len(states)
    padded = np.pad(states, ((0, -steps % 64), (0, 0)), mode="edge")
    parts = [drawn(part) for part in padded.reshape(-1, 64, states.shape[-1])]
    return {n: np.concatenate([p[n] for p in parts])[:steps] for n in parts[0]}


if __name__ == "__main__":
    data.command(build)
