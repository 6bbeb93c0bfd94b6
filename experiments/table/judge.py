"""Rolls out a table's trained policies, each from the same starts."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import ml_collections

from ambient_jax.cli import report
from ambient_jax.policy.policy import Policy
from experiments.table import saved
from experiments.table.entries import Program


def evaluate(
    program: Program,
    base: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    task: ModuleType,
    starts: Sequence[int],
    file: str = "rollouts.npz",
) -> None:
    """Leaves rollouts of each policy in its folder.

    Args:
      program, base, workdir: see ``entries.Table``.
      task: the experiment's module, with ``scene_of``, ``simulator`` and ``constant``.
      starts: [N] seeds of the episodes.
      file: to leave in the folder.
    """
    scene, simulate = task.scene_of(base), None
    for name, config in program.items():
        [(path, about)] = files(name, config, base, workdir, file).items()
        if saved.is_current(path, about):
            continue
        options = {field: base.policy[field] for field in ("solver", "steps", "clip")}
        policy = Policy.from_checkpoint(workdir / name, **options)
        # Policies of one program differ in parameters only, so they share a compiled plan.
        simulate = simulate or task.simulator(policy, base.policy.execute, scene)
        given = dict(constant=task.constant(policy), seed=base.task.eval_seed)
        rollouts = simulate(policy.params, starts, **given)
        saved.save(path, about, dataclasses.asdict(rollouts))


def files(
    name: str,
    config: ml_collections.ConfigDict,
    base: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    file: str = "rollouts.npz",
) -> dict[pathlib.Path, dict[str, Any]]:
    """The file of a policy's rollouts, and what they hang on beside its parameters."""
    policy = base.policy
    about = {
        "steps": config.train.steps,
        "solver": [policy.solver, policy.steps, policy.clip, policy.execute],
        "starts": [base.task.episodes, base.task.eval_seed],
        "scene": report.plain(base.task.scene.to_dict()),
    }
    return {workdir / name / file: about}
