"""Trains the noise classifier, judges every corrupt chunk, writes bounds files and a report."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import mixing, schedules
from ambient_jax.analysis import divergence
from ambient_jax.annotate import classifier, thresholds, units
from ambient_jax.data import bounds, device, sources
from ambient_jax.train import trainer
from experiments import report, tasks
from experiments.annotate import figures

COLUMNS = ("source", "granularity", "units", "sigma_min", "10% to 90%", "unusable")


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Leaves ``bounds/<granularity>.parquet`` and ``report/`` in the workdir."""
    task, folder = config.task, pathlib.Path(workdir)
    if build := task.get("build", ""):
        tasks.get(build).build(config)
    schedule = trainer.build(schedules, config.schedule)
    prepared = sources.prepare(config.data, mixing.CoTraining())
    data = device.load_device_data(prepared)
    options = classifier.Options(
        history=config.data.history,
        horizon=config.data.horizon,
        observed=task.observed,
        folds=task.folds,
        steps=task.steps,
        batch_size=task.batch_size,
    )
    fitted = classifier.fit(data, options, schedule=schedule, seed=config.seed)
    levels = grid(task.levels)
    begin = time.perf_counter()
    curves = judge(config, prepared, data, fitted, levels)
    seconds = time.perf_counter() - begin
    count = sum(len(c) for c in curves.values()) * task.levels * task.draws
    rate = count / seconds
    logging.info("%d chunks x levels x draws in %.0f s: %.0f a second", count, seconds, rate)
    contraction = compare(config, prepared, data, fitted, levels)
    rows, found, bounds_of = [], {}, {}
    for granularity in task.granularity:
        parts = []
        for name, c in curves.items():
            low, made = decide(config, prepared, data, name, c, levels, granularity)
            parts.append(made)
            found[f"{name}, {granularity}"] = low
            rows.append([name, granularity, *_cells(low)])
            bounds_of.setdefault(name, {})[granularity] = np.asarray(made.sigma_min)
        path = bounds.write(folder / "bounds" / f"{granularity}.parquet", bounds.concatenate(parts))
        logging.info("%s: join it as config.data.sources.<name>.bounds", path)
    caption = (
        f"sigma_min: where P(clean), averaged over the unit and {task.draws} noise draws, passes "
        f"{0.5 - task.tau:g} (rule {task.rule}), rounded up to one of {task.levels} levels; mean, "
        "and quantiles of the units."
    )
    results = {
        "sigma_min": {name: _quantiles(low) for name, low in found.items()},
        "curves": {name: c.mean(0) for name, c in curves.items()},
        "levels": levels,
        "total variation": contraction,
        "classifier": fitted.history,
        "temperature": fitted.temperature,
        "evaluations a second": rate,
        "config": config.to_dict(),
    }
    table = report.write(folder / "report", COLUMNS, rows, caption, results)
    figures.write(folder / "report", task, data, prepared, curves, levels, contraction, bounds_of)
    print(table)


def grid(count: int) -> np.ndarray:
    """Noise levels sigma, equidistant in log(sigma / alpha) from 0.004 to 16."""
    s = np.geomspace(0.004, 16, count)
    return s / np.hypot(1, s)


def judge(
    config: ml_collections.ConfigDict,
    prepared: sources.Prepared,
    data: device.DeviceData,
    fitted: classifier.Fitted,
    levels: np.ndarray,
) -> dict[str, np.ndarray]:
    """c [N, L] of every step of each corrupt source, by name."""
    return {
        name: classifier.probabilities(
            fitted, data, steps_of(data, k), levels, draws=config.task.draws, progress=True
        )
        for k, name in enumerate(prepared.names)
        if not prepared.sources.clean[k]
    }


def steps_of(data: device.DeviceData, k: int) -> np.ndarray:
    """Positions of the steps of source k."""
    return np.arange(data.offset[k], data.offset[k] + data.size[k])


def compare(
    config: ml_collections.ConfigDict,
    prepared: sources.Prepared,
    data: device.DeviceData,
    fitted: classifier.Fitted,
    levels: np.ndarray,
) -> dict[str, Any]:
    """Total variation of each corrupt source from the clean ones at each level, held out."""
    rng = np.random.default_rng(config.seed)
    clean = np.concatenate(
        [steps_of(data, k) for k, is_clean in enumerate(prepared.sources.clean) if is_clean]
    )

    def decisions(positions):
        some = rng.permutation(positions)[: config.task.compared]
        return classifier.probabilities(
            fitted, data, some, levels, draws=1, decisions=True, seed=config.seed + 1
        )

    first = decisions(clean)

    def estimate(second):
        pairs = zip(first.T, second.T, strict=True)
        columns = np.array([divergence.from_probabilities(*pair) for pair in pairs]).T
        return dict(zip(("value", "low", "high"), columns, strict=True))

    return {
        name: estimate(decisions(steps_of(data, k)))
        for k, name in enumerate(prepared.names)
        if not prepared.sources.clean[k]
    }


def decide(
    config: ml_collections.ConfigDict,
    prepared: sources.Prepared,
    data: device.DeviceData,
    name: str,
    c: np.ndarray,
    levels: np.ndarray,
    granularity: str,
) -> tuple[np.ndarray, bounds.Bounds]:
    """sigma_min of each unit [U] of a source, and the bounds of its steps."""
    task, own = config.task, steps_of(data, prepared.names.index(name))
    rule = dict(tau=task.tau, rule=task.rule)
    scores = thresholds.sigma_min(levels, c, **rule) if granularity == "ordered" else None
    unit = units.assign(
        granularity, data.episode[own], size=task.bucket, seed=config.seed, scores=scores
    )
    mean = np.clip(units.average(c, unit), 0, 1)
    low = thresholds.round_up(thresholds.sigma_min(levels, mean, **rule), levels)
    each = units.spread(low, unit)
    made = bounds.for_source(
        name,
        prepared.datasets[name].fingerprint,
        data.episode[own],
        own - data.start[own],
        each,
        # Looks clean at every level: admitted everywhere. Never does: nowhere.
        np.where(each <= 0, 1.0, 0.0),
        method="classifier",
        how={"granularity": granularity, "levels": levels.tolist(), "config": task.to_dict()},
    )
    return low, made


def _quantiles(low):
    return {"mean": low.mean(), "quantiles": np.quantile(low, [0.1, 0.5, 0.9]), "units": len(low)}


def _cells(low):
    first, _, last = np.quantile(low, [0.1, 0.5, 0.9])
    share = f"{np.mean(low >= 1):.1%}"
    return [str(len(low)), f"{low.mean():.3f}", f"{first:.3f} to {last:.3f}", share]
