"""Runs the study: for each point candidates, the choice, the judged policies and rollouts."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax.annotate import candidates, choice
from ambient_jax.annotate.candidates import Candidate
from ambient_jax.data.paths import expanded
from ambient_jax.train import lock
from experiments import checks
from experiments.table import rollouts
from experiments.table import run as tables
from experiments.table.experiment import Table
from experiments.table.policies import PolicyRow
from experiments.which_data import config as variants
from experiments.which_data import report as reports
from experiments.which_data import samples
from experiments.which_data.judged import BEST, CHOSEN, CLEAN, Judged, describe, share_name
from experiments.which_data.points import TASKS, Point, config_of, of_point


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Judges each point of ``config.task.points`` and writes ``report/``; the same command carries
    on. With ``task.report_only`` it only reads what is there."""
    task, folder = config.task, pathlib.Path(expanded(workdir))
    checks.same_task(task, variants.get_config().task)
    points = [Point.parse(text) for text in task.points]
    judged = []
    for point in points:
        where = folder / point.name
        with contextlib.nullcontext() if task.report_only else lock.hold(where):
            try:
                done = _judge(point, config, where)
            except candidates.Interrupted:
                done = None
        if done is None and task.report_only:
            logging.warning("%s is left out: it has not been judged by these options", point.name)
            continue
        if done is None:
            logging.warning("interrupted: the same command carries on")
            return
        judged.append(done)
    if not judged:
        raise ValueError(f"{folder} has no judged point, expected one of {', '.join(task.points)}")
    print(reports.write(judged, config, folder / "report"))


def tried(task: ml_collections.ConfigDict) -> list[Candidate]:
    """Returns the candidates of the study."""
    shares = [Candidate(share or None) for share in task.shares]
    last = shares[-1].alpha
    return [Candidate(1.0), *shares, *(Candidate(last, level) for level in task.sigma_min)]


def _judge(point, study, folder):
    config, task = config_of(point, study), TASKS[point.task]
    task.experiment.check(config)
    if not study.task.report_only:
        task.experiment.build(config)
    options = candidates.Options(**study.task.candidates)
    find = candidates.read if study.task.report_only else candidates.measure
    measured = find(config, tried(study.task), options, folder / "candidates")
    if measured is None:
        return None
    shares = [c for c in measured.candidates if not c.sigma_min]
    sampled = samples.scored(config, shares, options, folder / "candidates")
    if sampled is None:
        return None
    chosen = choice.choose(measured, **study.task.rule)
    logging.info("%s: %s", point.name, describe(chosen))
    experiment = of_point(point, rows)
    annotations: Any = {"rows": _rows(point, study.task, chosen, config.task.groups[0])}
    table = Table(experiment, config, folder, annotations)
    if not tables.train_and_evaluate(table):
        return None
    by_policy = rollouts.collect(table)
    success = {
        name: np.mean([np.asarray(task.success(r), float) for r in seeds.values()], axis=0)
        for name, seeds in by_policy.items()
    }
    jerk = _jerk(by_policy) if point.task == "maze" else {}
    return Judged(point, measured, sampled, chosen, success, jerk)


def rows(task: ml_collections.ConfigDict, annotations: Mapping[str, Any]) -> dict[str, PolicyRow]:
    """Returns the policies that ``_judge`` has put among the annotations."""
    return annotations.get("rows", {})


def _rows(point, task, chosen, group):
    source = TASKS[point.task].corrupt
    changes = {CHOSEN: chosen.changes([source])}
    if task.baselines:
        changes |= {CLEAN: {"law.name": "filtering"}}
        for share in task.shares:
            changes[share_name(share)] = (
                {"law.name": "reweighted", "law.alpha": share}
                if share
                else {"law.name": "cotraining"}
            )
    if best := task.best.get(point.task):
        low, high, alpha = best
        bounds = {"sigma_min": low, "sigma_max": high}
        changes[BEST] = {"law.name": "ambient"} | ({"law.alpha": alpha} if alpha else {})
        changes[BEST] |= {f"data.sources.{source}.{n}": v for n, v in bounds.items()}
    return {name: PolicyRow(name, group, values) for name, values in changes.items()}


def _jerk(by_policy):
    from experiments.maze import metrics

    pooled = {name: rollouts.pool(seeds.values()) for name, seeds in by_policy.items()}
    return {name: metrics.summarise(r).jerk for name, r in pooled.items()}
