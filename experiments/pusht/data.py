"""The demonstrations on disk, in RLDS: ``pusht_steady`` (clean), ``pusht_shaky`` (corrupt), and
``..._held_out`` of each.

Build them with ``python -m experiments.pusht.data --root=DIR`` (two minutes of one core). A shaky
hand has a tremor, and leaves the T where it covers most of the goal: such a demonstration is wrong
in detail and right at large, so large noise levels may learn from it. ``--images`` adds images.
"""

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
from experiments.pusht import env as pusht
from experiments.pusht import expert
from experiments.pusht.expert import Demonstration, Hand
from experiments.table import data

VERSION = "1.0.0"
# Increase it if the same arguments give other episodes: it is part of the cache's key.
RECIPE = 1
HANDS = ("steady", "shaky")


@functools.lru_cache(maxsize=1)
def _env():
    return pusht.make()


def attempt(
    hand: Hand, content: float, source: int, seed: int, images: bool, index: int
) -> Demonstration | None:
    """Runs attempt ``index`` of a hand's stream; None if it is not done in time."""
    number = data.attempt_number(source, len(HANDS), seed, index)
    return expert.demonstrate(_env(), hand, number, content=content, images=images)


def demonstrations(
    name: str,
    count: int,
    *,
    tremor: float = 12.0,
    content: float = 0.9,
    seed: int = 0,
    images: bool = False,
    **options: Any,
) -> Iterator[tuple[int, Demonstration]]:
    """Yields the first ``count`` demonstrations of a hand, with their attempts.

    ``tremor`` [px] and ``content`` (coverage that is enough) are the shaky hand's. For the options
    see ``demos.successes``, which raises ValueError if most attempts fail, as this does for
    an unknown hand.
    """
    _checks.one_of("hand", name, HANDS)
    hand, enough = Hand(), pusht.SUCCESS
    if name == "shaky":
        hand, enough = Hand(tremor=tremor), content
    job = functools.partial(attempt, hand, enough, HANDS.index(name), seed, images)
    yield from demos.successes(job, count, label=name, **options)


def episode(index: int, demonstration: Demonstration, name: str) -> dict[str, Any]:
    """Returns one RLDS episode, whose last step is terminal with reward 1."""
    metadata = {"hand": name, "index": np.int64(index)}
    metadata["coverage"] = np.float32(demonstration.coverage)
    observation = pusht.observation(demonstration.states)
    if demonstration.images is not None:
        observation["image"] = demonstration.images
        observation["small"] = pusht.small(demonstration.images)
    steps = demos.steps(observation, demonstration.actions)
    return {"steps": steps, "episode_metadata": metadata}


def build(
    root: str | os.PathLike[str],
    *,
    steady: int = 100,
    shaky: int = 1000,
    held_out: int = 0,
    tremor: float = 12.0,
    content: float = 0.9,
    seed: int = 0,
    images: bool = False,
    **options: Any,
) -> dict[str, Path]:
    """Writes the absent data sets of each hand, and ``held_out`` more demonstrations of each.

    For the options see ``demonstrations``; ``images`` adds "image" [96, 96, 3] and "small",
    see ``env.small``, and to the names: ``pusht_images_steady``.

    Raises:
      ValueError: a negative count, or a seed that is not 0 to 900, or a hand fails too often.
    """
    observation = {n: np.zeros(size, np.float32) for n, size in pusht.OBSERVATION.items()}
    if images:
        observation["image"] = np.zeros((pusht.PIXELS, pusht.PIXELS, 3), np.uint8)
        observation["small"] = np.zeros(3 * pusht.SMALL**2, np.uint8)
    metadata = {"hand": str, "index": np.int64, "coverage": np.float32}
    features = rlds_features(observation, np.zeros(2, np.float32), episode_metadata=metadata)

    def data_set(name, count, first):
        key = {"hand": name, "demonstrations": count, "first": first, "recipe": RECIPE}
        key |= {"seed": seed, "images": images, "steady": dataclasses.asdict(Hand())}
        key |= {"tremor": tremor, "content": content} if name == "shaky" else {}
        recipe = dict(tremor=tremor, content=content, seed=seed, images=images)
        numbered = demonstrations(name, count, first=first, **recipe, **options)
        return key, (episode(*pair, name) for pair in numbered)

    counts = {"steady": steady, "shaky": shaky}
    prefix = "pusht_images" if images else "pusht"
    return data.build(root, prefix, VERSION, features, counts, held_out, (seed, 900), data_set)


if __name__ == "__main__":
    data.command(build, held_out=20)
