"""What the pusher does in a chunk, and how bounds shift what is seen of it: the study of bias.

Bounds that judge chunks one by one admit at low noise levels those that look most like the
target's, and what these do is not what the source's demonstrations do. Here the share of each
behaviour mode among the admitted chunks is compared with its share among all.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ambient_jax import admission
from ambient_jax.data import bounds, rlds
from ambient_jax.data.paths import expanded
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import classifier_bounds
from experiments.planar_pushing.scene import BAR_HALF, RADIUS, STEM_HALF, TAIL, TOP, WAIST
from experiments.table.experiment import Table

FACES = ("bar top", "bar ends", "waist", "stem sides", "tail")
MODES = (*FACES, "moving around")
AWAY = len(FACES)
TOUCH = 0.001  # m between pusher and slider that still count as touching
LEAST = 0.01  # share of chunks, admitted below which a level says nothing of modes
_BAR, _STEM = BAR_HALF[0], STEM_HALF[0]
# Ends of each face on the side x >= 0: the T is symmetric.
_FIRST = np.array([(0, TOP), (_BAR, TOP), (_BAR, WAIST), (_STEM, WAIST), (_STEM, TAIL)])
_LAST = np.array([*_FIRST[1:], (0, TAIL)])


def touched(states: np.ndarray) -> np.ndarray:
    """[M] the face of the T that the pusher touches in states [M, 12], as a number into ``FACES``,
    or ``AWAY``.

    It is the face nearest to the pusher's centre, if that is at most its radius and ``TOUCH`` away.
    Left and right are one, and at a corner the face that is first in ``FACES`` counts.
    """
    states = np.asarray(states, float)
    off, (c, s) = states[:, :2] - states[:, 2:4], states[:, 4:6].T
    here = np.stack([np.abs(c * off[:, 0] + s * off[:, 1]), c * off[:, 1] - s * off[:, 0]], -1)
    along = _LAST - _FIRST
    part = np.sum((here[:, None] - _FIRST) * along, -1) / np.sum(along**2, -1)
    nearest = _FIRST + np.clip(part, 0, 1)[..., None] * along
    distance = np.linalg.norm(here[:, None] - nearest, axis=-1).round(9)
    return np.where(distance.min(1) <= RADIUS + TOUCH, distance.argmin(1), AWAY)


def of_chunks(faces: np.ndarray, horizon: int) -> np.ndarray:
    """[T] the mode of the chunk from each step of an episode, as a number into ``MODES``.

    It is the face that is touched (``touched`` [T]) at most of the chunk's ``horizon`` steps, the
    first in ``FACES`` of equals, and ``AWAY`` ("moving around") where it touches none. Past the
    episode's end there are no steps.
    """
    steps = np.asarray(faces)[:, None] == np.arange(len(FACES))
    sums = np.concatenate([np.zeros((1, len(FACES)), int), np.cumsum(steps, 0)])
    first = np.arange(len(steps))
    counts = sums[np.minimum(first + horizon, len(steps))] - sums[first]
    return np.where(counts.any(1), counts.argmax(1), AWAY)


def of_data(directory: str | os.PathLike[str], split: str, horizon: int) -> tuple[np.ndarray, ...]:
    """(episode id, step, mode), each [N], of all chunks of a data set."""
    dataset = rlds.open_dataset(directory, split, required=("steps/observation/state",))
    columns = []
    for index in range(len(dataset)):
        modes = of_chunks(touched(dataset[index]["steps"]["observation"]["state"]), horizon)
        episode = np.full(len(modes), dataset.episode_ids[index])
        columns.append((episode, np.arange(len(modes)), modes))
    return tuple(np.concatenate(column) for column in zip(*columns, strict=True))


def bias(
    modes: np.ndarray, sigma_min: np.ndarray, sigma_max: np.ndarray, levels: Sequence[float]
) -> dict[str, np.ndarray]:
    """How the modes of the admitted chunks differ from those of all, at each of L noise levels.

    Args:
      modes: [N] of the chunks.
      sigma_min, sigma_max: [N] or scalar bounds.
      levels: [L] sigma.

    Returns:
      "data" [6] share of each mode in the data; "admitted" [L] share of chunks that are admitted;
      "shares" [L, 6] of each mode among these; "bias" [L] total variation between the two laws,
      half the sum of their absolute differences. The last two are NaN where none is admitted.
    """
    count = lambda some: np.bincount(some, minlength=len(MODES))  # noqa: E731
    data = count(modes) / len(modes)
    counts = []
    for level in levels:
        mask = np.asarray(admission.admissible(level, sigma_min, sigma_max))
        counts.append(count(modes[np.broadcast_to(mask, modes.shape)]))
    total = np.sum(counts, 1)
    shares = np.where(total[:, None] > 0, counts / np.maximum(total, 1)[:, None], np.nan)
    bias = np.abs(shares - data).sum(1) / 2
    return {"data": data, "admitted": total / len(modes), "shares": shares, "bias": bias}


def study(table: Table) -> dict[str, dict[str, np.ndarray]]:
    """``bias`` of the table's bounds, by granularity; {} if they have not been made.

    Of bounds per data set, per datapoint and per bucket of ``task.buckets``, by the classifier of
    actions, at ``evaluation.LEVELS``.
    """
    sizes = [f"{w}_{n}" for n in table.config.task.buckets for w in classifier_bounds.WAYS]
    granularities, name = ("dataset", *sizes, "datapoint"), classifier_bounds.TABLE
    split = table.config.data.sources.source.split
    return _of_bounds(table, split, [name], granularities).get(name, {})


def study_scaling(table: Table) -> dict[int, dict[int, dict[str, dict[str, np.ndarray]]]]:
    """``bias`` of the bounds of the scaling study that have been made: {target demonstrations:
    {source demonstrations: {granularity: bias}}}, per datapoint and random bucket."""
    task, by_target = table.config.task, {}
    granularities = ("datapoint", f"random_{task.bucket}")
    for source in sorted(task.sources):
        targets = {classifier_bounds.scaled(source, target): target for target in task.targets}
        split = classifier_bounds.split(source)
        for name, each in _of_bounds(table, split, targets, granularities).items():
            by_target.setdefault(targets[name], {})[source] = each
    return by_target


def _of_bounds(table, split, names, granularities):
    """{annotation: {granularity: bias}} of a split of the source, of annotations that are there."""
    folders = {n: table.annotations[n].bounds for n in names if n in table.annotations}
    if not folders:
        return {}
    data = table.config.data
    directory = pathlib.Path(expanded(data.root)) / data.sources.source.path
    episode, step, mode = of_data(directory, split, data.horizon)
    by_annotation = {}
    for name, folder in folders.items():
        for granularity in granularities:
            read = bounds.read(pathlib.Path(folder) / f"{granularity}.parquet")
            low, high = bounds.lookup(read, "source", episode, step)
            study = bias(mode, low, high, evaluation.LEVELS)
            by_annotation.setdefault(name, {})[granularity] = study
    return by_annotation


def largest(study: Mapping[str, Any]) -> tuple[float, int]:
    """The largest bias of a granularity and its level's index, where ``LEAST`` of the chunks or
    more are admitted; (0, -1) if they are so nowhere."""
    value = np.where(study["admitted"] >= LEAST, np.nan_to_num(study["bias"]), -1.0)
    index = int(np.argmax(value))
    return (float(value[index]), index) if value[index] >= 0 else (0.0, -1)
