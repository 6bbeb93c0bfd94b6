"""PushT as a task: checks its config, builds its data, rolls out its policies."""

from collections.abc import Callable
from typing import Any

import ml_collections

from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.pusht import data, policies
from experiments.pusht.rollout import Rollouts, Simulator
from experiments.table.data import build_once
from experiments.table.experiment import Table
from experiments.table.report import best_of
from experiments.table.rollouts import plan


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a wrong value of ``config.task``; ``policies.rows`` checks groups."""
    task = config.task
    rules: list[tuple[str, checks.Rule]] = [
        ("steady shaky fresh max_steps", checks.whole(1)),
        ("held_out seeds", checks.whole(0)),
        ("data_seed", checks.whole(0, 900)),
        ("sigma_min alpha", checks.SHARE),
        ("tremor", (lambda px: 0 <= px <= 100, "a number of pixels from 0 to 100")),
        ("content", (lambda share: 0 < share <= 0.95, "a coverage above 0, at most 0.95")),
    ]
    checks.fields(task, rules, filled=["seeds", "sigma_min"])
    if "images" in task.groups:
        checks.fields(task.image, [("shaky steps", checks.whole(1))])
        for name in ("alpha", "sigma_min"):
            if task.image[name] not in task[name]:
                raise ValueError(
                    f"config.task.image.{name} is {task.image[name]}, expected one of "
                    f"config.task.{name}, {task[name]}"
                )
        if task.image.shaky > task.shaky:
            raise ValueError(
                f"config.task.image.shaky is {task.image.shaky}, expected at most "
                f"config.task.shaky, {task.shaky}"
            )
    for tested in (config, fresh(config)):
        checks.evaluation_seeds(tested.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the absent data sets, ``pusht_steady`` and others, below data.root."""
    task = config.task
    options = {n: task[n] for n in ("steady", "shaky", "held_out", "tremor", "content")}
    options["seed"] = task.data_seed

    def make():
        data.build(config.data.root, **options)
        if "images" in task.groups:
            fewer = dict(shaky=task.image.shaky, held_out=0, images=True)
            data.build(config.data.root, **(options | fewer))

    build_once("PushT", make)


def fresh(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of ``task.fresh`` episodes of the next eval_seed."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.task.update(dict(episodes=config.task.fresh, eval_seed=config.task.eval_seed + 1))
    return config


def files(table: Table, key: str, config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """Returns ``Experiment.files``: ``rollouts.npz``."""
    del key
    base = table.config
    about = {
        "steps": config.train.steps,
        "solver": [base.policy[name] for name in ("solver", "steps", "clip", "execute")],
        "starts": [base.task.episodes, base.task.eval_seed],
        "max_steps": base.task.max_steps,
    }
    return {"rollouts.npz": about}


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Rollouts]:
    """Returns ``simulate(params)``: a rollout for each evaluation seed, of policies that differ
    from this one in their parameters only."""
    actions = plan(policy, config.policy.execute)
    options = dict(history=policy.history, max_steps=config.task.max_steps)
    simulate = Simulator(actions, tuple(policy.dims), **options)
    seeds, seed = checks.evaluation_seeds(config.task), config.task.eval_seed
    return lambda params: simulate(params, seeds, seed=seed)


def best(task: ml_collections.ConfigDict, rows: Any) -> dict[str, str]:
    """Returns the most successful evaluated policies: {"co-training": name, "ambient": name}."""
    natural = [policies.ambient(level) for level in task.sigma_min]
    weighted = [policies.ambient(level, s) for s in task.alpha for level in task.sigma_min]
    names = {
        "co-training": ["cotrain", *(policies.alpha(share) for share in task.alpha)],
        "ambient": [*natural, *weighted],
    }
    return {role: best_of(some, rows) for role, some in names.items()}
