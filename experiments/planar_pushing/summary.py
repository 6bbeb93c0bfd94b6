"""From the rollouts of all policies to the report: table, claims, figures, ``results.json``."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.cli import report
from ambient_jax.evaluate import evaluation
from experiments.estimates import Estimate, paired
from experiments.planar_pushing import (
    caption,
    chosen,
    claims,
    drift,
    judge,
    metrics,
    modes,
    policies,
    task,
)
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import entries as table_entries
from experiments.table import rows as table_rows
from experiments.table.rows import Row

Found = Mapping[str, Mapping[int, Rollouts]]  # rollouts by policy and training seed
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


def collect(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Found:
    """The rollouts that there are of the configured policies: {policy: {seed: rollouts}}."""
    return table_rows.collect(config, workdir, policies.entries(config.task), judge.load)


def rows_of(config: ml_collections.ConfigDict, found: Found) -> dict[str, Row]:
    """The rows of the table by policy."""
    entries = policies.entries(config.task)
    return {name: summarise(entries[name].label, of) for name, of in found.items()}


def gains(found: Found) -> claims.Gap:
    """``claims.Gap`` of rollouts: differences start by start, means over the seeds of both."""

    def gain(low: str, high: str) -> Estimate | None:
        seeds = sorted(found.get(low, {}).keys() & found.get(high, {}).keys())
        if not seeds:
            return None
        of = lambda name: np.mean([found[name][seed].success for seed in seeds], 0)  # noqa: E731
        return paired(of(high), of(low))

    return gain


def write(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the table as markdown."""
    from experiments.planar_pushing import table_figures  # they need matplotlib, numbers do not

    found = collect(config, workdir)
    rows = rows_of(config, found)
    best = claims.roles(config.task, rows)
    picked = claims.picked(config.task, rows)
    entries = policies.entries(config.task)
    some = {name: entries[name] for name in picked}
    fresh = table_rows.collect(task.fresh(config), workdir, some, judge.load, judge.FRESH)
    confirmed = rows_of(config, fresh)
    made = [name for name in chosen.needed(config.task) if name in config.task.annotations]
    annotations = {name: chosen.results(workdir, name) for name in made}
    bias, scaled_bias = modes.study(config), modes.study_scaling(config)
    scaled = [name for name in rows if entries[name].group == "scaling"]
    held_out = drift.losses(config, workdir, scaled)
    drifts = drift.of_methods(config.task, held_out)
    told = dict(bias=bias, scaled_bias=scaled_bias, drifts=drifts)
    checked = claims.check(config, rows, gains(found), gains(fresh), **told)
    seconds = {name: table_entries.core_seconds(config, workdir, name) for name in rows}
    results = {
        "policies": rows,
        "fresh starts": confirmed,
        "claims": [dict(zip(("claim", "measured", "holds"), c, strict=True)) for c in checked],
        "best": best,
        "annotations": {name: _kept(told) for name, told in annotations.items()},
        "modes": {"names": modes.MODES, "bias": bias, "scaling": scaled_bias},
        "levels": evaluation.LEVELS,
        "held out": {"loss": held_out, "of source only": drifts},
        "training core seconds": seconds,
        "config": config.to_dict(),
    }
    lines = [_cells(row, name, best) for name, row in rows.items()]
    parts = [
        caption.measured(config, sum(seconds.values())),
        caption.fresh(config, confirmed),
        caption.expected(checked),
        caption.bounds(annotations),
        caption.bias(bias),
        caption.scaled_bias(scaled_bias),
        caption.drifts(config, drifts),
    ]
    text = "\n\n".join(part for part in parts if part)
    table = report.write(workdir / "report", COLUMNS, lines, text, results)
    first = {name: rollouts[min(rollouts)] for name, rollouts in found.items()}
    table_figures.write(config, workdir, rows, best, first, annotations, bias, drifts)
    return table


def _cells(row: Row, name: str, best: Mapping[str, str]) -> list[str]:
    summary = row.summary
    success, seconds = summary.success, summary.seconds
    reference = next((role for role, of in best.items() if of == name), name)
    return [
        row.label + (f" ({reference})" if reference != name else ""),
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


def _kept(told: Mapping[str, Any]) -> dict[str, Any]:
    names = ("sigma_min", "levels", "curves", "total_variation", "classifier")
    return {name: told[name] for name in names}
