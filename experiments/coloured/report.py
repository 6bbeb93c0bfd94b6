"""Writes the report: what the classifier tells by colour, the policies, the figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ambient_jax.cli import report
from experiments.coloured import judge
from experiments.coloured.judge import Judged
from experiments.maze import metrics
from experiments.table import report as tables
from experiments.table import rollouts
from experiments.table.experiment import Table
from experiments.table.figures import noise_axis, panels, save, style

SHOWN = 0.05, 0.2, 0.5, 0.9  # levels of the total variation in the table
COLUMNS = (
    *("noise", "exponent", "sigma_min"),
    *(f"TV at {level:g}" for level in SHOWN),
    *("success", "95%", "jerk^2", "95%"),
)


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the table as markdown."""
    found: Any = table.annotations
    by_policy = rollouts.collect(table)
    rows = {
        name: tables.row(table.rows[name].label, seeds, metrics.summarise)
        for name, seeds in by_policy.items()
    }
    lines = [
        _cells(name, judged, rows.get(name.replace("^", ""))) for name, judged in found.items()
    ]
    results = {
        "levels": judge.LEVELS,
        "colours": found,
        "policies": rows,
        "training core seconds": {name: tables.core_seconds(table, name) for name in rows},
        "config": table.config.to_dict(),
    }
    folder = table.workdir / "report"
    text = report.write(folder, COLUMNS, lines, caption(table.config), results)
    save(folder, {"contraction": figure(found)})
    return text


def caption(config: Any) -> str:
    """Describes how the numbers were measured."""
    task = config.task
    return (
        f"{task.clean} GCS and {task.corrupt} RRT plans. Noise with the spectrum f^-exponent along "
        "the horizon, all of the same total power; data: the exponent of the GCS chunks. sigma_min "
        f"is where P(clean) of RRT chunks passes {0.5 - task.tau:g}; TV: the share of held-out "
        "chunks that the classifier tells apart. Policies: ambient with that sigma_min, "
        f"{task.goals} goals of seed {task.eval_seed}, {len(task.seeds)} training seed, "
        f"{config.train.steps} steps of {config.train.batch_size}, {config.policy.solver} "
        f"{config.policy.steps}. Wilson's interval of success, bootstrap intervals of jerk^2."
    )


def figure(found: Mapping[str, Judged]) -> Figure:
    """Plots the total variation, and the divergence of Gaussians, against the noise level."""
    plot, [[left, right]] = panels(1, 2, 9.6, 3.6)
    for i, (name, judged) in enumerate(found.items()):
        value, low, high = judged.total_variation
        look = style(i)
        left.fill_between(judge.LEVELS, low, high, color=look["color"], alpha=0.15, lw=0)
        label = f"{name} (exponent {judged.exponent:.2f})"
        left.plot(judge.LEVELS, value, ms=4, lw=1.4, label=label, **look)
        left.axvline(judged.sigma_min, color=look["color"], lw=0.8, ls=":")
        right.plot(judge.LEVELS, judged.divergence, ms=4, lw=1.4, **look)
    noise_axis(left, ylabel="total variation told by the classifier", ylim=(0, 1))
    noise_axis(right, ylabel="KL of Gaussians, nats", yscale="log")
    left.legend(fontsize=7, loc="upper right", title="dotted: sigma_min", title_fontsize=7)
    return plot


def _cells(name, judged: Judged, row):
    tv = [np.interp(level, judge.LEVELS, judged.total_variation[0]) for level in SHOWN]
    cells = [name, f"{judged.exponent:.2f}", f"{judged.sigma_min:.3f}", *(f"{v:.2f}" for v in tv)]
    if row is None:
        return [*cells, *([""] * 4)]
    return [*cells, *tables.percent(row.summary.success), *tables.numbers(row.summary.jerk)]
