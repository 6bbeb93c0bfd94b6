"""What planar pushing is expected to show, checked by the numbers of the table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from experiments.estimates import Estimate
from experiments.planar_pushing import chosen, modes, policies

# (claim, measured, whether it holds; None where the interval leaves it open).
Claim = tuple[str, str, bool | None]
# The gain in success from the first policy to the second over the same starts; None where they have
# no training seed in common, or are not there.
Gap = Callable[[str, str], Estimate | None]
# Methods whose share of target data falls as the source grows, and with it what they learn of it.
_HARD = ("hard", "low", "dataset")
MARGIN = 0.05  # of success, by which what is as good may be worse
_LEAST = 0.02  # of the loss that a method must be below source only for something to be lost


def sweep(task: ml_collections.ConfigDict, rows: Mapping[str, Any]) -> dict[float, str]:
    """The policies of the sweep that there are, by sigma_min in rising order."""
    named = {level: policies.hard(level) for level in sorted({*task.sigma_min, task.best})}
    return {level: name for level, name in named.items() if name in rows}


def reweighted(task: ml_collections.ConfigDict, rows: Mapping[str, Any]) -> dict[float, str]:
    """The policies of re-weighted co-training that there are, by alpha in rising order."""
    named = {alpha: f"alpha_{alpha:g}" for alpha in sorted(task.alpha)}
    return {alpha: name for alpha, name in named.items() if name in rows}


def hard(task: ml_collections.ConfigDict, rows: Mapping[str, Any]) -> list[str]:
    """The policies that there are with one bound from the sweep, by weight and re-weighted."""
    levels = sorted({*task.sigma_min, task.best})
    weighted = [policies.weighted(level, alpha) for alpha in task.alpha for level in levels]
    return [*sweep(task, rows).values(), *(name for name in weighted if name in rows)]


def best_of(names: Iterable[str], rows: Mapping[str, Any]) -> str:
    """The name that succeeds most often, of those with the most seeds; "" if none is there."""
    there = [name for name in names if name in rows]
    most = max((len(rows[name].seeds) for name in there), default=0)
    there = [name for name in there if len(rows[name].seeds) == most]
    return max(there, key=lambda name: rows[name].summary.success.value, default="")


def roles(task: ml_collections.ConfigDict, rows: Mapping[str, Any]) -> dict[str, str]:
    """The policies that stand for the published ones: {"best alpha": name, ...}, "" for none."""
    return {
        "best": best_of(hard(task, rows), rows),
        "best alpha": best_of(reweighted(task, rows).values(), rows),
        "best natural": best_of(sweep(task, rows).values(), rows),
        "best omni": best_of([f"omni_{level:g}" for level in task.sigma_max], rows),
    }


def picked(task: ml_collections.ConfigDict, rows: Mapping[str, Any]) -> list[str]:
    """The policies whose order is claimed, of those that are there."""
    role = roles(task, rows)
    names = ("target", *(role[name] for name in ("best alpha", "best natural", "best")))
    return [name for name in dict.fromkeys(names) if name in rows]


def check(
    config: ml_collections.ConfigDict,
    rows: Mapping[str, Any],
    gap: Gap,
    fresh: Gap,
    *,
    bias: Mapping[str, Any] | None = None,
    scaled_bias: Mapping[int, Any] | None = None,
    drifts: Mapping[int, Any] | None = None,
) -> list[Claim]:
    """What holds and what does not; of policies that are not there yet it says nothing.

    Args:
      config: of the table.
      rows: ``Row`` by policy.
      gap: on the starts of the table.
      fresh: on starts that no policy was picked on.
      bias, scaled_bias: ``modes.study`` and ``modes.study_scaling``.
      drifts: ``drift.of_methods``.
    """
    task = config.task
    return [
        *_order(task, rows, fresh),
        *_units(task, rows, gap),
        *_few(task, gap),
        *_scaling(task, gap),
        *_drift(task, drifts or {}),
        *_bias(task, bias or {}, scaled_bias or {}),
    ]


def points(gap: Estimate) -> str:
    """A gain in words."""
    return f"{100 * gap.value:+.1f} points [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"


def _order(task, rows, fresh):
    told, role = [], roles(task, rows)
    mixed, natural, best = role["best alpha"], role["best natural"], role["best"]
    gains = "the best re-weighted co-training < the best ambient"
    pairs = [("target", mixed, "target only < the best re-weighted co-training")]
    pairs += [(mixed, natural, f"{gains} by natural weights")] if natural != best else []
    for low, high, claim in (*pairs, (mixed, best, gains)):
        if found := fresh(low, high):
            told.append((f"{claim}, on fresh starts", _measured(low, high, found), _above(found)))
    return told


def _units(task, rows, gap):
    """Finer units against one bound for all; the classifier's bound against the sweep's best."""
    told = []

    def reaches(name, of, claim):
        if found := gap(of, name):
            told.append((claim, _measured(of, name, found), _reaches(found)))

    best = roles(task, rows)["best natural"]
    sizes = (*task.buckets, *task.more_buckets)
    names = [f"{way}_{size}" for size in sizes for way in chosen.WAYS]
    random = [f"random_{size}" for size in task.buckets]
    share = f"_alpha_{task.best_alpha:g}"
    for kind, prefix, suffix, buckets in (
        ("classifier", "", "", names),
        ("observing classifier", f"{chosen.OBSERVED}_", "", []),
        (chosen.about(task, chosen.STRICT), f"{chosen.STRICT}_", "", random),
        ("classifier, at the best share", "", share, random),
        (f"{chosen.about(task, chosen.STRICT)}, at the best share", "strict_", share, random),
    ):
        whole = f"{prefix}dataset{suffix}"
        of = roles(task, rows)["best"] if suffix else best
        reaches(whole, of, f"{kind}: sigma_min per data set is as good as the best of the sweep")
        each = f"{prefix}datapoint{suffix}"
        reaches(each, whole, f"{kind}: per datapoint is at least as good as per data set")
        bucket = best_of([f"{prefix}{name}{suffix}" for name in buckets], rows)
        reaches(bucket, whole, f"{kind}: buckets are at least as good as per data set")
    return told


def _few(task, gap):
    names = ["target", f"alpha_{task.best_alpha:g}", policies.hard(task.best)]
    names = [f"{name}_few" for name in names]
    gaps = [gap(low, high) for low, high in itertools.pairwise(names)]
    if None in gaps:
        return []
    verdicts = [_above(found) for found in gaps]
    holds = False if False in verdicts else None if None in verdicts else True
    claim = f"with {task.few} target demonstrations: target only < re-weighted < ambient"
    measured = "; ".join(map(_measured, names, names[1:], gaps))
    return [(claim, measured, holds)]


def _scaling(task, gap):
    """From the smallest |D_S| to the largest: hard bounds leave ever less of what trains to the
    target, soft ones and buckets do not."""
    told = []
    for target, method in itertools.product(task.targets, task.methods):
        small, large = min(task.sources, default=0), max(task.sources, default=0)
        names = [policies.scaling(method, size, target) for size in (small, large)]
        found, falls = gap(*names), method in _HARD
        if method == "datapoint" or small == large or not found:
            continue
        claim = (
            f"{policies.method_label(task, method)}, {target} target demonstrations: success "
            f"{'falls' if falls else 'does not fall'} from {small} to {large} source ones"
        )
        reaches = _reaches(found)
        told.append((claim, points(found), None if reaches is None else reaches != falls))
    return told


def _drift(task, drifts):
    """The same by the loss on held-out target demonstrations: what a method learns of the target
    above sigma_min is how far its loss is below that of source only."""
    told = []
    for target, by_method in drifts.items():
        for method, ratios in by_method.items():
            if method == "datapoint" or len(ratios) < 2:
                continue
            first, last = (1 - ratios[end(ratios)] for end in (min, max))
            falls = method in _HARD
            claim = (
                f"{policies.method_label(task, method)}, {target} target demonstrations: "
                f"{'loses more' if falls else 'keeps more'} than half of what the target teaches "
                "it above sigma_min"
            )
            measured = f"loss {100 * first:.1f}% below source only, then {100 * last:.1f}%"
            holds = (last < first / 2) == falls if first >= _LEAST else None
            told.append((claim, measured, holds))
    return told


def _bias(task, bias, scaled):
    told = []
    largest = lambda found: modes.largest(found)[0]  # noqa: E731
    for size in task.buckets:
        if {"datapoint", f"random_{size}"} <= bias.keys():
            each, bucket = largest(bias["datapoint"]), largest(bias[f"random_{size}"])
            claim = f"bias of modes: random buckets of {size} have less than half of a datapoint's"
            told.append((claim, f"{bucket:.3f} against {each:.3f}", bucket < each / 2))
    for target, by_source in scaled.items():
        pairs = {
            source: (largest(found[f"random_{task.bucket}"]), largest(found["datapoint"]))
            for source, found in by_source.items()
        }
        claim = (
            f"bias of modes, {target} target demonstrations: the same at every number of source "
            "demonstrations"
        )
        measured = "; ".join(f"{n}: {b:.3f} against {e:.3f}" for n, (b, e) in pairs.items())
        told.append((claim, measured, all(b < e / 2 for b, e in pairs.values())))
    return told


def _above(gap):
    return True if gap.low > 0 else False if gap.high < 0 else None


def _reaches(gap):
    return False if gap.high < 0 else True if gap.low >= -MARGIN else None


def _measured(low, high, gap):
    return f"{low} to {high}: {points(gap)}"
