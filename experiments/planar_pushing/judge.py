"""Rolls out the table's trained policies, from the same starts in the target's physics."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import ml_collections

from ambient_jax.policy.policy import Policy
from experiments import report
from experiments.planar_pushing import policies, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import saved
from experiments.table.entries import Program, Table


def evaluate(program: Program, base: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Leaves ``rollouts.npz`` of each policy."""
    scene, simulate = task.scene_of(base), None
    for name, config in program.items():
        path, about = workdir / name / "rollouts.npz", _about(config, base)
        if saved.is_current(path, about):
            continue
        options = {field: base.policy[field] for field in ("solver", "steps", "clip")}
        policy = Policy.from_checkpoint(workdir / name, **options)
        # Policies of one program differ in parameters only, so they share a compiled plan.
        simulate = simulate or task.simulator(policy, base.policy.execute, scene)
        rollouts = simulate(
            policy.params,
            task.starts(base.task),
            constant=task.constant(policy),
            seed=base.task.eval_seed,
        )
        saved.save(path, about, dataclasses.asdict(rollouts))


def is_done(
    name: str,
    config: ml_collections.ConfigDict,
    base: ml_collections.ConfigDict,
    workdir: pathlib.Path,
) -> bool:
    """Whether a policy is trained to the end and rolled out as asked."""
    path = workdir / name / "rollouts.npz"
    trained = saved.step(workdir / name) == config.train.steps
    return trained and saved.is_current(path, _about(config, base))


def load(path: pathlib.Path) -> Rollouts:
    """Rollouts as saved."""
    return Rollouts(**saved.load(path))


def _about(config: ml_collections.ConfigDict, base: ml_collections.ConfigDict) -> dict[str, Any]:
    """What rollouts hang on, beside the policy's parameters."""
    policy = base.policy
    return {
        "steps": config.train.steps,
        "solver": [policy.solver, policy.steps, policy.clip, policy.execute],
        "starts": [base.task.episodes, base.task.eval_seed],
        "scene": report.plain(base.task.scene.to_dict()),
    }


TABLE = Table(policies.entries, is_done, evaluate)
