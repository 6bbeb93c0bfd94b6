"""The demonstrations on disk, in RLDS: ``shifted_clean``, one ``shifted_KIND`` for each kind of
shift (``shifts.NAMES``), and ``..._held_out`` of each.

Build them with ``python -m experiments.shifted.data --root=DIR`` (minutes on two cores).
The first ``clean`` episodes of ``shifted_clean`` are the clean data. The ``source`` episodes after
them are those of every shifted set, with their true observations.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.planar_pushing import data as pushing
from experiments.planar_pushing.scene import Scene
from experiments.shifted import align, shifts
from experiments.table import data

VERSION = "1.0.0"
# Increase it if the same arguments give other episodes: it is part of the cache's key.
RECIPE = 1


def build(
    root: str | os.PathLike[str],
    *,
    clean: int = 50,
    source: int = 500,
    held_out: int = 0,
    kinds: Sequence[str] = shifts.NAMES,
    seed: int = 0,
    scene: Scene = Scene(),  # noqa: B008
    **options: Any,
) -> dict[str, Path]:
    """Writes the absent data sets and ``held_out`` more demonstrations of each.

    All demonstrations are a person's in the target's physics (``planar_pushing``). For the options
    see ``demos.successes``.

    Raises:
      ValueError: a negative count, a seed that is not 0 to 900, an unknown kind, or an expert
        that fails too often.
    """
    for kind in kinds:
        _checks.one_of("a kind of shift", kind, shifts.NAMES)
    observation = shifts.split(np.zeros(shifts.PUSHER + shifts.SLIDER, np.float32))
    about = {"kind": str, "index": np.int64}
    features = rlds_features(observation, np.zeros(2, np.float32), episode_metadata=about)

    @functools.cache
    def good(first, count):
        options_of = dict(scene=scene, seed=seed, first=first, **options)
        return list(pushing.demonstrations("target", count, **options_of))

    @functools.cache
    def outcome():
        return align.outcome([d.states for _, d in good(0, clean + source)[:clean]])

    def episode(kind, index, demonstration):
        states, shift = demonstration.states, kind.removesuffix(shifts.ALIGNED)
        if kind != "clean":
            number = list(shifts.KINDS).index(shift)
            states = shifts.KINDS[shift](states, np.random.default_rng([seed, number, index]))
        if kind != shift:
            states = align.registered(states, outcome())
        steps = demos.steps(shifts.split(states), demonstration.actions)
        return {"steps": steps, "episode_metadata": {"kind": kind, "index": np.int64(index)}}

    def episodes(kind, count, first):  # a generator: draws nothing until it is read
        training = first == 0
        every = good(first, clean + source if training else count)
        for pair in every[clean if training and kind != "clean" else 0 :]:
            yield episode(kind, *pair)

    def data_set(kind, count, first):
        key = {"kind": kind, "demonstrations": count, "first": first, "recipe": RECIPE}
        key |= {"seed": seed, "scene": dataclasses.asdict(scene), "clean": clean}
        key |= (
            {"shift": dataclasses.asdict(shifts.KINDS[kind.removesuffix(shifts.ALIGNED)])}
            if kind != "clean"
            else {}
        )
        return key, episodes(kind, count, first)

    counts = {"clean": clean + source} | dict.fromkeys(kinds, source)
    return data.build(root, "shifted", VERSION, features, counts, held_out, (seed, 900), data_set)


if __name__ == "__main__":
    data.command(build, held_out=50)
