"""The policies of the table, and what each changes of the base config.

The source's demonstrations are of another simulator: what they show is right at high noise levels,
above ``sigma_min``, where it can't be told from the target's. Groups:

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
"""

from __future__ import annotations

import ml_collections

from ambient_jax import _checks
from experiments.planar_pushing import chosen
from experiments.table.entries import Entry, of_groups

GROUPS = (
    *("main", "weighted", "chosen", "buckets", "observed", "strict", "shared"),
    *("soft", "omni", "few", "scaling"),
)
METHODS = (
    *("hard", "low", "dataset", "datapoint", "random", "soft", "ben_david"),
    *("alpha", "hard_alpha", "low_alpha", "random_alpha"),  # at the best share of target data
)
_SOURCE = "data.sources.source"
_WEIGHT = "data.sources.target.weight"
_HARD = {"law.name": "ambient"}


def entries(task: ml_collections.ConfigDict) -> dict[str, Entry]:
    """The policies of the configured groups by name, in the order of the table.

    Raises:
      ValueError: for an unknown group or method.
    """
    sizes = [f"{way}_{size}" for size in task.buckets for way in chosen.WAYS]
    more = [f"{way}_{size}" for size in task.more_buckets for way in chosen.WAYS]
    random = [f"random_{size}" for size in task.buckets]
    one = ("dataset", "datapoint")
    found = _main(task)
    found |= _by_classifier(task, "chosen", chosen.TABLE, (*one, *sizes))
    found |= _by_classifier(task, "buckets", chosen.TABLE, more)
    found |= _by_classifier(task, "observed", chosen.OBSERVED, one)
    found |= _by_classifier(task, "strict", chosen.STRICT, (*one, *random))
    for annotation in (chosen.TABLE, chosen.STRICT):
        units = (*one, *random)
        found |= _by_classifier(task, "shared", annotation, units, alpha=task.best_alpha)
    found |= {
        "soft": Entry("soft ambient, linear alpha", "soft", {"law.name": "soft"}),
        "soft_ben_david": Entry(
            "soft ambient, Ben-David's alpha", "soft", _ben_david(task, chosen.TABLE)
        ),
    }
    best = _HARD | {f"{_SOURCE}.sigma_min": task.best}
    for level in task.sigma_max:
        label = f"ambient omni, sigma_min {task.best:g}, sigma_max {level:g}"
        found[f"omni_{level:g}"] = Entry(label, "omni", best | {f"{_SOURCE}.sigma_max": level})
    few = {"data.sources.target.split": chosen.split(task.few)}
    for name, changes in {
        "target": {"law.name": "filtering"},
        f"alpha_{task.best_alpha:g}": _reweighted(task.best_alpha),
        hard(task.best): best,
    }.items():
        label = f"{_label(name)}, {task.few} target demonstrations"
        found[f"{name}_few"] = Entry(label, "few", changes | few)
    return of_groups(found | _scaling(task), task, GROUPS)


def hard(sigma_min: float) -> str:
    """Name of the policy of a level of the sweep."""
    return f"ambient_{sigma_min:g}"


def weighted(sigma_min: float, alpha: float) -> str:
    """Name of the policy of a level and of a share of target data above it."""
    return f"{hard(sigma_min)}_alpha_{alpha:g}"


def scaling(method: str, source: int, target: int) -> str:
    """Name of a policy of the group scaling."""
    return f"{method}_source_{source}_target_{target}"


def source_only(source: int) -> str:
    """Name of the policy of the group scaling that so many source demonstrations alone train."""
    return f"source_{source}"


def method_label(task: ml_collections.ConfigDict, method: str) -> str:
    """A method of the group scaling in words; raises ValueError for an unknown one."""
    _checks.one_of("config.task.methods", method, METHODS)
    share = f", alpha {task.best_alpha:g}"
    what = {
        "hard": f"ambient, sigma_min {task.best:g}",
        "low": f"ambient, sigma_min {task.low:g}",
        "dataset": "ambient by classifier, data set",
        "datapoint": "ambient by classifier, datapoint",
        "random": f"ambient by classifier, {task.bucket} random chunks",
        "soft": "soft ambient, linear alpha",
        "ben_david": "soft ambient, Ben-David's alpha",
        "alpha": f"co-training{share}",
    }
    return what.get(method) or what[method.removesuffix("_alpha")] + share


def _main(task):
    natural = {"law.name": "cotraining"}
    found = {
        "target": Entry("target only", "main", {"law.name": "filtering"}),
        "source": Entry("source only", "main", natural | {_WEIGHT: 0.0}),
        "cotrain": Entry("co-training, natural", "main", natural),
    }
    for alpha in task.alpha:
        name = f"alpha_{alpha:g}"
        found[name] = Entry(_label(name), "main", _reweighted(alpha))
    for level in sorted({*task.sigma_min, task.best}):
        changes = _HARD | {f"{_SOURCE}.sigma_min": level}
        found[hard(level)] = Entry(_label(hard(level)), "main", changes)
    for alpha in task.alpha:
        for level in sorted({*task.sigma_min, task.best}):
            changes = _HARD | {"law.alpha": alpha, f"{_SOURCE}.sigma_min": level}
            label = f"{_label(hard(level))}, alpha {alpha:g}"
            found[weighted(level, alpha)] = Entry(label, "weighted", changes)
    return found


def _by_classifier(task, group, annotation, units, alpha=0.0):
    """Policies with the bounds of an annotation, one for each granularity."""
    found = {}
    prefix = "" if annotation == chosen.TABLE else f"{annotation}_"
    for unit in units:
        label = f"ambient by {chosen.about(task, annotation)}, {chosen.words(unit)}"
        if unit == "dataset":
            label += f" (sigma_min {chosen.of(task, annotation)['sigma_min']:.3f})"
        name, changes = f"{prefix}{unit}", _bounded(task, annotation, unit)
        if alpha:
            name, label = f"{name}_alpha_{alpha:g}", f"{label}, alpha {alpha:g}"
            changes["law.alpha"] = alpha
        found[name] = Entry(label, group, changes)
    return found


def _scaling(task):
    found = {}
    for source in task.sources:
        alone = {"law.name": "cotraining", _WEIGHT: 0.0, f"{_SOURCE}.split": chosen.split(source)}
        found[source_only(source)] = Entry(f"source only, {source}", "scaling", alone)
    for target in task.targets:
        only = {"law.name": "filtering"} | chosen.splits(min(task.sources), target)
        found[f"target_{target}"] = Entry(f"target only, {target}", "scaling", only)
        for method in task.methods:
            for source in task.sources:
                changes = _method(task, method, chosen.scaled(source, target))
                label = f"{method_label(task, method)}, {source} source, {target} target"
                given = changes | chosen.splits(source, target)
                found[scaling(method, source, target)] = Entry(label, "scaling", given)
    return found


def _method(task, method, annotation):
    """What a method of the group scaling changes, with the bounds of an annotation."""
    if method in ("alpha", "soft", "ben_david"):
        return {
            "alpha": lambda: _reweighted(task.best_alpha),
            "soft": lambda: {"law.name": "soft"},
            "ben_david": lambda: _ben_david(task, annotation),
        }[method]()
    kind = method.removesuffix("_alpha")
    if kind in ("hard", "low"):
        changes = _HARD | {f"{_SOURCE}.sigma_min": task.best if kind == "hard" else task.low}
    else:
        unit = f"random_{task.bucket}" if kind == "random" else kind
        changes = _bounded(task, annotation, unit)
    return changes | ({"law.alpha": task.best_alpha} if kind != method else {})


def _label(name):
    kind, _, level = name.partition("_")
    what = {"alpha": "co-training, alpha", "ambient": "ambient, sigma_min"}
    return f"{what[kind]} {level}" if level else f"{kind} only"


def _reweighted(alpha):
    return {"law.name": "reweighted", "law.alpha": alpha}


def _bounded(task, annotation, granularity):
    """Changes for the bounds of an annotation. (One bound for all is no file: such policies train
    together.)"""
    told = chosen.of(task, annotation)
    if granularity == "dataset":
        return _HARD | {f"{_SOURCE}.sigma_min": told["sigma_min"]}
    return _HARD | {f"{_SOURCE}.bounds": f"{told['bounds']}/{granularity}.parquet"}


def _ben_david(task, annotation):
    told = chosen.of(task, annotation)
    fields = ("n_clean", "n_corrupt", "sigmas", "divergences")
    return {"law.name": "ben_david"} | {f"law.{field}": told[field] for field in fields}
