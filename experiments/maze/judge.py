"""Rolls out the table's trained policies and measures their loss at each noise level."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.data.paths import expanded, write_text
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.maze import env, levels, policies, task
from experiments.maze.rollout import Rollouts
from experiments.table import saved
from experiments.table.entries import Program, Table


def evaluate(program: Program, base: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Leaves rollouts of each policy with each solver, and ``levels.json`` of the main ones."""
    goals = env.free_goals(np.random.default_rng(base.task.eval_seed), base.task.goals)
    simulators: dict[str, Any] = {}
    for name, config in program.items():
        for path, about in files(name, config, base, workdir).items():
            if saved.is_current(path, about):
                continue
            options = dict(zip(("solver", "steps", "clip"), about["solver"], strict=True))
            policy = Policy.from_checkpoint(workdir / name, **options)
            # Policies of one program differ in parameters only, so they share a compiled rollout.
            simulate = simulators.setdefault(
                path.name, task.simulator(policy, config.policy.execute)
            )
            rollouts = simulate(policy.params, goals, seed=base.task.eval_seed)
            arrays = {n: getattr(rollouts, n) for n in Rollouts.__dataclass_fields__}
            arrays["positions"] = arrays["positions"].astype(np.float32)
            saved.save(path, about, arrays)
        if is_main(name, base) and not (workdir / name / "levels.json").exists():
            _measure_levels(workdir / name, config)


def files(
    name: str,
    config: ml_collections.ConfigDict,
    base: ml_collections.ConfigDict,
    workdir: pathlib.Path,
) -> dict[pathlib.Path, dict[str, Any]]:
    """The files of a policy's rollouts with the config's solver, which is the first, and with
    others, and what each hangs on beside the policy's parameters."""
    more = [tuple(s) for s in base.task.solvers] if is_main(name, base) else []
    return {
        workdir / name / f"rollouts_{solver}_{steps}.npz": {
            "steps": config.train.steps,
            "solver": [solver, steps, config.policy.clip],
            "execute": config.policy.execute,
            "goals": [base.task.goals, base.task.eval_seed],
        }
        for solver, steps in [(base.policy.solver, base.policy.steps), *more]
    }


TABLE = Table(policies.entries, files, evaluate)


def is_main(name: str, base: ml_collections.ConfigDict) -> bool:
    """Whether a policy (``entries.key``) is of the group main and of the first seed."""
    entry = policies.entries(base.task)[name.split("/")[0]]
    return entry.group == "main" and name.endswith(f"_{base.task.seeds[0]}")


def load(path: pathlib.Path) -> Rollouts:
    """Rollouts as saved."""
    arrays = saved.load(path)
    return Rollouts(**arrays | {"positions": arrays["positions"].astype(float)})


def _measure_levels(directory, config):
    policy = Policy.from_checkpoint(directory)
    found = {"sigma": evaluation.LEVELS}
    for source in ("gcs", "rrt"):
        held_out = pathlib.Path(expanded(config.data.root)) / f"maze_{source}_held_out"
        chunks = levels.chunks(held_out, history=policy.history, horizon=policy.horizon)
        found[source] = evaluation.denoising_loss(policy, *chunks[:3]).tolist()
    text = json.dumps(found | {"metres": float(policy.normalizer.scale["action"].mean())})
    write_text(directory / "levels.json", text)
