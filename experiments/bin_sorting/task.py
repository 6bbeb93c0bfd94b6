"""Bin sorting as a task of the trainer: builds its data, rolls out its policies, reports."""

from __future__ import annotations

import os
import pathlib
import time

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from ambient_jax.cli import report
from ambient_jax.data.paths import expanded
from ambient_jax.policy.policy import Policy
from ambient_jax.train import metrics as train_metrics
from experiments import checks
from experiments.bin_sorting import data, figures, metrics
from experiments.bin_sorting.rollout import Simulator
from experiments.bin_sorting.scene import Scene

COLUMNS = ("policy", "score", "95%", "correct logic", "95%", "completion", "95%", "episodes")


def scene_of(config: ml_collections.ConfigDict) -> Scene:
    """The scene of ``config.task.scene``; raises ValueError for a field that no scene has."""
    return checks.scene(Scene, config.task.scene)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a value of ``config.task`` with which data or policies cannot be made.
    Groups are checked where they are looked up, see ``policies.entries``."""
    rules = [
        ("correct arbitrary opposite", checks.whole(1)),
        ("held_out seeds", checks.whole(0)),
        ("data_seed", checks.whole(0, 600)),
        ("sigma_max sigma_max_opposite sigma_min alpha chosen best", checks.SHARE),
    ]
    checks.fields(config.task, rules, filled=["seeds"])
    scene_of(config)
    scenes(config.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets, ``bins_correct`` and others, below data.root where they are absent."""
    task = config.task
    if jax.process_index() == 0:
        counts = {n: task[n] for n in ("correct", "arbitrary", "opposite", "held_out")}
        data.build(config.data.root, **counts, seed=task.data_seed, scene=scene_of(config))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("bin sorting data")


def scenes(task: ml_collections.ConfigDict) -> np.ndarray:
    """[N] seeds of the scenes that every policy is tested in, see ``checks.evaluation_seeds``."""
    return checks.evaluation_seeds(task)


def simulator(policy: Policy, execute: int, scene: Scene) -> Simulator:
    """Rollouts of policies that differ from this one in their parameters only."""
    plan = lambda params, observation, keys: policy.chunk(params, observation, keys)[:, :execute]  # noqa: E731
    return Simulator(plan, history=policy.history, scene=scene)


def constant(policy: Policy) -> dict[str, np.ndarray]:
    """What a policy is told beside the state: a task-conditioned one that the rule is correct."""
    return {"task": data.TASK[True]} if "task" in policy.dims else {}


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Rolls out the workdir's policy and leaves table, JSON and figures in ``report/``."""
    if jax.process_index() != 0:
        return
    workdir, task, scene = pathlib.Path(expanded(workdir)), config.task, scene_of(config)
    options = {name: config.policy[name] for name in ("solver", "steps", "clip")}
    policy = Policy.from_checkpoint(workdir, **options)
    begin = time.perf_counter()
    simulate = simulator(policy, config.policy.execute, scene)
    rollouts = simulate(policy.params, scenes(task), constant=constant(policy), seed=task.eval_seed)
    seconds = time.perf_counter() - begin
    steps = int(rollouts.lengths.sum())
    logging.info("%d rollouts, %d steps in %.1f s", task.episodes, steps, seconds)
    summary = metrics.summarise(rollouts.placements, scene.colours)
    label = f"{config.law.name}, {config.policy.solver} {config.policy.steps} steps"
    caption = (
        f"{task.episodes} rollouts, one training seed ({config.seed}), {config.train.steps} steps "
        f"of {config.train.batch_size}. Completion: placed blocks of all; correct logic: placed "
        "right of placed; score: placed right of all; bootstrap intervals over episodes."
    )
    results = {"policy": label, "summary": report.plain(summary), "config": config.to_dict()}
    folder = workdir / "report"
    table = report.write(folder, COLUMNS, [row(label, summary)], caption, results)
    figures.filmstrip(rollouts, scene).savefig(folder / "rollouts.png", dpi=120)
    history = train_metrics.read(workdir / "metrics.jsonl")
    report.loss_figure(history).savefig(folder / "loss.png", dpi=160)
    print(table)


def row(label: str, summary: metrics.Summary) -> list[str]:
    """A row of the table, see ``COLUMNS``."""
    cells = [label]
    for estimate in (summary.score, summary.logic, summary.completion):
        low, high = 100 * estimate.low, 100 * estimate.high
        found = [f"{100 * estimate.value:.1f}%", f"{low:.1f} to {high:.1f}"]
        cells += found if estimate.count else ["", ""]  # no block placed: no logic
    return [*cells, str(summary.all_placed.count)]
