"""Checks the claims about planar pushing with the numbers of the table."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from ambient_jax.estimates import Estimate
from experiments.planar_pushing import classifier_bounds, policies, studies
from experiments.table.report import Claim, Row, best_of

Rows = Mapping[str, Row]
# Gain in success from the first policy to the second over the same starts; None if one is missing
# or they share no training seed.
Gap = Callable[[str, str], Estimate | None]
# Methods that learn less of the target as the source grows.
_HARD = ("hard", "low", "dataset")
MARGIN = 0.05  # largest loss of success of a policy that counts as equally good
_LEAST = 0.02  # least share of the loss below source only for a method to lose some of it


def sweep(task: ml_collections.ConfigDict, rows: Rows) -> dict[float, str]:
    """Returns the evaluated policies of the sweep, by increasing sigma_min."""
    names = {level: policies.hard(level) for level in _levels(task)}
    return {level: name for level, name in names.items() if name in rows}


def roles(task: ml_collections.ConfigDict, rows: Rows) -> dict[str, str]:
    """Returns the counterparts of published policies: {"best alpha": name, ...}, "" for none."""
    natural = [policies.hard(level) for level in _levels(task)]
    weighted = [policies.weighted(v, alpha) for alpha in task.alpha for v in _levels(task)]
    return {
        "best": best_of([*natural, *weighted], rows),
        "best alpha": best_of([f"alpha_{alpha:g}" for alpha in sorted(task.alpha)], rows),
        "best natural": best_of(natural, rows),
        "best omni": best_of([f"omni_{level:g}" for level in task.sigma_max], rows),
    }


def picked(task: ml_collections.ConfigDict, rows: Rows) -> list[str]:
    """Returns the evaluated policies whose order is claimed."""
    role = roles(task, rows)
    names = ("target", *(role[name] for name in ("best alpha", "best natural", "best")))
    return [name for name in dict.fromkeys(names) if name in rows]


def check(
    task: ml_collections.ConfigDict,
    rows: Rows,
    gap: Gap,
    fresh: Gap,
    *,
    bias: Mapping[str, Any] | None = None,
    scaled_bias: Mapping[int, Any] | None = None,
    drifts: Mapping[int, Any] | None = None,
) -> list[Claim]:
    """Returns the claims about the evaluated policies.

    ``gap`` compares on the table's starts, ``fresh`` on starts on which no policy was picked; the
    other arguments are results of ``studies``.
    """
    return [
        *_order(task, rows, fresh),
        *_granularities(task, rows, gap),
        *_few(task, gap),
        *_scaling(task, gap),
        *_drift(task, drifts or {}),
        *_bias(task, bias or {}, scaled_bias or {}),
    ]


def points(gap: Estimate) -> str:
    """Describes a gain."""
    return f"{100 * gap.value:+.1f} points [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"


def _levels(task):
    return sorted({*task.sigma_min, task.best})


def _order(task, rows, fresh):
    role = roles(task, rows)
    mixed, natural, best = role["best alpha"], role["best natural"], role["best"]
    claim = "the best re-weighted co-training < the best ambient"
    pairs = [("target", mixed, "target only < the best re-weighted co-training")]
    pairs += [(mixed, natural, f"{claim} by natural weights")] if natural != best else []
    return [
        Claim(f"{claim}, on fresh starts", _measured(low, high, gap), _above(gap))
        for low, high, claim in (*pairs, (mixed, best, claim))
        if (gap := fresh(low, high))
    ]


def _granularities(task, rows, gap):
    """Compares finer units with one bound for all, and the classifier's bound with the sweep."""
    role = roles(task, rows)
    sizes = (*task.buckets, *task.more_buckets)
    buckets = [f"{way}_{size}" for size in sizes for way in classifier_bounds.WAYS]
    random = [f"random_{size}" for size in task.buckets]
    share, at_share = f"_alpha_{task.best_alpha:g}", ", at the best share"
    strict = classifier_bounds.about(task, classifier_bounds.STRICT)
    claims = []
    for classifier, prefix, suffix, units in (
        ("classifier", "", "", buckets),
        ("observing classifier", f"{classifier_bounds.OBSERVED}_", "", []),
        (strict, f"{classifier_bounds.STRICT}_", "", random),
        (f"classifier{at_share}", "", share, random),
        (f"{strict}{at_share}", f"{classifier_bounds.STRICT}_", share, random),
    ):
        whole, datapoint = (f"{prefix}{unit}{suffix}" for unit in ("dataset", "datapoint"))
        best = role["best" if suffix else "best natural"]
        bucket = best_of([f"{prefix}{unit}{suffix}" for unit in units], rows)
        for name, reference, claim in (
            (whole, best, "sigma_min per data set is as good as the best of the sweep"),
            (datapoint, whole, "per datapoint is at least as good as per data set"),
            (bucket, whole, "buckets are at least as good as per data set"),
        ):
            if gain := gap(reference, name):
                measured = _measured(reference, name, gain)
                claims.append(Claim(f"{classifier}: {claim}", measured, _reaches(gain)))
    return claims


def _few(task, gap):
    names = ["target", f"alpha_{task.best_alpha:g}", policies.hard(task.best)]
    names = [f"{name}_few" for name in names]
    gaps = [gap(low, high) for low, high in itertools.pairwise(names)]
    if None in gaps:
        return []
    verdicts = [_above(gain) for gain in gaps]
    holds = False if False in verdicts else None if None in verdicts else True
    claim = f"with {task.few} target demonstrations: target only < re-weighted < ambient"
    return [Claim(claim, "; ".join(map(_measured, names, names[1:], gaps)), holds)]


def _scaling(task, gap):
    """Compares the smallest and the largest |D_S|: success falls only with hard bounds."""
    small, large = min(task.sources, default=0), max(task.sources, default=0)
    claims = []
    for target, method in itertools.product(task.targets, task.methods):
        names = [policies.scaling(method, size, target) for size in (small, large)]
        gain, falls = gap(*names), method in _HARD
        if method == "datapoint" or small == large or not gain:
            continue
        claim = (
            f"{policies.method_label(task, method)}, {target} target demonstrations: success "
            f"{'falls' if falls else 'does not fall'} from {small} to {large} source ones"
        )
        reaches = _reaches(gain)
        claims.append(Claim(claim, points(gain), None if reaches is None else reaches != falls))
    return claims


def _drift(task, drifts):
    """Compares the same by losses on held-out target demonstrations relative to source only."""
    claims = []
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
            claims.append(Claim(claim, measured, holds))
    return claims


def _bias(task, bias, scaled):
    largest = lambda biases, name: studies.largest(biases[name])[0]  # noqa: E731
    claims = []
    for size in task.buckets:
        if {"datapoint", f"random_{size}"} <= bias.keys():
            point, bucket = largest(bias, "datapoint"), largest(bias, f"random_{size}")
            claim = f"bias of modes: random buckets of {size} have less than half of a datapoint's"
            claims.append(Claim(claim, f"{bucket:.3f} against {point:.3f}", bucket < point / 2))
    for target, by_source in scaled.items():
        pairs = {
            source: (largest(study, f"random_{task.bucket}"), largest(study, "datapoint"))
            for source, study in by_source.items()
        }
        claim = (
            f"bias of modes, {target} target demonstrations: the same at every number of source "
            "demonstrations"
        )
        measured = "; ".join(f"{n}: {b:.3f} against {e:.3f}" for n, (b, e) in pairs.items())
        claims.append(Claim(claim, measured, all(b < e / 2 for b, e in pairs.values())))
    return claims


def _above(gap):
    return True if gap.low > 0 else False if gap.high < 0 else None


def _reaches(gap):
    return False if gap.high < 0 else True if gap.low >= -MARGIN else None


def _measured(low, high, gap):
    return f"{low} to {high}: {points(gap)}"
