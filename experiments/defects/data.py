"""The data sets on disk: the maze's ``maze_gcs``, and ``defects_<kind>`` for each kind of defect.

The first plans of ``maze_gcs`` are the clean ones; each kind spoils a pile of the others.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds import open_dataset
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.defects import kinds as kinds_lib
from experiments.defects.kinds import KINDS, Episode, Strengths
from experiments.maze import data as maze

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1


def spoilt(
    plans: Sequence[Episode], kind: str, strengths: Strengths, seed: int = 0
) -> list[Episode]:
    """Returns the episodes with one defect each; "none" returns them as they are.

    The goal of another plan is that of the next one, so there must be two.
    """
    made = []
    for index, episode in enumerate(plans):
        rng = np.random.default_rng([seed, *kind.encode(), index])
        other = plans[(index + 1) % len(plans)].goal
        made.append(KINDS[kind](episode, rng, strengths, other))
    return made


def build(
    root: str | os.PathLike[str],
    *,
    plans: int = 400,
    clean: int = 20,
    each: int = 30,
    kinds: Sequence[str] = tuple(KINDS),
    strengths: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Plans, spoils and writes the data sets below ``root``; returns their directories by name.

    A data set that matches its arguments is kept.

    Args:
      root: directory of all data sets; created if missing.
      plans: number of plans of ``maze_gcs``.
      clean, each: number of clean plans, the first ones, and of those of each kind, after them.
      kinds: names of ``KINDS``; each has its own plans, whichever kinds are asked for.
      strengths: fields of ``Strengths`` to change.
      seed: of goals and defects.
      workers, progress: see ``planners.generate``; they do not change the result.

    Raises:
      ValueError: fewer than two plans of a kind, too few in all, or an unknown kind.
    """
    for kind in kinds:
        _checks.one_of("kind", kind, KINDS)
    order = list(KINDS)
    needed = clean + each * (1 + max(map(order.index, kinds), default=-1))
    if min(clean, each) < 2 or needed > plans:
        raise ValueError(
            f"asked for {clean} clean plans and {each} of each kind of {plans}, expected at least "
            f"2 of each, and in all at least {needed} plans"
        )
    chosen = kinds_lib.strengths(strengths)
    # One plan of RRT is the fewest that the maze writes.
    how: dict[str, Any] = dict(corrupt=1, seed=seed, workers=workers, progress=progress)
    directories = {"clean": maze.build(root, clean=plans, **how)["gcs"]}

    def pile(kind: str) -> Iterator[dict[str, Any]]:
        first = clean + each * order.index(kind)
        own = read(directories["clean"], range(first, first + each))
        for index, one in enumerate(spoilt(own, kind, chosen, seed)):
            state, action, goal = (np.asarray(values, np.float32) for values in one)
            observation = {"state": state, "goal": np.tile(goal, (len(state), 1))}
            yield {
                "steps": demos.steps(observation, action),
                "episode_metadata": {"kind": kind, "plan": np.int64(first + index), "goal": goal},
            }

    vector = np.zeros(2, np.float32)
    metadata = {"kind": str, "plan": np.int64, "goal": vector}
    features = rlds_features({"state": vector, "goal": vector}, vector, episode_metadata=metadata)
    key = dict(plans=demos.built_from(directories["clean"]), clean=clean, each=each, recipe=RECIPE)
    for kind in kinds:
        about = {**key, "kind": kind, "seed": seed, **dataclasses.asdict(chosen)}
        target = Path(expanded(root)), f"defects_{kind}", VERSION
        directories[kind] = demos.write(*target, about, features, pile(kind))
    return directories


def read(directory: str | os.PathLike[str], numbers: Iterable[int]) -> list[Episode]:
    """Returns the episodes of these numbers of a data set of the maze."""
    dataset = open_dataset(directory, last_step="keep")
    episodes = (dataset[number]["steps"] for number in numbers)
    return [
        Episode(
            s["observation"]["state"].astype(float),
            s["action"].astype(float),
            s["observation"]["goal"][0].astype(float),
        )
        for s in episodes
    ]
