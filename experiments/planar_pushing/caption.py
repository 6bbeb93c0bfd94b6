"""Writes the text below the report's table: measurement, claims, and the tables of studies.

Each function returns one part as markdown, or "".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.cli import report
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import claims, classifier_bounds, policies, studies, task
from experiments.table import report as table_report
from experiments.table.report import Claim, Row

_BIAS = ("bounds per", "bias", "at sigma", "admitted there", "mode: share, in the data")


def measured(config: ml_collections.ConfigDict, seconds: Mapping[str, float]) -> str:
    """Describes how the numbers of the table were measured."""
    o, data = config.task, config.data.sources
    return (
        f"{o.episodes} episodes in the target's physics for each policy and training seed (the "
        f"same starts); {config.train.steps} steps of {config.train.batch_size}, solver "
        f"{config.policy.solver} {config.policy.steps}, planned anew every {config.policy.execute} "
        f"steps. Target demonstrations: {data.target.split} of {o.target}; source: "
        f"{data.source.split} of {o.source}, gap {o.gap:g}, unless a row says otherwise. "
        f"Success: at rest within {task.asked(task.scene_of(config))}; Wilson's interval over the "
        "episodes of all seeds, which knows nothing of how seeds differ: their own successes stand "
        "beside it. Errors are means over all episodes. The best of a sweep is picked by the "
        "successes shown. " + table_report.training_took(seconds)
    )


def fresh(config: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> str:
    """Describes the picked policies on starts that did not pick them."""
    text = (
        f"The policies picked as the best, and target only, from {config.task.fresh} fresh starts "
        "for each training seed:"
    )
    lines = [
        [row.label, str(len(row.seeds)), *table_report.percent(row.summary.success)]
        for row in rows.values()
    ]
    return _part(text, ("policy", "seeds", "success", "95%"), lines)


def expected(checked: Sequence[Claim]) -> str:
    """Lists the claims."""
    if not checked:
        return ""
    return (
        f"{table_report.expected(checked)}\n\n"
        "Gains in points of success: means over the same starts, with bootstrap intervals of "
        "95% over starts. An order holds if its interval is above 0. What is to be as good, or not "
        f"to fall, holds if the interval is above {-100 * claims.MARGIN:g} points, and does not if "
        "it is below 0."
    )


def bounds(annotations: Mapping[str, Any]) -> str:
    """Lists the bounds of classifiers, from ``Annotation.results`` by name."""
    text = (
        "Bounds that the classifiers chose: mean and quantiles of the units' sigma_min, and the "
        "share of units that are admitted at every level and at none."
    )
    columns = ("annotation", "per", "units", "sigma_min", "10% to 90%", "always", "never")
    lines = []
    for name, results in annotations.items():
        for key, units in results["sigma_min"].items():
            words = classifier_bounds.words(key.removeprefix("source, "))
            low, high = units["quantiles"][1], units["quantiles"][3]
            sizes = [str(units["units"]), f"{units['mean']:.3f}", f"{low:.3f} to {high:.3f}"]
            shares = [f"{100 * units[share]:.1f}%" for share in ("always", "never")]
            lines.append([name, words, *sizes, *shares])
    return _part(text, columns, lines)


def bias(by_granularity: Mapping[str, Any]) -> str:
    """Describes the study of bias of the table's bounds."""
    if not by_granularity:
        return ""
    data = next(iter(by_granularity.values()))["data"]
    shares = ", ".join(f"{m} {s:.1%}" for m, s in zip(studies.MODES, data, strict=True))
    text = (
        "Bias of modes: total variation between what the pusher does in the admitted source "
        "chunks and in all of them, at the level where it is largest (of those that admit "
        f"{studies.LEAST:.0%} of the chunks or more), and the mode that changes most there. In the "
        f"data: {shares}."
    )
    return _part(text, _BIAS, [_bias_cells(*item) for item in by_granularity.items()])


def scaled_bias(by_target: Mapping[int, Any]) -> str:
    """Describes the study of bias against the number of source demonstrations."""
    text = "Bias of modes, as in the table's study, against the numbers of demonstrations:"
    lines = [
        [str(target), str(source), *_bias_cells(*item)]
        for target, by_source in by_target.items()
        for source, by_name in by_source.items()
        for item in by_name.items()
    ]
    return _part(text, ("target", "source", *_BIAS), lines)


def drifts(config: ml_collections.ConfigDict, by_target: Mapping[int, Any]) -> str:
    """Describes the study of drift."""
    sizes = sorted(config.task.sources)
    text = (
        f"Loss on {studies.SAMPLES} chunks of held-out target demonstrations over that of source "
        "only with the same source demonstrations, at noise levels from "
        f"{config.task.best:g} to 0.95 (geometric mean): 1 where nothing is left of the target."
    )
    lines = [
        [policies.method_label(config.task, method), str(target)]
        + [f"{ratios[n]:.3f}" if n in ratios else "" for n in sizes]
        for target, by_method in by_target.items()
        for method, ratios in by_method.items()
    ]
    return _part(text, ("method", "target", *map(str, sizes)), lines)


def _part(text, columns, lines):
    return f"{text}\n\n{report.markdown(columns, lines)}" if lines else ""


def _bias_cells(granularity, study):
    value, index = studies.largest(study)
    words = classifier_bounds.words(granularity)
    if index < 0:
        return [words, "", "", "", ""]
    share, data = study["shares"][index], study["data"]
    most = int(np.argmax(np.abs(share - data)))
    level, admitted = evaluation.LEVELS[index], study["admitted"][index]
    changed = f"{studies.MODES[most]}: {share[most]:.1%}, {data[most]:.1%}"
    return [words, f"{value:.3f}", f"{level:.3f}", f"{admitted:.1%}", changed]
