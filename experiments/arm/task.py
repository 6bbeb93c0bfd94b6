"""The arm as a task: checks its config, builds its data, rolls out its policies."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.data.paths import expanded
from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.arm import data, figures, metrics, problems, scene, timing
from experiments.arm.problems import Problem
from experiments.arm.rollout import Rollouts, Simulator
from experiments.arm.scene import Arm
from experiments.table import cache, report
from experiments.table.data import build_once

COLUMNS = ("policy", "success", "95% interval", "accel^2", "95% interval", "jerk^2", "length")
_EVALUATION = 900_000  # seeds of evaluations' problems; those of data are below


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a value of ``config.task`` with which a table cannot be made."""
    rules = [
        ("clean corrupt", checks.whole(1)),
        ("episodes", checks.whole(1, 10_000)),
        ("replan", checks.whole(2, timing.STEPS)),
        ("held_out data_seed seeds together workers", checks.whole(0)),
        ("eval_seed", checks.whole(0, 999)),
        ("sigma_min alpha best share", checks.SHARE),
    ]
    checks.fields(config.task, rules, filled=["seeds"])


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets ``arm_smooth`` and ``arm_rrt`` and the problems of the evaluation below
    data.root where they are absent."""
    task = config.task
    counts = {name: task[name] for name in ("clean", "corrupt", "held_out")}

    def make():
        data.build(config.data.root, **counts, seed=task.data_seed)
        evaluation_problems(config)

    build_once("arm", make)


def evaluation_problems(config: ml_collections.ConfigDict) -> list[Problem]:
    """Returns ``task.episodes`` problems of the seed ``task.eval_seed``, kept below data.root."""
    count, seed = config.task.episodes, config.task.eval_seed
    path = pathlib.Path(expanded(config.data.root)) / f"problems_{seed}_{count}.npz"
    about = {"ranges": scene.RANGES.tolist(), "recipe": data.RECIPE}
    arrays = cache.kept(path, about, functools.partial(_drawn, count, seed))
    columns = (arrays[name] for name in Problem._fields)
    return [Problem(*values) for values in zip(*columns, strict=True)]


def _drawn(count, seed):
    arm = Arm(clearance=problems.CLEARANCE)
    drawn = [problems.draw((_EVALUATION + seed, index), arm) for index in range(count)]
    return {name: np.array([getattr(p, name) for p in drawn]) for name in Problem._fields}


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Rollouts]:
    """Returns ``simulate(params)``: one rollout for each of the evaluation's problems, of policies
    that differ from this one in their parameters only. ``policy.execute`` is 1, open
    loop, or the steps of a plan that are executed before the next one."""
    drawn, shape = evaluation_problems(config), (timing.STEPS, scene.JOINTS)

    def plan(params, observation, keys):
        return policy.chunk(params, observation, keys).reshape(len(keys), *shape)

    execute = config.policy.execute
    simulate = Simulator(plan, None if execute == 1 else execute)
    return lambda params: simulate(params, drawn, seed=config.task.eval_seed)


def straight(config: ml_collections.ConfigDict) -> Rollouts:
    """Returns the rollouts of straight motions from start to goal, which no policy made."""

    def plan(params, observation, keys):
        start, goal = (observation[name] for name in ("start", "goal"))
        share = np.arange(1, timing.STEPS + 1, dtype=np.float32)[:, None] / timing.STEPS
        return start + share * (goal - start)

    return Simulator(plan)(None, evaluation_problems(config))


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Rolls out the workdir's policy and writes table, JSON and figures to ``report/``."""
    report.of_one_policy(
        config, workdir, simulator, metrics.summarise, lambda *args: _describe(config, *args)
    )


def _describe(config, label, rollouts, summary):
    task, sources = config.task, plans(config)
    lines = [policy_cells(label, summary)]
    lines += [data_cells(f"data: {name}", paths) for name, paths in sources.items()]
    caption = (
        f"{task.episodes} problems (of seed {task.eval_seed}), one training seed ({config.seed}), "
        f"{config.train.steps} steps of {config.train.batch_size}. Success with "
        f"Wilson's interval. {SMOOTH} Rows of data: the training plans themselves."
    )
    drawn = {"film": figures.film({label: rollouts}, evaluation_problems(config))}
    return report.Description(COLUMNS, lines, caption, drawn)


SMOOTH = (
    "Accel^2 (rad^2/s^4), jerk^2 (rad^2/s^6) and length of the path (rad): mean over successful "
    "rollouts, bootstrap interval."
)


def plans(config: ml_collections.ConfigDict) -> dict[str, list[np.ndarray]]:
    """Returns the plans [T + 1, 7] of each source."""
    root = pathlib.Path(expanded(config.data.root))
    return {name: data.load_plans(root / s.path) for name, s in config.data.sources.items()}


def policy_cells(label: str, summary: metrics.Summary) -> list[str]:
    """Returns a policy's row, see ``COLUMNS``."""
    cells = [label, *report.percent(summary.success), *report.numbers(summary.acceleration)]
    return [*cells, f"{summary.jerk.value:.4g}", f"{summary.length.value:.2f}"]


def data_cells(label: str, paths: list[np.ndarray]) -> list[str]:
    """Returns the row of a data set, see ``COLUMNS``."""
    acceleration, jerk = (metrics.smoothness(paths, order) for order in (2, 3))
    cells = [label, "", "", *report.numbers(acceleration), f"{jerk.value:.4g}"]
    return [*cells, f"{metrics.lengths(paths).value:.2f}"]
