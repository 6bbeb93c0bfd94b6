"""Planar pushing as a task: checks its config, builds its data, rolls out its policies."""

import math
from collections.abc import Callable
from typing import Any

import ml_collections

from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.planar_pushing import data
from experiments.planar_pushing.rollout import Rollouts, Simulator
from experiments.planar_pushing.scene import DT, KNOBS, Scene, between
from experiments.table import rollouts
from experiments.table.data import build_once


def scene_of(config: ml_collections.ConfigDict) -> Scene:
    """Returns the scene of ``config.task.scene``; raises ValueError for an unknown field."""
    return checks.scene(Scene, config.task.scene)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a wrong value of ``config.task``; ``policies.rows`` checks groups and
    methods."""
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
        rules += [(f"{name}s", checks.at_most(task, name)) for name in ("source", "target")]
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
    for tested in (config, fresh(config)):
        checks.evaluation_seeds(tested.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the absent data sets, ``push_target`` and others, below data.root."""
    task = config.task
    options = {name: task[name] for name in ("target", "source", "held_out", "gap")}
    options |= dict(knobs=tuple(task.knobs), seed=task.data_seed, scene=scene_of(config))
    build_once("planar pushing", lambda: data.build(config.data.root, **options))


def fresh(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of ``task.fresh`` episodes of the next eval_seed."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.task.update(dict(episodes=config.task.fresh, eval_seed=config.task.eval_seed + 1))
    return config


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Rollouts]:
    """Returns ``simulate(params)`` in the target's physics, see ``rollouts.from_seeds``."""
    condition = {"domain": data.DOMAIN["target"]}
    return rollouts.from_seeds(Simulator, policy, config, scene_of(config), condition)


def asked(scene: Scene) -> str:
    """Describes the tolerance and the time limit."""
    return (
        f"{1000 * scene.position:g} mm and {math.degrees(scene.angle):.3g} degrees of the goal "
        f"within {scene.max_steps * DT:g} s"
    )
