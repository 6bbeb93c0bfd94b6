"""The maze as a task: checks its config, builds its data, rolls out its policies."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.data.paths import expanded
from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.maze import data, env, figures, metrics
from experiments.maze.rollout import Rollouts, Simulator
from experiments.table import report
from experiments.table.data import build_once
from experiments.table.rollouts import plan

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
    counts = {n: task.get(n, 0) for n in ("clean", "corrupt", "shortcut", "held_out")}
    build_once("maze", lambda: data.build(config.data.root, **counts, seed=task.data_seed))


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Rollouts]:
    """Returns ``simulate(params)``: one rollout for each of ``task.goals`` goals, of policies that
    differ from this one in their parameters only."""
    seed, execute = config.task.eval_seed, config.policy.execute
    goals = env.free_goals(np.random.default_rng(seed), config.task.goals)
    simulate = Simulator(plan(policy, execute), history=policy.history)
    return lambda params: simulate(params, goals, seed=seed)


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Rolls out the workdir's policy and writes table, JSON and figures to ``report/``."""
    report.of_one_policy(
        config, workdir, simulator, metrics.summarise, lambda *args: _describe(config, *args)
    )


def _describe(config, label, rollouts, summary):
    task, sources = config.task, positions(config)
    lines = [policy_cells(label, summary)]
    lines += [data_cells(f"data: {name}", paths) for name, paths in sources.items()]
    caption = (
        f"{task.goals} rollouts (goals of seed {task.eval_seed}), one training seed "
        f"({config.seed}), {config.train.steps} steps of {config.train.batch_size}. Success with "
        "Wilson's interval; jerk^2 (m^2/s^6) and accel^2 (m^2/s^4): mean over successful rollouts, "
        "bootstrap interval. Rows of data: the training episodes themselves."
    )
    drawn = {
        "rollouts": figures.rollouts_figure({label: rollouts}),
        "data": figures.sources_figure(sources),
    }
    return report.Description(COLUMNS, lines, caption, drawn)


def positions(
    config: ml_collections.ConfigDict, paths: Mapping[str, str] | None = None
) -> dict[str, list[np.ndarray]]:
    """Returns positions of the episodes of each source, or of the data sets in ``paths``."""
    root = pathlib.Path(expanded(config.data.root))
    paths = paths or {name: source.path for name, source in config.data.sources.items()}
    return {name: data.load_positions(root / path) for name, path in paths.items()}


def policy_cells(label: str, summary: metrics.Summary) -> list[str]:
    """Returns a policy's row, see ``COLUMNS``."""
    cells = [label, *report.percent(summary.success), *report.numbers(summary.jerk)]
    return [*cells, f"{summary.acceleration.value:.1f}", f"{summary.time.value:.2f}"]


def data_cells(label: str, paths: list[np.ndarray]) -> list[str]:
    """Returns the row of a data set, see ``COLUMNS``."""
    jerk, acceleration = metrics.mean_squared_jerk(paths), metrics.mean_squared_acceleration(paths)
    seconds = np.mean([env.DT * (len(path) - 1) for path in paths])
    cells = [label, "", "", *report.numbers(jerk), f"{acceleration.value:.1f}"]
    return [*cells, f"{seconds:.2f}"]
