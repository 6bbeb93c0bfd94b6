"""Computes the bounds of the corrupt sources of a mixture, as a library call.

from ambient_jax import annotate

annotations = annotate.annotate(config.data, annotate.Options(granularity=("dataset",)))
paths = annotations.write("runs/my_bounds")
"""

import dataclasses
import os
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import schedules
from ambient_jax.annotate import buckets, findings, thresholds
from ambient_jax.annotate import evidence as evidence_lib
from ambient_jax.annotate.evidence import Evidence
from ambient_jax.annotate.options import SCHEDULE, Options
from ambient_jax.data import bounds
from ambient_jax.data import mixture as mixtures


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """Bounds of every step of the corrupt sources, and their evidence.

    Attributes:
      bounds: {granularity: table}.
      sigma_min: {granularity: {source: [U] of its units}}.
      sigma_max: {source: level}; 0 without locality and mismatch.
      evidence: sources, classifier, levels and curves.
      locality, mismatch: see ``findings``; None where the options leave them out.
    """

    bounds: dict[str, bounds.BoundsTable]
    sigma_min: dict[str, dict[str, np.ndarray]]
    sigma_max: dict[str, float]
    evidence: Evidence
    locality: dict[str, Any] | None
    mismatch: dict[str, Any] | None

    def write(self, folder: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
        """Writes ``<granularity>.parquet`` for each; returns the paths by granularity."""
        paths = {g: pathlib.Path(folder) / f"{g.replace(':', '_')}.parquet" for g in self.bounds}
        return {g: bounds.write(path, self.bounds[g]) for g, path in paths.items()}


def annotate(
    data: ml_collections.ConfigDict | mixtures.Mixture,
    options: Options = Options(),  # noqa: B008 (frozen)
    *,
    schedule: schedules.Schedule | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Annotations:
    """Computes the bounds on the noise level of each step of every corrupt source.

    Args:
      data: the data section of a config, or an open mixture. It needs at least one clean and one
        corrupt source, and no bounds files.
      options: see ``Options``.
      schedule: its training law draws the classifier's noise levels; default
        ``options.SCHEDULE``.
      seed: seeds folds, initial parameters, the training's draws and buckets; the noise with which
        chunks are judged is the same for every seed.
      progress: show progress bars.

    Raises:
      ValueError: the data cannot be annotated; the message names the source.
    """
    mixture = evidence_lib.open_standing_still(data, options.observed)
    how: Any = dict(schedule=schedule or schedules.get(**SCHEDULE), seed=seed, progress=progress)
    evidence = evidence_lib.gather(mixture, options, **how)
    locality = findings.locality(evidence) if options.crops else None
    mismatch = findings.mismatch(evidence) if options.mismatch else None
    sigma_max = dict.fromkeys(evidence.corrupt, 0.0)
    sigma_max |= (mismatch or locality or {}).get("sigma_max", {})
    tables, sigma_min = {}, {}
    for granularity in options.granularity:
        decided = {n: decide(evidence, n, granularity, sigma_max[n]) for n in evidence.corrupt}
        sigma_min[granularity] = {name: low for name, (low, _) in decided.items()}
        tables[granularity] = bounds.concatenate([part for _, part in decided.values()])
    return Annotations(tables, sigma_min, sigma_max, evidence, locality, mismatch)


def decide(evidence, name, granularity, sigma_max):
    """Returns sigma_min [U] of the units of a corrupt source, and the bounds of its steps."""
    options, rows, curve = evidence.options, evidence.steps(name), evidence.curves[name]
    rule, _, size = granularity.partition(":")
    episode, step = evidence.data.episode[rows], rows - evidence.data.start[rows]
    scores = evidence.sigma_min(curve) if rule == "ordered" else None
    size = int(size) if size else options.bucket
    unit = buckets.assign(rule, episode, size=size, seed=evidence.seed, scores=scores)
    mean = np.clip(buckets.average(curve, unit[evidence.judged[name] - rows[0]]), 0, 1)
    lot = buckets.lots(name, episode, step, evidence.seed) if rule == "rejection" else None
    low = thresholds.round_up(evidence.sigma_min(mean, lot), evidence_lib.grid(options.distinct))
    logging.info("%s, %s: sigma_min %.3f", name, granularity, low.mean())
    if np.all(low >= 1):
        logging.warning(
            "%s looks corrupt at every noise level (%s): nothing of it will be trained on",
            *(name, granularity),
        )
    step_low = buckets.spread(low, unit)
    # A step that looks clean at every level is admitted at every level.
    step_high = np.where(step_low <= 0, 1.0, np.minimum(sigma_max, step_low))
    dataset = evidence.mixture.datasets[name]
    how = {"granularity": granularity, "levels": evidence.levels.tolist()}
    how |= {"options": dataclasses.asdict(options)}
    columns = name, dataset.fingerprint, episode, step, step_low, step_high
    return low, bounds.for_source(*columns, method="classifier", how=how)
