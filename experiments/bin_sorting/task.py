"""Bin sorting as a task: checks its config, builds its data, rolls out its policies."""

import os
from collections.abc import Callable
from typing import Any

import ml_collections

from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.bin_sorting import data, figures, metrics
from experiments.bin_sorting.rollout import Rollouts, Simulator
from experiments.bin_sorting.scene import Scene
from experiments.table import report, rollouts
from experiments.table.data import build_once

COLUMNS = ("policy", "score", "95%", "correct logic", "95%", "completion", "95%", "episodes")


def scene_of(config: ml_collections.ConfigDict) -> Scene:
    """Returns the scene of ``config.task.scene``; raises ValueError for an unknown field."""
    return checks.scene(Scene, config.task.scene)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a wrong value of ``config.task``; ``policies.rows`` checks groups."""
    rules = [
        ("correct arbitrary opposite", checks.whole(1)),
        ("held_out seeds", checks.whole(0)),
        ("data_seed", checks.whole(0, 600)),
        ("sigma_max sigma_max_opposite sigma_min alpha chosen best", checks.SHARE),
    ]
    checks.fields(config.task, rules, filled=["seeds"])
    scene_of(config)
    checks.evaluation_seeds(config.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the absent data sets, ``bins_correct`` and others, below data.root."""
    task = config.task
    options = {n: task[n] for n in ("correct", "arbitrary", "opposite", "held_out")}
    options |= dict(seed=task.data_seed, scene=scene_of(config))
    build_once("bin sorting", lambda: data.build(config.data.root, **options))


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Rollouts]:
    """Returns ``simulate(params)``, see ``rollouts.from_seeds``; the task is the correct rule."""
    condition = {"task": data.TASK[True]}
    return rollouts.from_seeds(Simulator, policy, config, scene_of(config), condition)


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Rolls out the workdir's policy and writes table, JSON and figures to ``report/``."""
    scene = scene_of(config)

    def describe(label, simulated, summary):
        caption = (
            f"{config.task.episodes} rollouts, one training seed ({config.seed}), "
            f"{config.train.steps} steps of {config.train.batch_size}. Completion: placed blocks "
            "of all; correct logic: placed right of placed; score: placed right of all; bootstrap "
            "intervals over episodes."
        )
        film = {"rollouts": figures.filmstrip(simulated, scene)}
        return report.Description(COLUMNS, [row(label, summary)], caption, film)

    summarise = lambda r: metrics.summarise(r.placements, scene.colours)  # noqa: E731
    report.of_one_policy(config, workdir, simulator, summarise, describe)


def row(label: str, summary: metrics.Summary) -> list[str]:
    """Returns a row of the table, see ``COLUMNS``."""
    return [label, *cells(summary), str(summary.all_placed.count)]


def cells(summary: metrics.Summary) -> list[str]:
    """Returns score, logic and completion with intervals; empty if no block was placed."""
    estimates = (summary.score, summary.logic, summary.completion)
    return [c for e in estimates for c in (report.percent(e) if e.count else ["", ""])]
