"""The paper's pushing as a task: checks its config, builds its data, rolls out its policies."""

import functools
from collections.abc import Callable
from typing import Any

import ml_collections

from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.paper_pushing import data, policies
from experiments.paper_pushing.env import PaperScene
from experiments.paper_pushing.rollout import Rollouts, Simulator
from experiments.planar_pushing import task as planar
from experiments.table import rollouts
from experiments.table.data import build_once

fresh = planar.fresh
_COUNTS = ("target", "source", "held_out", "images_target", "images_source")


def scene_of(config: ml_collections.ConfigDict) -> PaperScene:
    """Returns the scene of ``config.task.scene``; raises ValueError for an unknown field."""
    return checks.scene(PaperScene, config.task.scene)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a wrong value of ``config.task``; ``policies.rows`` checks groups."""
    task = config.task
    rules: list[tuple[str, checks.Rule]] = [
        ("fresh few upper buckets more_buckets", checks.whole(1)),
        (f"{' '.join(_COUNTS)} seeds", checks.whole(0)),
        ("data_seed", checks.whole(0, 900)),
        ("sigma_min sigma_max below best alpha best_alpha", checks.SHARE),
        ("strict", (lambda tau: 0 < tau < 0.5, "a number between 0 and 0.5")),
    ]
    target = "target" if task.target else "images_target"
    for field, names in (("few", {"few"}), ("upper", {"upper", policies.UPPER})):
        if names & set(task.groups):
            rules += [(field, checks.at_most(task, target))]
    checks.fields(task, rules, ["seeds", "sigma_min", "alpha"])
    checks.fields(task.sight, [("steps rounds batch", checks.whole(1)), ("seed", checks.whole(0))])
    scene_of(config)
    for tested in (config, fresh(config)):
        checks.evaluation_seeds(tested.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the absent data sets, ``paper_target`` and others, below data.root."""
    options = {name: config.task[name] for name in _COUNTS}
    options |= dict(seed=config.task.data_seed, scene=scene_of(config))
    build_once("the paper's pushing", lambda: data.build(config.data.root, **options))


def simulator(
    policy: Policy, config: ml_collections.ConfigDict, **options: Any
) -> Callable[[Any], Rollouts]:
    """Returns ``simulate(params)`` in the target's physics, see ``rollouts.from_seeds``; for the
    options see ``Simulator``."""
    make = functools.partial(Simulator, inputs=policy.chain.inputs(policy.history), **options)
    return rollouts.from_seeds(make, policy, config, scene_of(config), {})
