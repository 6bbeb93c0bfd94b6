"""The policies of the table, and their changes of the base config.

``clean`` sees the clean demonstrations only, ``oracle`` those of the source with their true
observations too. For each kind of shift:

as_is        co-training: the source's pairs at every noise level
ambient      the source's pairs above sigma_min
noised       the source with observations noised from one level on, told to the network
dropped      the source's pairs above sigma_min, and below it without observation
plane        the source with observations noised from a level on that falls with sigma
told         co-training with an input that says which data are clean
adversarial  co-training with features that do not tell clean from shifted
"""

from typing import Any

import ml_collections

from ambient_jax.transforms.steps import IS_CLEAN
from experiments.shifted.judge import NOISED, source_of
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main", "told", "oracle", "adversarial", "variants", "more")
OBSERVATION = ("pusher", "slider")
METHODS = {
    "as_is": "as is",
    "ambient": "ambient on actions",
    "noised": "noised observations",
    "dropped": "dropped below sigma_min",
    "plane": "noised, level by sigma",
    "told": "told which data are clean",
    "adversarial": "adversarial alignment",
}
_OF_GROUP = {"told": "told", "adversarial": "adversarial"}
_OF_GROUP |= dict.fromkeys(("ambient", "noised"), "variants")
_MORE = ("as_is", "ambient", "plane")  # of the group more
_MINIMUM = "data.sources.source.observation_min"


def rows(task: ml_collections.ConfigDict, found: Any) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name, in the order of the table. Raises
    ValueError for an unknown group."""
    every = {"data.sources.source.path": "shifted_clean", "law.name": "cotraining"}
    every["data.sources.source.split"] = f"train[{task.clean}:]"
    listed = {
        "clean": PolicyRow("clean only", "main", {"law.name": "filtering"}),
        "oracle": PolicyRow("all with true observations (oracle)", "oracle", every),
    }
    for kind in task.kinds:
        for method in METHODS:
            listed[name(kind, method)] = _row(task, kind, method, found.get(kind))
    for kind in task.more_kinds:
        for method in _MORE:
            label, _, changes = _row(task, kind, method, found.get(kind))
            listed[name(kind, method)] = PolicyRow(label, "more", changes)
    return of_groups(listed, task, GROUPS)


def name(kind: str, method: str) -> str:
    """Returns the name of the policy of a kind of shift and a method."""
    return f"{kind}_{method}"


def _row(task, kind, method, found):
    label = f"{kind}: {METHODS[method]}"
    group = _OF_GROUP.get(method, "main")
    changes = _changes(task, method, found)
    if changes is not None and method in ("ambient", "dropped"):
        label += f", sigma_min {found.sigma_min:.2f}"
    if changes is not None and method == "noised":
        label += f" from {found.level:.2f}"
    return PolicyRow(label, group, changes and changes | source_of(kind))


def _changes(task, method, found) -> dict[str, Any] | None:
    """Returns a method's changes of the config; None where the classifier's levels are missing."""
    mixed = {"law.name": "reweighted", "law.alpha": task.alpha}
    noised = mixed | {"model.noised": NOISED}
    told = {"data.observation": (*OBSERVATION, IS_CLEAN)}
    if method == "as_is":
        return mixed
    if method == "told":
        return mixed | told
    if method == "adversarial":
        encoder = "experiments.shifted.adversary:AdversarialEncoder"
        options = {"model.encoder.name": encoder, "model.encoder.strength": task.adversary}
        return mixed | told | options
    if found is None:
        return None
    if method == "ambient":
        bound = {"data.sources.source.sigma_min": found.sigma_min}
        return {"law.name": "ambient", "law.alpha": task.alpha} | bound
    if method == "noised":
        return noised | {_MINIMUM: found.level}
    if method == "dropped":
        return noised | {_MINIMUM: found.step} | _dropping(task)
    return noised | {_MINIMUM: found.curve}


def _dropping(task):
    return {"observation_noise.clean": 1 - task.dropped, "observation_noise.dropped": task.dropped}
