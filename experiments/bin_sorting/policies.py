"""The policies of the table, and what each changes of the base config.

A policy learns from the correct demonstrations and one corrupt set, ``arbitrary`` (the talk's) or
``opposite`` (the paper's). Corrupt demonstrations show the right motions and the wrong task, so
they are of use below a noise level ``sigma_max``, where a denoiser only looks at motions nearby,
and never above: sigma_min is 1, unless it is swept.
"""

from __future__ import annotations

import ml_collections

from experiments.table.entries import Entry, of_groups

GROUPS = ("main", "sweep", "chosen", "variants", "alpha", "opposite", "more")
CORRUPT = ("arbitrary", "opposite")


def omni(sigma_max: float, *, corrupt: str = "arbitrary", sigma_min: float = 1.0) -> str:
    """Name of the policy that uses corrupt data below sigma_max, and above sigma_min."""
    above = "" if sigma_min == 1 else f"_{sigma_min:g}"
    return f"omni_{corrupt}_{sigma_max:g}{above}"


def entries(task: ml_collections.ConfigDict) -> dict[str, Entry]:
    """The policies of the configured groups by name, in the order of the table.

    Raises:
      ValueError: for an unknown group.
    """
    best = task.best
    found = {"correct": Entry("correct only", "main", {"law.name": "filtering"})}
    found |= _against("arbitrary", "main", best)
    for level in task.sigma_max:
        _add_omni(found, "sweep", level)
    label = f"omni with arbitrary, sigma_max {task.chosen:g} by classifier"
    bounds = {"law.name": "ambient"} | _bounds("arbitrary", 1.0, task.chosen)
    found["chosen"] = Entry(label, "chosen", bounds)
    for level in task.sigma_min:
        _add_omni(found, "variants", best, sigma_min=level)
    exclusive = {"law.name": "exclusive"} | _bounds("arbitrary", 1.0, best)
    found["exclusive"] = Entry(f"exclusive bands, sigma_max {best}", "variants", exclusive)
    for alpha in task.alpha:
        law = {"law.name": "reweighted", "law.alpha": alpha} | _only("arbitrary")
        found[f"alpha_{alpha}"] = Entry(f"co-training, alpha {alpha}", "alpha", law)
    found |= _against("opposite", "opposite", best)
    for level in task.sigma_max_opposite:
        _add_omni(found, "opposite", level, corrupt="opposite")
    more = {"law.name": "filtering", "data.sources.correct.split": "train"}
    found["correct_more"] = Entry(f"correct only, {task.correct} of them", "more", more)
    return of_groups(found, task, GROUPS)


def _against(corrupt, group, best):
    """What correct demonstrations and a corrupt set give without and with bounds."""
    natural = {"law.name": "cotraining"} | _only(corrupt)
    alone = natural | {"data.sources.correct.weight": 0.0}
    conditioned = natural | {"data.observation": ("state", "task")}
    made = {
        f"only_{corrupt}": Entry(f"{corrupt} only", group, alone),
        f"cotrain_{corrupt}": Entry(f"co-training with {corrupt}", group, natural),
        f"task_{corrupt}": Entry(f"co-training with {corrupt}, told the task", group, conditioned),
    }
    _add_omni(made, group, best, corrupt=corrupt)
    return made


def _add_omni(found, group, level, *, corrupt="arbitrary", sigma_min=1.0):
    name = omni(level, corrupt=corrupt, sigma_min=sigma_min)
    above = "" if sigma_min == 1 else f", sigma_min {sigma_min:g}"
    label = f"omni with {corrupt}, sigma_max {level:g}{above}"
    changes = {"law.name": "ambient"} | _bounds(corrupt, sigma_min, level)
    found.setdefault(name, Entry(label, group, changes))


def _only(corrupt):
    """The weight of each corrupt set: this one's data are used, the other's are not."""
    return {f"data.sources.{name}.weight": float(name == corrupt) for name in CORRUPT}


def _bounds(corrupt, sigma_min, sigma_max):
    source = f"data.sources.{corrupt}"
    return _only(corrupt) | {f"{source}.sigma_min": sigma_min, f"{source}.sigma_max": sigma_max}
