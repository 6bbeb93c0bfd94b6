"""From a mixture to the bounds of its corrupt sources, as a library call.

from ambient_jax import annotate

annotations = annotate.annotate(config.data, annotate.Options(granularity=("dataset",)))
paths = annotations.write("runs/my_bounds")
"""

from __future__ import annotations

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
    """Bounds of every step of the corrupt sources, and what they were made from.

    Attributes:
      bounds: by granularity.
      sigma_min: [U] of the units of each source: {granularity: {source: array}}.
      sigma_max: by source; 0 where neither locality nor mismatch was asked for.
      evidence: sources, classifier, levels and curves.
      locality, mismatch: see ``findings``; None where they were not asked for.
    """

    bounds: dict[str, bounds.BoundsTable]
    sigma_min: dict[str, dict[str, np.ndarray]]
    sigma_max: dict[str, float]
    evidence: Evidence
    locality: dict[str, Any] | None
    mismatch: dict[str, Any] | None

    def write(self, folder: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
        """Writes ``<granularity>.parquet`` for each; returns the paths by granularity."""
        name = lambda granularity: f"{granularity.replace(':', '_')}.parquet"  # noqa: E731
        return {g: bounds.write(pathlib.Path(folder) / name(g), b) for g, b in self.bounds.items()}


def annotate(
    data: ml_collections.ConfigDict | mixtures.Mixture,
    options: Options = Options(),  # noqa: B008 (frozen)
    *,
    schedule: schedules.Schedule | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Annotations:
    """Decides which noise levels the steps of each corrupt source may train.

    Args:
      data: the data section of a config, see ``mixture.open_mixture``, or an opened mixture; with
        at least one clean and one corrupt source, and without bounds files.
      options: see ``Options``.
      schedule: its training law draws the classifier's noise levels; default
        ``options.SCHEDULE``.
      seed: of folds, initial parameters, draws and buckets.
      progress: show progress bars.

    Raises:
      ValueError: data that cannot be annotated, named by source.
    """
    schedule = schedule or schedules.get(**SCHEDULE)
    mixture = evidence_lib.open_standing_still(data, options.observed)
    evidence = evidence_lib.gather(
        mixture, options, schedule=schedule, seed=seed, progress=progress
    )
    locality = findings.locality(evidence) if options.crops else None
    mismatch = findings.mismatch(evidence) if options.mismatch else None
    sigma_max = dict.fromkeys(evidence.corrupt, 0.0)
    sigma_max |= (mismatch or locality or {}).get("sigma_max", {})
    files: dict[str, bounds.BoundsTable] = {}
    sigma_min: dict[str, dict[str, np.ndarray]] = {}
    for granularity in options.granularity:
        parts, sigma_min[granularity] = [], {}
        for name in evidence.corrupt:
            low, part = _decide(evidence, name, granularity, sigma_max[name])
            sigma_min[granularity][name] = low
            parts.append(part)
        files[granularity] = bounds.concatenate(parts)
    return Annotations(files, sigma_min, sigma_max, evidence, locality, mismatch)


def _decide(evidence, name, granularity, sigma_max):
    """sigma_min of each unit [U] of a corrupt source, and the bounds of its steps."""
    options, own, curve = evidence.options, evidence.steps(name), evidence.curves[name]
    way, _, size = granularity.partition(":")
    episode = evidence.data.episode[own]
    unit = buckets.assign(
        way,
        episode,
        size=int(size) if size else options.bucket,
        seed=evidence.seed,
        scores=evidence.sigma_min(curve) if way == "ordered" else None,
    )
    mean = np.clip(buckets.average(curve, unit[evidence.judged[name] - own[0]]), 0, 1)
    low = thresholds.round_up(evidence.sigma_min(mean), evidence_lib.grid(options.distinct))
    logging.info("%s, %s: sigma_min %.3f", name, granularity, low.mean())
    if np.all(low >= 1):
        logging.warning(
            "%s looks corrupt at every noise level (%s): nothing of it will be trained on",
            *(name, granularity),
        )
    of_step = buckets.spread(low, unit)
    how = {"granularity": granularity, "levels": evidence.levels.tolist()}
    part = bounds.for_source(
        name,
        evidence.mixture.datasets[name].fingerprint,
        episode,
        own - evidence.data.start[own],
        of_step,
        # What looks clean at every level is admitted everywhere.
        np.where(of_step <= 0, 1.0, np.minimum(sigma_max, of_step)),
        method="classifier",
        how=how | {"options": dataclasses.asdict(options)},
    )
    return low, part
