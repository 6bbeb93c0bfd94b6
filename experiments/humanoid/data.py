"""The data sets on disk, in RLDS: ``humanoid_clean``, one for each kind of corruption,
``humanoid_held_out``, and ``humanoid_uncorrupted``, all that are trained as they were recorded.

``humanoid_centred_...`` of clean and the kinds are for the classifiers: without the mean posture of
each episode, in units of what all that is trained varies by, as training normalises it. A few
episodes differ in their postures whatever befell them, and that is all that a classifier learns.

Every recorded episode is in one of clean, held out, or one kind: none that a policy is tested on
has been trained on, spoilt or not.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from ambient_jax.data import storage
from ambient_jax.data.paths import expanded
from ambient_jax.data.write import rlds_features
from experiments import checks, demos
from experiments.humanoid.corruptions import KINDS, Motion, Strengths, leads_of

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1
_FIELDS = "steps/observation/state", "steps/action"
_LAG = 5  # of generated states, frames


class Recorded(NamedTuple):
    """Episodes as recorded, their rate in Hz, and what tells them from others."""

    motions: list[Motion]
    hz: float
    fingerprint: str


def recorded(task: ml_collections.ConfigDict) -> Recorded:
    """Reads the data set ``task.recorded``; "" generates ``task.generated`` episodes.

    Raises ValueError where states and actions are not of the same joints, FileNotFoundError where
    there is no data set.
    """
    if not task.recorded:
        return Recorded(generated(task.generated), 30.0, f"generated {task.generated}")
    return _read(expanded(task.recorded))


@functools.lru_cache(maxsize=1)
def _read(path):
    dataset = storage.open_dataset(path, "train", _FIELDS, keys=_FIELDS)
    motions = []
    for position in range(len(dataset)):
        steps = dataset[position]["steps"]
        state, action = steps["observation"]["state"], steps["action"]
        if state.shape != action.shape or len(state) < 3:
            raise ValueError(
                f"{path}: episode {position} has states {list(state.shape)} and actions "
                f"{list(action.shape)}, expected the same joints in both, and 3 frames or more"
            )
        motions.append(Motion(np.asarray(state, np.float64), np.asarray(action, np.float64)))
    return Recorded(motions, float(dataset.hz or 30.0), dataset.fingerprint)


def generated(count: int, *, joints: int = 4, seed: int = 0) -> list[Motion]:
    """Returns episodes of smooth reaches between random postures, with an arm that lags."""
    rng = np.random.default_rng(seed)
    clock = np.linspace(0, 1, 40)[:, None]
    ease = clock**3 * (10 - 15 * clock + 6 * clock**2)
    motions = []
    for _ in range(count):
        postures = rng.uniform(-1, 1, (4, joints))
        pairs = zip(postures[:-1], postures[1:], strict=True)
        path = np.concatenate([start + ease * (end - start) for start, end in pairs])
        before = np.repeat(path[:1], _LAG, axis=0)
        motions.append(Motion(np.concatenate([before, path])[: len(path)], path))
    return motions


def split(count: int, task: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """Returns the episodes of "clean", "held_out" and each kind, of ``count`` episodes.

    Kinds share what is left evenly. ValueError where that leaves a kind without one.
    """
    order = np.random.default_rng(task.data_seed).permutation(count)
    clean, held_out, rest = np.split(order, [task.clean, task.clean + task.held_out])
    if len(rest) < len(KINDS):
        raise ValueError(
            f"config.task has clean = {task.clean} and held_out = {task.held_out} of {count} "
            f"episodes, expected at least {len(KINDS)} left, one for each kind of corruption"
        )
    kinds = {kind: np.sort(rest[i :: len(KINDS)]) for i, kind in enumerate(KINDS)}
    return {"clean": np.sort(clean), "held_out": np.sort(held_out), **kinds}


def strengths(task: ml_collections.ConfigDict) -> Strengths:
    """The strengths of ``task.strengths``; raises ValueError for an unknown field or a value."""
    made = checks.scene(Strengths, task.strengths)
    checks.finite_numbers(made, ())
    for name, holds, expected in (
        ("share", 0 < made.share < 1, "more than 0 and less than 1"),
        ("burst", made.burst >= 1, "at least 1"),
        ("late", made.late >= 0, "at least 0"),
        ("margin", 0 <= made.margin < 0.5, "at least 0 and less than 0.5"),
        ("slowness", made.slowness >= 1, "at least 1"),
        ("undone", 0 < made.undone < 1, "more than 0 and less than 1"),
    ):
        if not holds:
            value = getattr(made, name)
            raise ValueError(f"config.task.strengths.{name} is {value}, expected {expected}")
    return made


def corrupted(
    source: Recorded,
    kind: str,
    episodes: Sequence[int],
    made: Strengths,
    leads: np.ndarray,
    seed: int,
) -> list[Motion]:
    """Returns the episodes, spoilt; what an episode becomes depends on its number and the seed."""
    number, motions = list(KINDS).index(kind), []
    for episode in episodes:
        rng = np.random.default_rng([seed, number, int(episode)])
        motions.append(KINDS[kind](source.motions[episode], rng, made, source.hz, leads))
    return motions


def centred(motions: Sequence[Motion], scale: np.ndarray) -> list[Motion]:
    """Returns motions less the mean of each one's actions, in units of ``scale`` [D]."""
    unit = np.where(scale > 0, scale, 1.0)
    return [Motion(*((v - m.action.mean(0)) / unit for v in m)) for m in motions]


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets below data.root that are not there yet."""
    task, source = config.task, recorded(config.task)
    parts, made = split(len(source.motions), task), strengths(task)
    leads = leads_of(source.motions)
    key = {"recorded": source.fingerprint, "recipe": RECIPE, "leads": leads.tolist()}
    vector = np.zeros(source.motions[0].action.shape[1], np.float32)
    features = rlds_features({"state": vector}, vector, episode_metadata={"index": np.int64})

    def write(name: str, episodes: np.ndarray, motions: list[Motion], **how: Any) -> None:
        about = key | how | {"episodes": episodes.tolist()}
        rows = map(_episode, episodes.tolist(), motions)
        root = pathlib.Path(expanded(config.data.root))
        demos.write(root, f"humanoid_{name}", VERSION, about, features, rows)

    trained = [episodes for name, episodes in parts.items() if name != "held_out"]
    whole = {"uncorrupted": np.sort(np.concatenate(trained))}
    whole |= {name: parts[name] for name in ("clean", "held_out")}
    for name, episodes in whole.items():
        write(name, episodes, [source.motions[e] for e in episodes])
    spoilt = {
        kind: corrupted(source, kind, parts[kind], made, leads, task.data_seed) for kind in KINDS
    }
    how = {"seed": task.data_seed, "strengths": dataclasses.asdict(made)}
    for kind, motions in spoilt.items():
        write(kind, parts[kind], motions, kind=kind, **how)
    both = {"clean": [source.motions[e] for e in parts["clean"]], **spoilt}
    scale = np.concatenate([m.action for motions in both.values() for m in motions]).std(0)
    for name, motions in both.items():
        write(f"centred_{name}", parts[name], centred(motions, scale), centred=name, **how)


def _episode(index: int, motion: Motion) -> Mapping[str, Any]:
    state, action = (values.astype(np.float32) for values in motion)
    steps = demos.steps({"state": state}, action)
    return {"steps": steps, "episode_metadata": {"index": np.int64(index)}}
