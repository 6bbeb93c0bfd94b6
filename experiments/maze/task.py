"""The maze as a task of the trainer: builds its data, rolls out its policies, reports."""

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
from experiments.estimates import Estimate
from experiments.maze import data, env, figures, metrics
from experiments.maze.rollout import Rollouts, Simulator

COLUMNS = ("policy", "success", "95% interval", "jerk^2", "95% interval", "accel^2", "time (s)")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a value of ``config.task`` with which a table cannot be made."""
    rules = [
        ("clean corrupt goals", checks.whole(1)),
        ("shortcut few held_out data_seed eval_seed seeds together workers", checks.whole(0)),
        ("sigma_min alpha best", checks.SHARE),
    ]
    checks.fields(config.task, rules, filled=["seeds"])


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets, ``maze_gcs`` and others, below data.root where they are absent."""
    task = config.task
    if jax.process_index() == 0:
        counts = {n: task.get(n, 0) for n in ("clean", "corrupt", "shortcut", "held_out")}
        data.build(config.data.root, **counts, seed=task.data_seed)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("maze data")


def run_policy(policy: Policy, goals: np.ndarray, *, execute: int, seed: int) -> Rollouts:
    """Rolls a policy out once per goal [N, 2], all episodes at once."""
    return simulator(policy, execute)(policy.params, goals, seed=seed)


def simulator(policy: Policy, execute: int) -> Simulator:
    """Rollouts of policies that differ from this one in their parameters only."""
    plan = lambda params, observation, keys: policy.chunk(params, observation, keys)[:, :execute]  # noqa: E731
    return Simulator(plan, history=policy.history)


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Rolls out the workdir's policy and leaves table, JSON and figures in ``report/``."""
    if jax.process_index() != 0:
        return
    workdir, task = pathlib.Path(expanded(workdir)), config.task
    options = {name: config.policy[name] for name in ("solver", "steps", "clip")}
    policy = Policy.from_checkpoint(workdir, **options)
    goals = env.free_goals(np.random.default_rng(task.eval_seed), task.goals)
    begin = time.perf_counter()
    rollouts = run_policy(policy, goals, execute=config.policy.execute, seed=task.eval_seed)
    logging.info("%d rollouts in %.1f s", len(goals), time.perf_counter() - begin)

    label = f"{config.law.name}, {config.policy.solver} {config.policy.steps} steps"
    summary = metrics.summarise(rollouts)
    rows = [policy_row(label, summary)]
    root = pathlib.Path(expanded(config.data.root))
    sources = {n: data.load_positions(root / s.path) for n, s in config.data.sources.items()}
    rows += [data_row(f"data: {name}", paths) for name, paths in sources.items()]
    caption = (
        f"{task.goals} rollouts (goals of seed {task.eval_seed}), one training seed "
        f"({config.seed}), {config.train.steps} steps of {config.train.batch_size}. Success with "
        "Wilson's interval; jerk^2 (m^2/s^6) and accel^2 (m^2/s^4): mean over successful rollouts, "
        "bootstrap interval. Rows of data: the training episodes themselves."
    )
    results = {"policy": label, "summary": report.plain(summary), "config": config.to_dict()}
    table = report.write(workdir / "report", COLUMNS, rows, caption, results)
    figures.save(figures.rollouts_figure({label: rollouts}), workdir / "report" / "rollouts.png")
    figures.save(figures.sources_figure(sources), workdir / "report" / "data.png")
    history = train_metrics.read(workdir / "metrics.jsonl")
    figures.save(report.loss_figure(history), workdir / "report" / "loss.png")
    print(table)


def policy_row(label: str, summary: metrics.Summary) -> list[str]:
    success = summary.success
    return [
        label,
        f"{100 * success.value:.1f}%",
        f"{100 * success.low:.1f} to {100 * success.high:.1f}",
        *_numbers(summary.jerk),
        f"{summary.acceleration.value:.1f}",
        f"{summary.time.value:.2f}",
    ]


def data_row(label: str, paths: list[np.ndarray]) -> list[str]:
    seconds = np.mean([env.DT * (len(path) - 1) for path in paths])
    accel = metrics.mean_squared_acceleration(paths).value
    return [
        label,
        "",
        "",
        *_numbers(metrics.mean_squared_jerk(paths)),
        f"{accel:.1f}",
        f"{seconds:.2f}",
    ]


def _numbers(estimate: Estimate) -> list[str]:
    return [f"{estimate.value:.4g}", f"{estimate.low:.4g} to {estimate.high:.4g}"]
