"""Planar pushing from a config: its data, its starts, rollouts of its policies."""

from __future__ import annotations

import math

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from ambient_jax.policy.policy import Policy
from experiments.planar_pushing import data
from experiments.planar_pushing.rollout import Simulator
from experiments.planar_pushing.scene import DT, TARGET, Physics, Scene

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


def asked(scene: Scene) -> str:
    """The tolerance and the time limit in words."""
    return (
        f"{1000 * scene.position:g} mm and {math.degrees(scene.angle):.3g} degrees of the goal "
        f"within {scene.max_steps * DT:g} s"
    )
