"""Success of a policy in its environment: called here, and asked through the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ambient_jax.estimates import paired, wilson
from ambient_jax.policy.policy import Policy
from ambient_jax.serve.remote import RemotePolicy
from ambient_jax.train import checkpoint
from experiments import tasks
from experiments.maze import env, rollout
from experiments.planar_pushing import rollout as pushing
from experiments.planar_pushing.data import DOMAIN
from experiments.planar_pushing.task import scene_of
from experiments.table.rollouts import plan as local_plan

SEED = 7  # of goals, starts and keys


def remote_plan(policy: RemotePolicy, execute: int) -> Callable:
    """Returns ``local_plan`` of a served policy: a callback asks for every row's chunk.

    The requests have the keys of the rows, so the noise is that of the local plan.
    """

    def ask(observation, data):
        arrays = {name: np.asarray(value) for name, value in observation.items()}
        return policy.chunks(arrays, np.asarray(data)).astype(np.float32)

    def plan(params, observation, keys):
        shape = (len(keys), policy.horizon, policy.action_dim)
        result = jax.ShapeDtypeStruct(shape, np.float32)
        return jax.pure_callback(ask, result, observation, jax.random.key_data(keys))[:, :execute]

    return plan


def successes(plan: Callable, policy: Policy, config: Any, episodes: int) -> np.ndarray:
    """Returns which episodes [N] of the policy's task succeed under a plan."""
    if config.task.name == "maze":
        goals = env.free_goals(np.random.default_rng(SEED), episodes)
        simulate = rollout.Simulator(plan, history=policy.history)
        return simulate(policy.params, goals, seed=SEED).success
    condition = {n: v for n, v in {"domain": DOMAIN["target"]}.items() if n in policy.dims}
    simulator = pushing.Simulator(plan, scene=scene_of(config), history=policy.history)
    seeds = SEED * 10_000 + np.arange(episodes)
    return simulator(policy.params, seeds, constant=condition, seed=SEED).success


def measure(
    path: str | os.PathLike,
    episodes: int,
    options: dict[str, Any],
    serve: Callable[[], Any],
) -> dict[str, Any]:
    """Returns the success of a checkpoint's policy, local and served, over the same episodes.

    Args:
      path: of the checkpoint, of the maze or of planar pushing.
      episodes: number of goals or starts.
      options: solver and steps, in place of the config's.
      serve: makes a context whose value is the served policy, a ``RemotePolicy``.
    """
    folder, step = checkpoint.find(path)
    config = checkpoint.load_policy_assets(folder / str(step))["config"]
    name = config.task.get("name")
    if name not in ("maze", "planar_pushing"):
        raise ValueError(
            f"{path} is a policy of {name!r}, expected one of maze or planar_pushing"
            f" ({', '.join(tasks.TASKS)} are the tasks)"
        )
    policy = Policy.from_checkpoint(path, **options)
    execute = config.policy.execute
    here = successes(local_plan(policy, execute), policy, config, episodes)
    with serve() as remote:
        there = successes(remote_plan(remote, execute), policy, config, episodes)
    return {
        "task": name,
        "solver": [policy.solver, policy.steps],
        "episodes": episodes,
        "local": wilson(int(here.sum()), episodes),
        "served": wilson(int(there.sum()), episodes),
        "difference": paired(there, here),
        "other_outcome": int((here != there).sum()),
    }
