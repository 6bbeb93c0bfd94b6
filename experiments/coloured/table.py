"""The table: ``run(config, workdir)``."""

from __future__ import annotations

import functools
from typing import Any

import ml_collections

from ambient_jax.annotate import training
from experiments import checks
from experiments.coloured import config, judge, report
from experiments.maze import report as maze_report
from experiments.maze import task as maze
from experiments.maze.rollout import Rollouts
from experiments.table import run as table
from experiments.table.experiment import Experiment
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main",)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a value of ``config.task`` with which the table cannot be made."""
    colour = lambda c: c == "data" or isinstance(c, int | float) and -4 <= c <= 8  # noqa: E731
    rules: list[tuple[str, checks.Rule]] = [
        ("clean corrupt goals judged", checks.whole(1)),
        ("data_seed eval_seed seeds", checks.whole(0)),
        ("colours", (colour, "'data' or a number from -4 to 8")),
        ("tau", (lambda tau: 0 < tau < 0.5, "a number between 0 and 0.5")),
    ]
    checks.fields(config.task, rules, filled=["seeds", "colours"])
    training.Options(**config.task.classifier)


def rows(task: ml_collections.ConfigDict, found: Any) -> dict[str, PolicyRow]:
    """Returns ambient policies with noise of each colour, each with the sigma_min of its own
    classifier. Raises ValueError for an unknown group."""
    listed = {}
    for colour in task.colours:
        name = judge.key(colour)
        judged, label, changes = found.get(name), f"ambient, {name} noise", None
        if judged:
            label += f", sigma_min {judged.sigma_min:.3f}"
            changes = {"law.name": "ambient", "schedule.colour": judged.exponent}
            changes["data.sources.rrt.sigma_min"] = judged.sigma_min
        listed[name.replace("^", "")] = PolicyRow(label, "main", changes)
    return of_groups(listed, task, GROUPS)


EXPERIMENT = Experiment(
    get_config=config.get_config,
    check=check,
    build=maze.build,
    annotate=judge.annotate,
    policies=rows,
    files=maze_report.files,
    simulator=maze.simulator,
    rollouts=Rollouts,
    report=report.write,
)
run = functools.partial(table.run, EXPERIMENT)
