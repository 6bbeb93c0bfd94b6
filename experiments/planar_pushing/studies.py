"""Studies the bias of bounds towards behaviour modes, and the drift of policies to the source.

Bounds per datapoint admit at low noise levels the chunks that look most like the target's. Bias
compares the share of each mode among the admitted chunks with its share among all. Drift compares
policies' losses on held-out target demonstrations with those of source only.
"""

import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from ambient_jax import admission
from ambient_jax.data import bounds, rlds
from ambient_jax.data.paths import expanded
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import classifier_bounds, policies
from experiments.planar_pushing.scene import HALF_OUTLINE, RADIUS
from experiments.table import rollouts
from experiments.table.experiment import Table

FACES = ("bar top", "bar ends", "waist", "stem sides", "tail")
MODES = (*FACES, "moving around")
AWAY = len(FACES)
TOUCH = 0.001  # m between pusher and slider that still count as touching
LEAST = 0.01  # least share of chunks that a level must admit for a study of modes
SAMPLES = 2048  # chunks of held-out demonstrations
_HIGHEST = 0.95  # highest level; above it a chunk is noise, and its loss that of the mean
# Ends of each face on the side x >= 0.
_FIRST, _LAST = np.array(HALF_OUTLINE[:-1]), np.array(HALF_OUTLINE[1:])


def touched(states: np.ndarray) -> np.ndarray:
    """Returns the index [M] in ``FACES`` that the pusher touches in states [M, 12], or ``AWAY``.

    It is the face nearest to the pusher's centre, if it is at most the radius plus ``TOUCH`` away;
    of equals the first.
    """
    states = np.asarray(states, float)
    off, (c, s) = states[:, :2] - states[:, 2:4], states[:, 4:6].T
    pusher = np.stack([np.abs(c * off[:, 0] + s * off[:, 1]), c * off[:, 1] - s * off[:, 0]], -1)
    along = _LAST - _FIRST
    part = np.sum((pusher[:, None] - _FIRST) * along, -1) / np.sum(along**2, -1)
    nearest = _FIRST + np.clip(part, 0, 1)[..., None] * along
    distance = np.linalg.norm(pusher[:, None] - nearest, axis=-1).round(9)
    return np.where(distance.min(1) <= RADIUS + TOUCH, distance.argmin(1), AWAY)


def of_chunks(faces: np.ndarray, horizon: int) -> np.ndarray:
    """Returns the index [T] in ``MODES`` of the chunk from each step of an episode. It is the most
    frequent face (``touched`` [T]) of its ``horizon`` steps, or ``AWAY``."""
    steps = np.asarray(faces)[:, None] == np.arange(len(FACES))
    sums = np.concatenate([np.zeros((1, len(FACES)), int), np.cumsum(steps, 0)])
    first = np.arange(len(steps))
    counts = sums[np.minimum(first + horizon, len(steps))] - sums[first]
    return np.where(counts.any(1), counts.argmax(1), AWAY)


def of_data(directory: str | os.PathLike[str], split: str, horizon: int) -> tuple[np.ndarray, ...]:
    """Returns (episode id, step, mode), [N] each, of all chunks of a data set."""
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
    """Compares the modes [N] of the admitted chunks with those of all, at noise levels [L].

    Returns:
      "data" [6], the share of each mode in the data; "admitted" [L], the share of admitted chunks;
      "shares" [L, 6] of each mode among these; "bias" [L], the total variation of the two, half the
      sum of absolute differences. The last two are NaN where no chunk is admitted.
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


def bias_of_table(table: Table) -> dict[str, dict[str, np.ndarray]]:
    """Returns ``bias`` of the bounds by the classifier of actions, by granularity; {} for none."""
    sizes = [f"{w}_{n}" for n in table.config.task.buckets for w in classifier_bounds.WAYS]
    granularities, name = ("dataset", *sizes, "datapoint"), classifier_bounds.TABLE
    split = table.config.data.sources.source.split
    return _of_bounds(table, split, [name], granularities).get(name, {})


def bias_of_scaling(table: Table) -> dict[int, dict[int, dict[str, dict[str, np.ndarray]]]]:
    """Returns ``bias`` of the scaling study's bounds, per datapoint and random bucket. {target
    demonstrations: {source demonstrations: {granularity: bias}}}."""
    task, by_target = table.config.task, {}
    granularities = ("datapoint", f"random_{task.bucket}")
    for source in sorted(task.sources):
        targets = {classifier_bounds.scaled(source, target): target for target in task.targets}
        split = classifier_bounds.split(source)
        for name, study in _of_bounds(table, split, targets, granularities).items():
            by_target.setdefault(targets[name], {})[source] = study
    return by_target


def _of_bounds(table, split, names, granularities):
    """Returns {annotation: {granularity: bias}} of a split of the source."""
    folders = {n: table.annotations[n].bounds for n in names if n in table.annotations}
    if not folders:
        return {}
    data = table.config.data
    directory = pathlib.Path(expanded(data.root)) / data.sources.source.path
    episode, step, mode = of_data(directory, split, data.horizon)
    by_annotation = {}
    for name, folder in folders.items():
        for granularity in granularities:
            file = bounds.read(pathlib.Path(folder) / f"{granularity}.parquet")
            low, high = bounds.lookup(file, "source", episode, step)
            study = bias(mode, low, high, evaluation.LEVELS)
            by_annotation.setdefault(name, {})[granularity] = study
    return by_annotation


def largest(study: Mapping[str, Any]) -> tuple[float, int]:
    """Returns the largest bias and its level's index; (0, -1) if all levels admit too few."""
    value = np.where(study["admitted"] >= LEAST, np.nan_to_num(study["bias"]), -1.0)
    index = int(np.argmax(value))
    return (float(value[index]), index) if value[index] >= 0 else (0.0, -1)


def drift_losses(table: Table, names: list[str]) -> dict[str, np.ndarray]:
    """Returns ``rollouts.held_out_losses`` of policies on ``SAMPLES`` target chunks, all seeds.

    Success of 200 episodes has an interval of +-6 points. The loss is far more precise: at levels
    where a policy learns only from the source, it equals that of source only.
    """
    seeds = table.config.task.seeds
    return rollouts.held_out_losses(table, "push_target_held_out", names, seeds, samples=SAMPLES)


def drifts(
    task: ml_collections.ConfigDict, losses: Mapping[str, np.ndarray]
) -> dict[int, dict[str, dict[int, float]]]:
    """Returns ratios of a policy's loss to that of the same source data only; 1 is full drift.

    {target demonstrations: {method: {source demonstrations: ratio}}}: geometric means over the
    levels from ``task.best`` to 0.95 of the ratio of means over seeds.
    """
    levels = np.array(evaluation.LEVELS)
    some = (levels > task.best) & (levels < _HIGHEST)
    ratios: dict[int, dict[str, dict[int, float]]] = {}
    for target, method, source in itertools.product(task.targets, task.methods, task.sources):
        name, alone = policies.scaling(method, source, target), policies.source_only(source)
        if {name, alone} <= losses.keys():
            by_source = ratios.setdefault(target, {}).setdefault(method, {})
            ratio = losses[name].mean(0) / losses[alone].mean(0)
            by_source[source] = float(np.exp(np.mean(np.log(ratio)[some])))
    return ratios
