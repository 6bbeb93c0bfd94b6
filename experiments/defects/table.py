"""The table: candidates, advice, policies and rollouts; ``run(config, workdir)``."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import logging

from ambient_jax import _checks
from ambient_jax.annotate import candidates
from experiments import checks
from experiments.defects import advice as advices
from experiments.defects import config as variants
from experiments.defects import data, report
from experiments.defects.advice import Advice
from experiments.defects.kinds import KINDS, strengths
from experiments.maze import report as maze_report
from experiments.maze import task as maze
from experiments.maze.rollout import Rollouts
from experiments.table import run as table
from experiments.table.data import build_once
from experiments.table.experiment import Experiment
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main", "alone")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a value of ``config.task`` with which the table cannot be made."""
    rules = [
        ("clean each", checks.whole(2)),
        ("goals", checks.whole(1)),
        ("data_seed eval_seed seeds together workers", checks.whole(0)),
        ("share sigma_min", checks.SHARE),
    ]
    checks.fields(config.task, rules, filled=["seeds"])
    candidates.Options(**config.task.candidates)
    strengths(config.task.strengths)
    split = config.data.sources.clean.split
    if split != f"train[:{config.task.clean}]":
        raise ValueError(
            f"config.data.sources.clean.split is {split!r}, expected the first config.task.clean "
            f"plans, 'train[:{config.task.clean}]': the others are spoilt"
        )


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets below data.root where they are absent."""
    task = config.task
    options = dict(plans=task.plans, clean=task.clean, each=task.each, seed=task.data_seed)
    options |= dict(workers=task.workers or None, strengths=task.strengths.to_dict())
    build_once("defects", lambda: data.build(config.data.root, **options))


def annotate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Any:
    """Returns {"advice": the advice about each kind}; {} with report_only where there is none."""
    given = advices.advise(config, workdir / "candidates")
    return {"advice": given} if given else {}


def rows(task: ml_collections.ConfigDict, annotations: Any) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name; see ``Experiment``."""
    given: Sequence[Advice] | None = annotations.get("advice")
    law = _law(task, given) if given else None
    by_number = law and {name: value for name, value in law.items() if name != "law.alpha"}
    half = {"law.name": "reweighted", "law.alpha": task.share}
    share = f"{task.share:g} of clean plans"
    good = {"law.name": "cotraining", **_only("none")}
    listed = {
        "clean": PolicyRow("clean plans only", "main", {"law.name": "filtering"}),
        "natural": PolicyRow("everything, by number", "main", {"law.name": "cotraining"}),
        "half": PolicyRow(f"everything, {share}", "main", half),
        "advice": PolicyRow(f"by the advice, {share}", "main", law),
        "advice_natural": PolicyRow("by the advice, by number", "main", by_number),
        "oracle": PolicyRow("clean plans and those without defect", "main", good),
    }
    for kind in task.alone:
        _checks.one_of("config.task.alone", kind, KINDS)
        alone = _only(kind)
        words = f"clean and {kind.replace('_', ' ')}"
        listed[f"alone_{kind}"] = PolicyRow(f"{words}, everywhere", "alone", half | alone)
        listed[f"advised_{kind}"] = PolicyRow(f"{words}, as advised", "alone", law and law | alone)
    return of_groups(listed, task, GROUPS)


def _only(kind: str) -> dict[str, float]:
    return {f"data.sources.{name}.weight": 0.0 for name in KINDS if name != kind}


def _law(task: Any, given: Sequence[Advice]) -> dict[str, Any]:
    law: dict[str, Any] = {"law.name": "ambient", "law.alpha": task.share}
    for one in given:
        low, high = one.bounds
        fields = {"sigma_min": low, "sigma_max": high}
        if not one.trains:  # else it would keep its part of the share that is not clean
            fields["weight"] = 0.0
        law |= {f"data.sources.{one.kind}.{name}": value for name, value in fields.items()}
    return law


EXPERIMENT = Experiment(
    get_config=variants.get_config,
    check=check,
    build=build,
    annotate=annotate,
    policies=rows,
    files=maze_report.files,
    simulator=maze.simulator,
    rollouts=Rollouts,
    report=report.write,
)


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Builds, advises, trains, rolls out and reports; the same command carries on."""
    try:
        table.run(EXPERIMENT, config, workdir)
    except candidates.Interrupted:
        logging.warning("interrupted: the same command carries on")
