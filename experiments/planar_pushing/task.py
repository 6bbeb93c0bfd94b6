"""Planar pushing as a task: checks its config, builds its data, rolls out its policies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.planar_pushing import data
from experiments.planar_pushing.rollout import Rollouts, Simulator
from experiments.planar_pushing.scene import DT, KNOBS, Scene, between
from experiments.table.data import build_once
from experiments.table.rollouts import plan


def scene_of(config: ml_collections.ConfigDict) -> Scene:
    """The scene of ``config.task.scene``; raises ValueError for a field that no scene has."""
    return checks.scene(Scene, config.task.scene)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a value of ``config.task`` with which data or policies cannot be made.
    Groups and methods are checked where they are looked up, see ``policies.rows``."""
    task = config.task
    rules: list[tuple[str, checks.Rule]] = [
        ("target source fresh few bucket buckets more_buckets sources targets", checks.whole(1)),
        ("held_out seeds", checks.whole(0)),
        ("data_seed", checks.whole(0, 900)),
        ("sigma_min sigma_max best low alpha best_alpha", checks.SHARE),
        ("strict", (lambda tau: 0 < tau < 0.5, "a number between 0 and 0.5")),
        ("knobs", (KNOBS.__contains__, f"one of {', '.join(KNOBS)}")),
    ]
    if "scaling" in task.groups:
        rules += [("sources", checks.at_most(task, "source"))]
        rules += [("targets", checks.at_most(task, "target"))]
    if "few" in task.groups:
        rules += [("few", checks.at_most(task, "target"))]
    if "omni" in task.groups:  # a sigma_max above sigma_min admits the source at every level
        rules += [("sigma_max", checks.at_most(task, "best"))]
    filled = ("seeds", *(("sources", "targets") if "scaling" in task.groups else ()))
    checks.fields(task, rules, filled)
    try:
        between(task.gap, task.knobs)
    except ValueError as error:
        raise ValueError(f"config.task.gap: {error}") from error
    scene_of(config)
    for each in (config, fresh(config)):
        starts(each.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets, ``push_target`` and others, below data.root where they are absent."""
    task = config.task
    options = {name: task[name] for name in ("target", "source", "held_out", "gap")}
    options |= dict(knobs=tuple(task.knobs), seed=task.data_seed, scene=scene_of(config))
    build_once("planar pushing", lambda: data.build(config.data.root, **options))


def starts(task: ml_collections.ConfigDict) -> np.ndarray:
    """[N] seeds of the starts that every policy is tested from, see ``checks.evaluation_seeds``."""
    return checks.evaluation_seeds(task)


def fresh(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config whose starts are the ``task.fresh`` of the next eval_seed: those that are in the
    table pick what is best, and these measure it."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.task.update(dict(episodes=config.task.fresh, eval_seed=config.task.eval_seed + 1))
    return config


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Rollouts]:
    """``simulate(params)``: one rollout in the target's physics from each of ``starts``, of
    policies that differ from this one in their parameters only. A conditioned policy is told that
    this is the target."""
    options = dict(history=policy.history, scene=scene_of(config))
    simulate = Simulator(plan(policy, config.policy.execute), **options)
    constant = {"domain": data.DOMAIN["target"]} if "domain" in policy.dims else {}
    given = dict(constant=constant, seed=config.task.eval_seed)
    return lambda params: simulate(params, starts(config.task), **given)


def asked(scene: Scene) -> str:
    """The tolerance and the time limit in words."""
    return (
        f"{1000 * scene.position:g} mm and {math.degrees(scene.angle):.3g} degrees of the goal "
        f"within {scene.max_steps * DT:g} s"
    )
