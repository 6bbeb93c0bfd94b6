"""Writes a bounds file from the quality labels of Open-X data sets: what failed trains high noise
alone, what succeeded every level."""

from __future__ import annotations

import pathlib

import ml_collections
import numpy as np
import tqdm
from absl import logging

from ambient_jax import mixing
from ambient_jax.annotate import labels
from ambient_jax.cli import report
from ambient_jax.data import bounds
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.train import lock
from experiments import tasks

COLUMNS = ("source", "steps", "labelled", "at least", "mean sigma_min")


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Leaves ``bounds/labels.parquet``, of all corrupt sources, and ``report/`` in the workdir.

    Raises:
      ValueError: no corrupt source, or none that has the label.
    """
    task, folder = config.task, pathlib.Path(expanded(workdir))
    if build := task.get("build", ""):
        tasks.get(build).build(config)
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining(), observed=False)
    rule = {name: task[name] for name in ("threshold", "at_least", "below", "unlabelled")}
    parts, rows, labelled = [], [], 0
    corrupt = [n for n, c in zip(mixture.names, mixture.sources.clean, strict=True) if not c]
    if not corrupt:
        raise ValueError("all sources are clean: expected a corrupt one, whose labels set bounds")
    for name in corrupt:
        dataset = mixture.datasets[name]
        episode, step, label = _read(dataset, task.label, name)
        low = labels.sigma_min(label, **rule)
        how = {"label": task.label, **rule}
        parts.append(
            bounds.for_source(
                name, dataset.fingerprint, episode, step, low, method="labels", how=how
            )
        )
        there = np.isfinite(label)
        labelled += there.sum()
        share = (label[there] >= task.threshold).mean() if there.any() else np.nan
        cells = [f"{100 * there.mean():.1f}%", f"{100 * share:.1f}%" if there.any() else ""]
        rows.append([name, len(label), *cells, f"{low.mean():.3f}"])
    if not labelled:
        raise ValueError(
            f"no step of {', '.join(corrupt)} has the label {task.label!r}: see the column quality "
            "of ambient_jax/open_x/standardization.csv, or give a source of your own one"
        )
    path = bounds.write(folder / "bounds" / "labels.parquet", bounds.concatenate(parts))
    logging.info("%s: join it as config.data.bounds", path)
    caption = (
        f"sigma_min is {task.at_least:g} where {task.label} is at least {task.threshold:g}, "
        f"{task.below:g} where it is below, and {task.unlabelled:g} where there is no label."
    )
    results = {"sources": rows, "config": config.to_dict()}
    print(report.write(folder / "report", COLUMNS, rows, caption, results))


def _read(dataset, label, name):
    """Episode, step and label of every step of a source, [N] each."""
    found = []
    with tqdm.tqdm(total=len(dataset), desc=name, unit="episode") as bar:
        for shard in range(len(dataset.shard_lengths)):
            for index, episode in dataset.stream(shard):
                value = np.asarray(episode["steps"]["quality"][label], float)
                count = len(value)
                found.append((np.full(count, index), np.arange(count), value))
                bar.update()
    return [np.concatenate(column) for column in zip(*found, strict=True)]
