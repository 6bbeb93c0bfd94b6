"""From the rollouts of all policies to the report: table, claims, figures, ``results.json``."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.policy import evaluation
from experiments import report
from experiments.planar_pushing import chosen, claims, drift, judge, metrics, modes, policies, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import entries as table_entries
from experiments.table import rows as table_rows
from experiments.table.rows import Row

COLUMNS = (
    *("policy", "seeds", "success", "95%", "of each seed", "final distance, mm"),
    *("final angle, degrees", "seconds of successes", "talk", "paper"),
)
# Success as printed in the talk and in the paper, each with its own best alpha and bounds: Wei
# 2025; arXiv 2606.12365, section 5.2.
TALK = {"target": "75.5", "best alpha": "84.5", "best": "93.5"}
PAPER = {
    "target": "56.5",
    "best alpha": "84.5",
    "best": "87.0",
    "datapoint": "93.5",
    "best omni": "92.0",
}


def summarise(label: str, rollouts: Mapping[int, Rollouts]) -> Row:
    """A row from the rollouts of each seed, pooled."""
    of = lambda some: metrics.summarise(  # noqa: E731
        *(np.concatenate([getattr(r, n) for r in some]) for n in ("success", "error", "lengths"))
    )
    return Row(label, of(rollouts.values()), {s: of([r]) for s, r in rollouts.items()})


def write(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the table as markdown."""
    from experiments.planar_pushing import table_figures  # they need matplotlib, numbers do not

    entries = policies.entries(config.task)
    found = table_rows.collect(judge.TABLE, config, workdir, judge.load)
    rows = {n: summarise(entries[n].label, r) for n, r in found.items()}
    best = roles(config.task, rows)
    made = [name for name in chosen.needed(config.task) if name in config.task.annotations]
    annotations = {name: chosen.results(workdir, name) for name in made}
    bias = modes.study(config)
    scaled = [name for name in rows if entries[name].group == "scaling"]
    held_out = drift.losses(config, workdir, scaled)
    drifts = drift.of_methods(config.task, held_out)
    checked = claims.check(config, rows, bias, drifts)
    seconds = {name: table_entries.core_seconds(config, workdir, name) for name in rows}
    results = {
        "policies": rows,
        "claims": [dict(zip(("claim", "measured", "holds"), c, strict=True)) for c in checked],
        "best": best,
        "annotations": {name: _kept(told) for name, told in annotations.items()},
        "modes": {"names": modes.MODES, "levels": evaluation.LEVELS, "bias": bias},
        "held out": {"levels": evaluation.LEVELS, "loss": held_out, "of source only": drifts},
        "training core seconds": seconds,
        "config": config.to_dict(),
    }
    lines = [_cells(row, name, best) for name, row in rows.items()]
    caption = _caption(config, seconds, checked, annotations, bias, drifts)
    table = report.write(workdir / "report", COLUMNS, lines, caption, results)
    first = {name: rollouts[min(rollouts)] for name, rollouts in found.items()}
    table_figures.write(config, workdir, rows, best, first, annotations, bias, drifts)
    return table


def roles(config: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> dict[str, str]:
    """The policies that stand for the published ones: {"best alpha": name, ...}, "" for none."""
    return {
        "best": claims.best_of(claims.hard(config, rows), rows),
        "best alpha": claims.best_of(claims.reweighted(config, rows).values(), rows),
        "best omni": claims.best_of([f"omni_{level:g}" for level in config.sigma_max], rows),
    }


def _cells(row: Row, name: str, best: Mapping[str, str]) -> list[str]:
    summary = row.summary
    success, seconds = summary.success, summary.seconds
    reference = next((role for role, of in best.items() if of == name), name)
    return [
        row.label + (" (best)" if reference != name else ""),
        str(len(row.seeds)),
        f"{100 * success.value:.1f}%",
        f"{100 * success.low:.1f} to {100 * success.high:.1f}",
        ", ".join(f"{100 * s.success.value:.1f}" for s in row.seeds.values()),
        f"{1000 * summary.position.value:.1f}",
        f"{math.degrees(summary.angle.value):.1f}",
        f"{seconds.value:.1f}" if seconds.count else "",
        TALK.get(reference, ""),
        PAPER.get(reference, ""),
    ]


def _caption(config, seconds, checked, annotations, bias, drifts):
    given, data = config.task, config.data.sources
    parts = [
        f"{given.episodes} episodes in the target's physics for each policy and training seed (the "
        f"same starts); {config.train.steps} steps of {config.train.batch_size}, solver "
        f"{config.policy.solver} {config.policy.steps}, planned anew every {config.policy.execute} "
        "steps. Target demonstrations: "
        f"{data.target.split} of {given.target}; source: {data.source.split} of {given.source}, "
        f"gap {given.gap:g}, unless a row says otherwise. Success: at rest within "
        f"{task.asked(task.scene_of(config))}; Wilson's interval over the episodes of all seeds, "
        "which knows nothing of how seeds differ: their own successes stand beside it. Errors are "
        "means over all episodes. The best of a sweep is picked by the successes shown. Training "
        f"took {sum(seconds.values()) / 3600:.1f} core hours, rollouts not counted."
    ]
    if checked:
        lines = [(c, value, "yes" if holds else "**no**") for c, value, holds in checked]
        parts.append(report.markdown(("expected", "measured", "holds"), lines))
    if annotations:
        lines = [_bounds_cells(name, units, t) for name, units, t in _units(annotations)]
        parts += [
            "Bounds that the classifiers chose: mean and quantiles of the units' sigma_min, and "
            "the share of units that are admitted at every level and at none.",
            report.markdown(
                ("annotation", "per", "units", "sigma_min", "10% to 90%", "always", "never"), lines
            ),
        ]
    if bias:
        parts += [
            "Bias of modes: total variation between what the pusher does in the admitted source "
            "chunks and in all of them, at the level where it is largest (of those that admit "
            f"{modes.LEAST:.0%} of the chunks or more), and the mode that changes most there. In "
            "the data: " + _shares(bias["dataset"]["data"]) + ".",
            report.markdown(
                ("bounds per", "bias", "at sigma", "admitted there", "mode: share, in the data"),
                [_bias_cells(name, told) for name, told in bias.items()],
            ),
        ]
    if drifts:
        parts += [
            f"Loss on {drift.SAMPLES} chunks of held-out target demonstrations over that of source "
            f"only with the same source demonstrations, at noise levels from {given.best:g} to "
            "0.95 (geometric mean): 1 where nothing is left of the target.",
            report.markdown(
                ("method", "target", *map(str, sorted(given.sources))),
                [
                    [policies.method_label(given, method), str(target)]
                    + [f"{r[n]:.3f}" if n in r else "" for n in sorted(given.sources)]
                    for target, by_method in drifts.items()
                    for method, r in by_method.items()
                ],
            ),
        ]
    return "\n\n".join(parts)


def _units(annotations):
    """(annotation, granularity, what it found) of all, one after the other."""
    for name, told in annotations.items():
        for key, found in told["sigma_min"].items():
            yield name, chosen.words(key.removeprefix("source, ")), found


def _bounds_cells(name, units, found):
    low, high = found["quantiles"][1], found["quantiles"][3]
    shares = [f"{100 * found[share]:.1f}%" for share in ("always", "never")]
    sizes = [str(found["units"]), f"{found['mean']:.3f}", f"{low:.3f} to {high:.3f}"]
    return [name, units, *sizes, *shares]


def _bias_cells(name, told):
    value, index = modes.largest(told)
    if index < 0:
        return [chosen.words(name), "", "", "", ""]
    share, data = told["shares"][index], told["data"]
    most = int(np.argmax(np.abs(share - data)))
    level, admitted = evaluation.LEVELS[index], told["admitted"][index]
    changed = f"{modes.MODES[most]}: {share[most]:.1%}, {data[most]:.1%}"
    return [chosen.words(name), f"{value:.3f}", f"{level:.3f}", f"{admitted:.1%}", changed]


def _shares(shares):
    return ", ".join(f"{m} {s:.1%}" for m, s in zip(modes.MODES, shares, strict=True))


def _kept(told: Mapping[str, Any]) -> dict[str, Any]:
    names = ("sigma_min", "levels", "curves", "total_variation", "classifier")
    return {name: told[name] for name in names}
