"""The policies of the table, and their changes of the base config.

``clean`` sees the clean demonstrations only, ``clean_noised`` too, a tenth of them with noised
observations; ``oracle`` also those of the source with their true observations. For each kind of
shift:

as_is        co-training: the source's pairs at every noise level
told         co-training with an input that says which data are clean
noised       the source with observations noised from a level on that falls with sigma, chosen by
             the loss of ``clean_noised`` (``excess``); the network is told the level
dropped      the source without observation, but as it is up to ``task.low`` and above sigma_min
low          the source's pairs up to ``task.low`` only
ambient      the source's pairs above sigma_min only, chosen by a classifier
adversarial  co-training with features that do not tell clean from shifted

``..._aligned`` is a kind too: each episode's camera is put back (``align``).
"""

import itertools
from typing import Any

import ml_collections

from ambient_jax.transforms.steps import IS_CLEAN
from experiments.shifted import excess
from experiments.shifted.judge import NOISED, OBSERVATION, source_of
from experiments.table import baselines
from experiments.table.policies import PolicyRow, of_groups

METHODS = {
    "as_is": "as is",
    "told": "told which data are clean",
    "noised": "noised observations, level by sigma",
    "dropped": "without observation",
    "low": "as is at low noise",
    "ambient": "ambient by classifier",
    "adversarial": "adversarial alignment",
}
MORE = ("as_is", "told", "noised")  # of all kinds but the first
GROUPS = ("main", "oracle", "variants", "more", baselines.GROUP)
_BY_LOSS = ("noised", "dropped")  # need a trained policy: in the framework's group of these
_OF_GROUP = dict.fromkeys(_BY_LOSS, baselines.GROUP)
_OF_GROUP |= dict.fromkeys(("ambient", "adversarial"), "variants")
_MINIMUM = "data.sources.source.observation_min"
_BOUND = "data.sources.source.sigma_"


def rows(task: ml_collections.ConfigDict, found: Any) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name, in the order of the table. Raises
    ValueError for an unknown group."""
    every = {"data.sources.source.path": "shifted_clean", "law.name": "cotraining"}
    every["data.sources.source.split"] = f"train[{task.clean}:]"
    only = source_of(task.kinds[0]) | {"law.name": "filtering"}
    listed = {
        "clean": PolicyRow("clean only", "main", only),
        excess.POLICY: PolicyRow(
            "clean only, noised observations", baselines.GROUP, only | _noised(task)
        ),
        "oracle": PolicyRow("all with true observations (oracle)", "oracle", every),
    }
    for kind, method in itertools.product(task.kinds, METHODS):
        if kind == task.kinds[0] or method in MORE:
            words = METHODS[method]
            judged = found.get(excess.name(kind) if method in _BY_LOSS else kind)
            label = f"{kind.replace('_', ', ')}: {words}{_bounds(task, method, judged)}"
            changes = _changes(task, kind, method, judged)
            group = _OF_GROUP.get(method, "main") if kind == task.kinds[0] else "more"
            listed[name(kind, method)] = PolicyRow(label, group, changes)
    return of_groups(listed, task, GROUPS)


def name(kind: str, method: str) -> str:
    """Returns the name of the policy of a kind of shift and a method."""
    return f"{kind}_{method}"


def _bounds(task, method, judged):
    """Returns the end of a label: the levels of a method."""
    if method == "low":
        return f", up to {task.low:g}"
    if method == "ambient" and judged:
        return f", sigma_min {judged.sigma_min:.2f}"
    if method == "dropped" and judged:
        return f" from {task.low:g} to {judged.sigma_min:.2f}"
    return ""


def _changes(task, kind, method, judged) -> dict[str, Any] | None:
    """Returns a method's changes of the config; None where the classifier's levels are missing."""
    source = source_of(kind)
    mixed = source | {"law.name": "reweighted", "law.alpha": task.alpha}
    told = mixed | {"data.observation": (*OBSERVATION, IS_CLEAN)}
    bounded = source | {"law.name": "ambient", "law.alpha": task.alpha}
    if method == "as_is":
        return mixed
    if method == "told":
        return told
    if method == "adversarial":
        encoder = "experiments.shifted.adversary:AdversarialEncoder"
        return told | {"model.encoder.name": encoder, "model.encoder.strength": task.adversary}
    if method == "low":
        return bounded | {f"{_BOUND}min": 1.0, f"{_BOUND}max": task.low}
    if judged is None:
        return None
    if method == "ambient":
        return bounded | {f"{_BOUND}min": judged.sigma_min}
    if method == "noised":
        return mixed | _noised(task) | {_MINIMUM: judged.curve}
    share = {"observation_noise.dropped": round(1 - task.undisturbed, 6)}
    return mixed | _noised(task) | share | {_MINIMUM: judged.dropped(task.low)}


def _noised(task):
    return {"model.noised": NOISED, "observation_noise.clean": task.undisturbed}
