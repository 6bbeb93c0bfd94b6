"""The policies of the table, and their changes of the base config.

A policy learns from the correct demonstrations and one corrupt set, ``arbitrary`` (the talk's) or
``opposite`` (the paper's). Corrupt demonstrations have the right motions and the wrong task, so
they help only below a noise level ``sigma_max``, where a denoiser depends on nearby motions:
sigma_min is 1, except in its sweep.
"""

import ml_collections

from experiments.table import baselines
from experiments.table.annotations import Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main", "sweep", "chosen", "variants", "alpha", "opposite", "more", "baselines")
BASELINES = baselines.Setting("correct", "cotrain_arbitrary", "correct", "arbitrary", "bins")
CORRUPT = ("arbitrary", "opposite")


def omni(sigma_max: float, *, corrupt: str = "arbitrary", sigma_min: float = 1.0) -> str:
    """Returns the name of the policy that uses corrupt data below sigma_max, above sigma_min."""
    above = "" if sigma_min == 1 else f"_{sigma_min:g}"
    return f"omni_{corrupt}_{sigma_max:g}{above}"


def rows(task: ml_collections.ConfigDict, annotations: Annotations = {}) -> dict[str, PolicyRow]:  # noqa: B006
    """Returns the policies of the configured groups by name, in the order of the table. Raises
    ValueError for an unknown group."""
    best, only = task.best, {"law.name": "filtering"}
    listed = {"correct": PolicyRow("correct only", "main", only)}
    listed |= _without_bounds("arbitrary", "main")

    def add_omni(group, level, *, corrupt="arbitrary", sigma_min=1.0):
        name = omni(level, corrupt=corrupt, sigma_min=sigma_min)
        above = "" if sigma_min == 1 else f", sigma_min {sigma_min:g}"
        label = f"omni with {corrupt}, sigma_max {level:g}{above}"
        changes = {"law.name": "ambient"} | _bounds(corrupt, sigma_min, level)
        listed.setdefault(name, PolicyRow(label, group, changes))

    add_omni("main", best)
    for level in task.sigma_max:
        add_omni("sweep", level)
    label = f"omni with arbitrary, sigma_max {task.chosen:g} by classifier"
    bounds = {"law.name": "ambient"} | _bounds("arbitrary", 1.0, task.chosen)
    listed["chosen"] = PolicyRow(label, "chosen", bounds)
    for level in task.sigma_min:
        add_omni("variants", best, sigma_min=level)
    exclusive = {"law.name": "exclusive"} | _bounds("arbitrary", 1.0, best)
    listed["exclusive"] = PolicyRow(f"exclusive bands, sigma_max {best}", "variants", exclusive)
    for alpha in task.alpha:
        law = {"law.name": "reweighted", "law.alpha": alpha} | _only("arbitrary")
        listed[f"alpha_{alpha}"] = PolicyRow(f"co-training, alpha {alpha}", "alpha", law)
    # The row "told the task" is among the main ones.
    options = dict(weights=_only("arbitrary"), told=False)
    listed |= baselines.rows(annotations, ("state",), {}, **options)
    listed |= _without_bounds("opposite", "opposite")
    for level in (best, *task.sigma_max_opposite):
        add_omni("opposite", level, corrupt="opposite")
    more = only | {"data.sources.correct.split": "train"}
    listed["correct_more"] = PolicyRow(f"correct only, {task.correct} of them", "more", more)
    return of_groups(listed, task, GROUPS)


def _without_bounds(corrupt, group):
    """Returns policies that use a corrupt set alone, and mixed with correct demonstrations."""
    natural = {"law.name": "cotraining"} | _only(corrupt)
    alone = natural | {"data.sources.correct.weight": 0.0}
    conditioned = natural | {"data.observation": ("state", "task")}
    mixed = f"co-training with {corrupt}"
    return {
        f"only_{corrupt}": PolicyRow(f"{corrupt} only", group, alone),
        f"cotrain_{corrupt}": PolicyRow(mixed, group, natural),
        f"task_{corrupt}": PolicyRow(f"{mixed}, told the task", group, conditioned),
    }


def _only(corrupt):
    """Returns weights that use the data of this corrupt set and not the other's."""
    return {f"data.sources.{name}.weight": float(name == corrupt) for name in CORRUPT}


def _bounds(corrupt, sigma_min, sigma_max):
    source = f"data.sources.{corrupt}"
    return _only(corrupt) | {f"{source}.sigma_min": sigma_min, f"{source}.sigma_max": sigma_max}
