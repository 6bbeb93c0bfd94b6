"""The task: checks its config, builds its data, rolls out its policies."""

from collections.abc import Callable
from typing import Any

import ml_collections

from ambient_jax.annotate import training
from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.planar_pushing.rollout import Rollouts, Simulator
from experiments.planar_pushing.task import scene_of
from experiments.shifted import data, shifts
from experiments.table.data import build_once


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a wrong value of ``config.task``."""
    rules: list[tuple[str, checks.Rule]] = [
        ("clean source judged", checks.whole(1)),
        ("held_out seeds", checks.whole(0)),
        ("data_seed", checks.whole(0, 900)),
        ("alpha low undisturbed", checks.SHARE),
        ("excess", checks.SHARE),
        ("tau", (lambda tau: 0 < tau < 0.5, "a number between 0 and 0.5")),
        ("kinds", (shifts.NAMES.__contains__, f"one of {', '.join(shifts.NAMES)}")),
    ]
    checks.fields(config.task, rules, filled=["seeds", "kinds"])
    split = config.data.sources.clean.split
    if split != f"train[:{config.task.clean}]":
        raise ValueError(
            f"config.data.sources.clean.split is {split!r}, expected the first config.task.clean "
            f"demonstrations, 'train[:{config.task.clean}]': the others are the source's"
        )
    training.Options(**config.task.classifier)
    scene_of(config)
    checks.evaluation_seeds(config.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the absent data sets, ``shifted_clean`` and others, below data.root."""
    task = config.task
    options = {name: task[name] for name in ("clean", "source", "held_out")}
    options |= dict(kinds=task.kinds, seed=task.data_seed)
    options |= dict(scene=scene_of(config))
    build_once("shifted", lambda: data.build(config.data.root, **options))


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Rollouts]:
    """Returns ``simulate(params)``: rollouts in the target's physics, with true observations."""
    execute = config.policy.execute

    def plan(params, observation, keys):
        return policy.chunk(params, shifts.split(observation["state"]), keys)[:, :execute]

    simulate = Simulator(plan, history=policy.history, scene=scene_of(config))
    seeds, seed = checks.evaluation_seeds(config.task), config.task.eval_seed
    return lambda params: simulate(params, seeds, seed=seed)
