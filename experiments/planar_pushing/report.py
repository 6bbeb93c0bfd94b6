"""Writes the report of the table: rows, caption, figures, ``results.json``."""

import dataclasses
import math
from collections.abc import Mapping

from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import caption, claims, metrics, studies, table_figures, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import policies, report, rollouts
from experiments.table.experiment import Table
from experiments.table.report import Row

Made = Mapping[str, Mapping[int, Rollouts]]  # rollouts by policy and training seed
COLUMNS = (
    *("policy", "seeds", "success", "95%", "of each seed", "final distance, mm"),
    *("final angle, degrees", "seconds of successes", "talk", "paper"),
)
# Success as printed in the talk and in the paper, each with its own best alpha and bounds: Wei
# 2025; arXiv 2606.12365, section 5.2.
TALK = {"target": "75.5", "best alpha": "84.5", "best": "93.5"}
PAPER = {"target": "56.5", "best alpha": "84.5", "best": "87.0", "datapoint": "93.5"}
PAPER["best omni"] = "92.0"


def summarise(label: str, by_seed: Mapping[int, Rollouts]) -> Row:
    """Returns a row from the rollouts of each seed."""
    return report.row(label, by_seed, lambda r: metrics.summarise(r.success, r.error, r.lengths))


def rows_of(table: Table, collected: Made) -> dict[str, Row]:
    """Returns the rows of the table by policy."""
    return {name: summarise(table.rows[name].label, by_seed) for name, by_seed in collected.items()}


def gains(collected: Made) -> claims.Gap:
    """Returns the function of gains in success, see ``report.gain``."""
    return lambda low, high: report.gain(collected, high, low)


def _fresh(table: Table) -> Table:
    """Returns the table with rollouts ``fresh.npz`` from the starts of ``task.fresh``."""
    files = lambda *args: {"fresh.npz": rollouts.simulated(*args)["rollouts.npz"]}  # noqa: E731
    experiment = dataclasses.replace(table.experiment, files=files)
    return dataclasses.replace(table, experiment=experiment, config=task.fresh(table.config))


def confirm(table: Table) -> None:
    """Writes ``fresh.npz`` of the policies picked as the best, for all seeds."""
    picked = claims.picked(table.config.task, rows_of(table, rollouts.collect(table)))
    program = {
        policies.key(name, seed): table.config_of(name, seed)
        for name in picked
        for seed in table.config.task.seeds
        if (table.folder(name, seed) / "rollouts.npz").exists()
    }
    rollouts.evaluate(_fresh(table), program)


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from all rollouts; returns the table as markdown."""
    config, collected = table.config, rollouts.collect(table)
    rows = rows_of(table, collected)
    best, picked = claims.roles(config.task, rows), claims.picked(config.task, rows)
    fresh = rollouts.collect(_fresh(table), picked)
    confirmed = rows_of(table, fresh)
    annotations = {n: made.results for n, made in table.annotations.items() if made.results}
    bias, scaled_bias = studies.bias_of_table(table), studies.bias_of_scaling(table)
    scaling = [name for name in rows if table.rows[name].group == "scaling"]
    losses = studies.drift_losses(table, scaling)
    drifts = studies.drifts(config.task, losses)
    studied = dict(bias=bias, scaled_bias=scaled_bias, drifts=drifts)
    checked = claims.check(config.task, rows, gains(collected), gains(fresh), **studied)
    seconds = {name: report.core_seconds(table, name) for name in rows}
    results = {
        "fresh starts": confirmed,
        "best": best,
        "modes": {"names": studies.MODES, "bias": bias, "scaling": scaled_bias},
        "levels": evaluation.LEVELS,
        "held out": {"loss": losses, "of source only": drifts},
        "training core seconds": seconds,
    }
    parts = [
        caption.measured(config, seconds),
        caption.fresh(config, confirmed),
        caption.expected(checked),
        caption.bounds(annotations),
        caption.bias(bias),
        caption.scaled_bias(scaled_bias),
        caption.drifts(config, drifts),
    ]
    text = report.write(table, COLUMNS, cells(rows, best), parts, rows, checked, results)
    first = {name: by_seed[min(by_seed)] for name, by_seed in collected.items()}
    table_figures.write(table, rows, best["best"], first, bias, drifts)
    return text


def cells(rows: Mapping[str, Row], best: Mapping[str, str]) -> list[list[str]]:
    """Returns the table's lines, see ``COLUMNS``."""
    lines = []
    for name, row in rows.items():
        summary = row.summary
        reference = next((role for role, policy in best.items() if policy == name), name)
        lines.append(
            [
                row.label + (f" ({reference})" if reference != name else ""),
                *(str(len(row.seeds)), *report.percent(summary.success)),
                report.of_each_seed(row, "success"),
                f"{1000 * summary.position.value:.1f}",
                f"{math.degrees(summary.angle.value):.1f}",
                f"{summary.seconds.value:.1f}" if summary.seconds.count else "",
                *(published.get(reference, "") for published in (TALK, PAPER)),
            ]
        )
    return lines
