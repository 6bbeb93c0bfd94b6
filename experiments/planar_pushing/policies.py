"""The policies of the table, and their changes of the base config.

The source's demonstrations come from another simulator. Above a noise level ``sigma_min`` they look
like the target's. Groups:

main      target only, source only, co-training, and the sweep of sigma_min
weighted  the sweep of sigma_min at the shares of target data of re-weighted co-training
chosen    sigma_min by a classifier of actions: per data set, datapoint and bucket
buckets   the same with buckets of other sizes
observed  sigma_min by a classifier that also sees the observation
strict    the same with the smaller tau ``task.strict``
shared    bounds of both at the share of target data of re-weighted co-training
soft      soft ambient: alpha(sigma) linear, and by Ben-David's bound
omni      with sigma_max on top of the best sigma_min
few       with few target demonstrations
scaling   methods against the numbers of source and target demonstrations
baselines other ways to use the source, see ``experiments.table.baselines``
"""

import itertools

import ml_collections

from ambient_jax import _checks
from experiments.planar_pushing import classifier_bounds
from experiments.planar_pushing.classifier_bounds import OBSERVED, STRICT, TABLE
from experiments.table import baselines
from experiments.table.annotations import Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = (
    *("main", "weighted", "chosen", "buckets", "observed", "strict", "shared"),
    *("soft", "omni", "few", "scaling", "baselines"),
)
METHODS = (
    *("hard", "low", "dataset", "datapoint", "random", "soft", "ben_david"),
    *("alpha", "hard_alpha", "low_alpha", "random_alpha"),  # at the best share of target data
)
BASELINES = baselines.Setting("target", "cotrain", "target", "source", "rlds")
_SOURCE = "data.sources.source"
_WEIGHT = "data.sources.target.weight"
_HARD = {"law.name": "ambient"}


def rows(task: ml_collections.ConfigDict, annotations: Annotations) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name, in the order of the table. Raises
    ValueError for an unknown group or method."""
    return of_groups(listed(task, annotations) | _scaling(task, annotations), task, GROUPS)


def listed(task: ml_collections.ConfigDict, annotations: Annotations) -> dict[str, PolicyRow]:
    """Returns the policies of all groups but scaling, whether configured or not."""
    buckets = lambda sizes: [f"{w}_{n}" for n in sizes for w in classifier_bounds.WAYS]  # noqa: E731
    random = [f"random_{size}" for size in task.buckets]
    simple = ("dataset", "datapoint")
    rows = _main(task)
    for group, name, granularities, alpha in (
        ("chosen", TABLE, (*simple, *buckets(task.buckets)), 0.0),
        ("buckets", TABLE, buckets(task.more_buckets), 0.0),
        ("observed", OBSERVED, simple, 0.0),
        ("strict", STRICT, (*simple, *random), 0.0),
        ("shared", TABLE, (*simple, *random), task.best_alpha),
        ("shared", STRICT, (*simple, *random), task.best_alpha),
    ):
        rows |= _by_classifier(task, annotations, group, name, granularities, alpha)
    table = annotations.get(TABLE)
    ben_david = table and table.soft_law()
    rows["soft"] = PolicyRow("soft ambient, linear alpha", "soft", {"law.name": "soft"})
    rows["soft_ben_david"] = PolicyRow("soft ambient, Ben-David's alpha", "soft", ben_david)
    rows |= baselines.rows(annotations, ("state",), {"law.name": "cotraining"})
    best = _HARD | {f"{_SOURCE}.sigma_min": task.best}
    for level in task.sigma_max:
        label = f"ambient omni, sigma_min {task.best:g}, sigma_max {level:g}"
        changes = best | {f"{_SOURCE}.sigma_max": level}
        rows[f"omni_{level:g}"] = PolicyRow(label, "omni", changes)
    few = {"data.sources.target.split": classifier_bounds.split(task.few)}
    for name, changes in {
        "target": {"law.name": "filtering"},
        f"alpha_{task.best_alpha:g}": _reweighted(task.best_alpha),
        hard(task.best): best,
    }.items():
        label = f"{_label(name)}, {task.few} target demonstrations"
        rows[f"{name}_few"] = PolicyRow(label, "few", changes | few)
    return rows


def hard(sigma_min: float) -> str:
    """Returns the name of the policy of a level of the sweep."""
    return f"ambient_{sigma_min:g}"


def weighted(sigma_min: float, alpha: float) -> str:
    """Returns the name of the policy of a level and a share of target data above it."""
    return f"{hard(sigma_min)}_alpha_{alpha:g}"


def scaling(method: str, source: int, target: int) -> str:
    """Returns the name of a policy of the group scaling."""
    return f"{method}_source_{source}_target_{target}"


def source_only(source: int) -> str:
    """Returns the name of the policy trained on source demonstrations only."""
    return f"source_{source}"


def method_label(task: ml_collections.ConfigDict, method: str) -> str:
    """Describes a method of the group scaling; raises ValueError for an unknown one."""
    _checks.one_of("config.task.methods", method, METHODS)
    share = f", alpha {task.best_alpha:g}"
    labels = {
        "hard": f"ambient, sigma_min {task.best:g}",
        "low": f"ambient, sigma_min {task.low:g}",
        "dataset": "ambient by classifier, data set",
        "datapoint": "ambient by classifier, datapoint",
        "random": f"ambient by classifier, {task.bucket} random chunks",
        "soft": "soft ambient, linear alpha",
        "ben_david": "soft ambient, Ben-David's alpha",
        "alpha": f"co-training{share}",
    }
    return labels.get(method) or labels[method.removesuffix("_alpha")] + share


def _main(task):
    natural = {"law.name": "cotraining"}
    levels = sorted({*task.sigma_min, task.best})
    listed = {
        "target": PolicyRow("target only", "main", {"law.name": "filtering"}),
        "source": PolicyRow("source only", "main", natural | {_WEIGHT: 0.0}),
        "cotrain": PolicyRow("co-training, natural", "main", natural),
    }
    for alpha in task.alpha:
        name = f"alpha_{alpha:g}"
        listed[name] = PolicyRow(_label(name), "main", _reweighted(alpha))
    for level in levels:
        changes = _HARD | {f"{_SOURCE}.sigma_min": level}
        listed[hard(level)] = PolicyRow(_label(hard(level)), "main", changes)
    for alpha in task.alpha:
        for level in levels:
            changes = listed[hard(level)].changes | {"law.alpha": alpha}
            label = f"{_label(hard(level))}, alpha {alpha:g}"
            listed[weighted(level, alpha)] = PolicyRow(label, "weighted", changes)
    return listed


def _by_classifier(task, annotations, group, annotation, granularities, alpha):
    """Returns policies with the bounds of an annotation, one per granularity."""
    listed, bounds = {}, annotations.get(annotation)
    classifier = classifier_bounds.about(task, annotation)
    for granularity in granularities:
        label = f"ambient by {classifier}, {classifier_bounds.words(granularity)}"
        if granularity == "dataset" and bounds:
            label += f" (sigma_min {bounds.sigma_min:.3f})"
        name = granularity if annotation == TABLE else f"{annotation}_{granularity}"
        changes = bounds and _bounded(bounds, granularity)
        if alpha:
            name, label = f"{name}_alpha_{alpha:g}", f"{label}, alpha {alpha:g}"
            changes = changes and changes | {"law.alpha": alpha}
        listed[name] = PolicyRow(label, group, changes)
    return listed


def _scaling(task, annotations):
    listed = {}
    for source in task.sources:
        split = {f"{_SOURCE}.split": classifier_bounds.split(source)}
        alone = {"law.name": "cotraining", _WEIGHT: 0.0} | split
        listed[source_only(source)] = PolicyRow(f"source only, {source}", "scaling", alone)
    for target in task.targets:
        splits = classifier_bounds.splits(min(task.sources), target)
        only = {"law.name": "filtering"} | splits
        listed[f"target_{target}"] = PolicyRow(f"target only, {target}", "scaling", only)
        for method, source in itertools.product(task.methods, task.sources):
            label = f"{method_label(task, method)}, {source} source, {target} target"
            annotation = annotations.get(classifier_bounds.scaled(source, target))
            changes = _method(task, method, annotation)
            changes = changes and changes | classifier_bounds.splits(source, target)
            listed[scaling(method, source, target)] = PolicyRow(label, "scaling", changes)
    return listed


def _method(task, method, annotation):
    """Returns changes of the config by a method of the group scaling; None without annotation."""
    bounds = method.removesuffix("_alpha")
    if method == "alpha":
        changes = _reweighted(task.best_alpha)
    elif bounds == "soft":
        changes = {"law.name": "soft"}
    elif bounds in ("hard", "low"):
        level = task.best if bounds == "hard" else task.low
        changes = _HARD | {f"{_SOURCE}.sigma_min": level}
    elif not annotation:
        return None
    elif bounds == "ben_david":
        changes = annotation.soft_law()
    else:
        changes = _bounded(annotation, f"random_{task.bucket}" if bounds == "random" else bounds)
    return changes | ({"law.alpha": task.best_alpha} if bounds != method else {})


def _label(name):
    start, _, level = name.partition("_")
    words = {"alpha": "co-training, alpha", "ambient": "ambient, sigma_min"}
    return f"{words[start]} {level}" if level else f"{start} only"


def _reweighted(alpha):
    return {"law.name": "reweighted", "law.alpha": alpha}


def _bounded(annotation, granularity):
    """Returns changes of the config for an annotation's bounds. One bound for all needs no file, so
    such policies can train together."""
    if granularity == "dataset":
        return _HARD | {f"{_SOURCE}.sigma_min": annotation.sigma_min}
    return annotation.hard_law(granularity)
