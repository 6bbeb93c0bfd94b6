"""Planar pushing as a task of the trainer: builds its data, rolls out its policies, reports."""

from __future__ import annotations

import math
import os
import pathlib
import time

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from ambient_jax.policy.policy import Policy
from ambient_jax.train import metrics as train_metrics
from experiments import report
from experiments.planar_pushing import data, figures, metrics
from experiments.planar_pushing.rollout import Simulator
from experiments.planar_pushing.scene import DT, TARGET, Physics, Scene

COLUMNS = (
    *("policy", "success", "95%", "final distance, mm", "final angle, degrees"),
    *("seconds of successes", "episodes"),
)
_EVALUATION = 700_000  # starts to test on; those of demonstrations begin at 1 000 000


def scene_of(config: ml_collections.ConfigDict) -> Scene:
    """The scene of ``config.task.scene``, whose fields are changes of the default."""
    return Scene(**config.task.scene.to_dict())


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets, ``push_target`` and others, below data.root where they are absent."""
    task = config.task
    if jax.process_index() == 0:
        counts = {name: task[name] for name in ("target", "source", "held_out")}
        made = dict(gap=task.gap, knobs=tuple(task.knobs), seed=task.data_seed)
        data.build(config.data.root, **counts, **made, scene=scene_of(config))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("planar pushing data")


def starts(task: ml_collections.ConfigDict) -> np.ndarray:
    """[N] seeds of the starts that every policy is tested from."""
    return _EVALUATION + 1000 * task.eval_seed + np.arange(task.episodes)


def simulator(policy: Policy, execute: int, scene: Scene, physics: Physics = TARGET) -> Simulator:
    """Rollouts of policies that differ from this one in their parameters only."""
    plan = lambda params, observation, keys: policy.chunk(params, observation, keys)[:, :execute]  # noqa: E731
    return Simulator(plan, history=policy.history, scene=scene, physics=physics)


def constant(policy: Policy) -> dict[str, np.ndarray]:
    """What a policy is told beside the state: a conditioned one that this is the target."""
    return {"domain": data.DOMAIN["target"]} if "domain" in policy.dims else {}


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Rolls out the workdir's policy in the target's physics and leaves table, JSON and figures in
    ``report/``."""
    if jax.process_index() != 0:
        return
    workdir, task, scene = pathlib.Path(workdir), config.task, scene_of(config)
    options = {name: config.policy[name] for name in ("solver", "steps", "clip")}
    policy = Policy.from_checkpoint(workdir, **options)
    begin = time.perf_counter()
    simulate = simulator(policy, config.policy.execute, scene)
    rollouts = simulate(policy.params, starts(task), constant=constant(policy), seed=task.eval_seed)
    seconds = time.perf_counter() - begin
    steps = int(rollouts.lengths.sum())
    logging.info("%d rollouts, %d steps in %.1f s", task.episodes, steps, seconds)
    summary = metrics.summarise(rollouts.success, rollouts.error, rollouts.lengths)
    label = f"{config.law.name}, {config.policy.solver} {config.policy.steps} steps"
    caption = (
        f"{task.episodes} rollouts in the target's physics, one training seed ({config.seed}), "
        f"{config.train.steps} steps of {config.train.batch_size}. Success: at rest within "
        f"{asked(scene)}; Wilson's interval. Errors are means over all episodes."
    )
    results = {"policy": label, "summary": report.plain(summary), "config": config.to_dict()}
    folder = workdir / "report"
    table = report.write(folder, COLUMNS, [row(label, summary)], caption, results)
    figures.filmstrip(rollouts, scene).savefig(folder / "rollouts.png", dpi=120)
    figures.traces(rollouts, scene).savefig(folder / "traces.png", dpi=120)
    history = train_metrics.read(workdir / "metrics.jsonl")
    report.loss_figure(history).savefig(folder / "loss.png", dpi=160)
    print(table)


def asked(scene: Scene) -> str:
    """The tolerance and the time limit in words."""
    return (
        f"{1000 * scene.position:g} mm and {math.degrees(scene.angle):.3g} degrees of the goal "
        f"within {scene.max_steps * DT:g} s"
    )


def row(label: str, summary: metrics.Summary) -> list[str]:
    """A row of the table, see ``COLUMNS``."""
    success, seconds = summary.success, summary.seconds
    return [
        label,
        f"{100 * success.value:.1f}%",
        f"{100 * success.low:.1f} to {100 * success.high:.1f}",
        f"{1000 * summary.position.value:.1f}",
        f"{math.degrees(summary.angle.value):.1f}",
        f"{seconds.value:.1f}" if seconds.count else "",
        str(success.count),
    ]
