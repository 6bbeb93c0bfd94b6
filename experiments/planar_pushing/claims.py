"""What planar pushing is expected to show, checked by the numbers of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from experiments.estimates import Estimate
from experiments.planar_pushing import chosen, modes, policies

Claim = tuple[str, str, bool]
# Methods whose share of target data falls as the source grows, and with it what they learn of it.
_HARD = ("hard", "low", "dataset")


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
    """The name that succeeds most often, of those that are there; "" if none is."""
    there = [name for name in names if name in rows]
    return max(there, key=lambda name: rows[name].summary.success.value, default="")


def half_widths(*estimates: Estimate) -> float:
    """[points] the mean of the intervals' half widths: by less, two policies do not differ."""
    return 100 * sum(e.high - e.low for e in estimates) / (2 * len(estimates))


def check(
    config: ml_collections.ConfigDict,
    rows: Mapping[str, Any],
    bias: Mapping[str, Any] | None = None,
    drifts: Mapping[int, Any] | None = None,
) -> list[Claim]:
    """(claim, measured, whether it holds); of policies that are not there yet it says nothing.

    Args:
      config: of the table.
      rows: ``Row`` by policy.
      bias: ``modes.study``.
      drifts: ``drift.of_methods``.
    """
    task = config.task
    told = [*_order(task, rows), *_units(task, rows), *_few(task, rows), *_scaling(task, rows)]
    told += _drift(task, drifts) if drifts else []
    return told + (_bias(task, bias) if bias else [])


def _order(task, rows):
    told = []
    mixed = best_of(reweighted(task, rows).values(), rows)
    best = best_of(hard(task, rows), rows)
    for low, high, claim in (
        ("target", mixed, "target only < the best re-weighted co-training"),
        (mixed, best, "the best re-weighted co-training < the best ambient"),
    ):
        if {low, high} <= rows.keys():
            told.append((claim, _measured(rows, low, high), _gap(rows, high, low) > 0))
    return told


def _units(task, rows):
    """Finer units against one bound for all; the classifier's bound against the sweep's best."""
    told = []

    def reaches(name, of, claim):
        if {name, of} <= rows.keys():
            slack = half_widths(_success(rows, name), _success(rows, of))
            gap = _gap(rows, name, of)
            measured = f"{_measured(rows, of, name)}: {gap:+.1f} points"
            told.append((f"{claim} (less at most {slack:.1f} points)", measured, gap >= -slack))

    best = best_of(sweep(task, rows).values(), rows)
    reaches("dataset", best, "sigma_min by classifier is as good as the best of the sweep")
    names = [f"{way}_{size}" for size in (*task.buckets, *task.more_buckets) for way in chosen.WAYS]
    reaches("datapoint", "dataset", "per datapoint is at least as good as per data set")
    reaches(best_of(names, rows), "dataset", "the best bucket is at least as good as per data set")
    reaches(
        "observed_datapoint", "observed_dataset", "the same with the observation, per datapoint"
    )
    return told


def _few(task, rows):
    names = ["target", f"alpha_{task.best_alpha:g}", policies.hard(task.best)]
    names = [f"{name}_few" for name in names]
    if not rows.keys() >= set(names):
        return []
    values = [_success(rows, name).value for name in names]
    claim = f"with {task.few} target demonstrations: target only < re-weighted < ambient"
    return [(claim, _measured(rows, *names), values[0] < values[1] < values[2])]


def _scaling(task, rows):
    """Along |D_S|, from the best of the smaller numbers to the largest: hard bounds leave ever less
    of what trains to the target, soft ones and buckets do not."""
    told = []
    for target in task.targets:
        for method in task.methods:
            if method == "datapoint":
                continue
            named = [policies.scaling(method, size, target) for size in sorted(task.sources)]
            if len(named) < 2 or not rows.keys() >= set(named):
                continue
            *smaller, last = named
            top = best_of(smaller, rows)
            slack = half_widths(_success(rows, top), _success(rows, last))
            gap = _gap(rows, last, top)
            falls = method in _HARD
            word = "falls by more" if falls else "does not fall by more"
            claim = (
                f"{policies.method_label(task, method)}, {target} target demonstrations: {word} "
                f"than {slack:.1f} points with the largest source"
            )
            told.append((claim, f"{gap:+.1f} points from {top}", (gap < -slack) == falls))
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
            told.append((claim, measured, (last < first / 2) == falls))
    return told


def _bias(task, bias):
    each = modes.largest(bias["datapoint"])[0]
    told = []
    for size in task.buckets:
        bucket = modes.largest(bias[f"random_{size}"])[0]
        claim = f"bias of modes: random buckets of {size} have less than half of per datapoint's"
        told.append((claim, f"{bucket:.3f} against {each:.3f}", bucket < each / 2))
    return told


def _success(rows, name) -> Estimate:
    return rows[name].summary.success


def _gap(rows, name, of):
    return 100 * (_success(rows, name).value - _success(rows, of).value)


def _measured(rows, *names):
    return ", ".join(f"{name} {100 * _success(rows, name).value:.1f}%" for name in names)
