"""Writes the report of the table: rows, caption, figures, ``results.json``."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.cli.report import markdown
from ambient_jax.evaluate import evaluation
from experiments.paper_pushing import figures, metrics, policies, task
from experiments.paper_pushing.rollout import Rollouts
from experiments.planar_pushing import claims
from experiments.planar_pushing.report import PAPER, gains
from experiments.planar_pushing.scene import DT
from experiments.table import policies as table_policies
from experiments.table import report, rollouts
from experiments.table.experiment import Table
from experiments.table.report import Claim, Row

Made = Mapping[str, Mapping[int, Rollouts]]  # rollouts by policy and training seed
COLUMNS = (
    *("policy", "seeds", "success, fresh starts", "95%", "of each seed", "slider placed"),
    *("slider lost", "pusher back", "final distance, mm", "final angle, degrees"),
    *("seconds of successes", "success, choosing starts", "95%", "paper"),
)
HELD_OUT, SAMPLES = "paper_target_held_out", 2048
_BANDS = ((0.0, 0.05), (0.05, 0.15), (0.15, 0.3), (0.3, 0.6), (0.6, 0.95))  # of noise levels


def rows_of(table: Table, collected: Made) -> dict[str, Row]:
    """Returns the rows of the table by policy."""
    summarise = functools.partial(metrics.summarise, scene=task.scene_of(table.config))
    return {n: report.row(table.rows[n].label, made, summarise) for n, made in collected.items()}


def compared(section: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> list[str]:
    """Returns the policies that fresh starts judge: target only, the best of each kind, the upper
    bound, and those that ``task.groups`` names."""
    names = (*claims.picked(section, rows), policies.UPPER, *section.groups)
    return [name for name in dict.fromkeys(names) if name in rows]


def fresh(table: Table, name: str = "fresh.npz", about: Any = None, **changes: Any) -> Table:
    """Returns the table with rollouts from the starts of ``task.fresh``, in files of this name that
    also depend on ``about``; ``changes`` are of its experiment."""
    files = lambda *args: {name: rollouts.simulated(*args)["rollouts.npz"] | (about or {})}  # noqa: E731
    experiment = dataclasses.replace(table.experiment, files=files, **changes)
    return dataclasses.replace(table, experiment=experiment, config=task.fresh(table.config))


def trained(table: Table) -> dict[str, Any]:
    """Returns the configs of the compared policies that are there, by their folder."""
    return {
        table_policies.key(name, seed): table.config_of(name, seed)
        for name in compared(table.config.task, rows_of(table, rollouts.collect(table)))
        for seed in table.config.task.seeds
        if (table.folder(name, seed) / "rollouts.npz").exists()
    }


def confirm(table: Table) -> None:
    """Writes ``fresh.npz`` of the compared policies, for all seeds."""
    rollouts.evaluate(fresh(table), trained(table))


def expected(section: ml_collections.ConfigDict, rows: Mapping[str, Row], gap) -> list[Claim]:
    """Returns the order of the paper on fresh starts."""
    role = claims.roles(section, rows)
    mixed, best = role["best alpha"], role["best"]
    checked = []
    for low, high, words in (
        ("target", mixed, "target only < the best re-weighted co-training"),
        (mixed, best, "the best re-weighted co-training < the best ambient"),
        (best, policies.UPPER, "the best ambient < the upper bound"),
    ):
        if gain := gap(low, high):
            holds = True if gain.low > 0 else False if gain.high < 0 else None
            checked.append(Claim(words, f"{low} to {high}: {claims.points(gain)}", holds))
    return checked


def held_out(table: Table, names: list[str]) -> dict[str, np.ndarray]:
    """Returns losses on held-out target chunks [S, L] by policy; {} where data are streamed."""
    if table.config.data.placement == "stream":
        return {}
    seeds = table.config.task.seeds
    return rollouts.held_out_losses(table, HELD_OUT, names, seeds, samples=SAMPLES)


def bands(losses: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Returns each policy's loss over target only's, geometric means over bands of levels."""
    levels = np.array(evaluation.LEVELS)
    if "target" not in losses:
        return {}
    log = {name: np.log(loss.mean(0) / losses["target"].mean(0)) for name, loss in losses.items()}
    some = [(levels > low) & (levels <= high) for low, high in _BANDS]
    return {n: [float(np.exp(ratio[band].mean())) for band in some] for n, ratio in log.items()}


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from all rollouts; returns the table as markdown."""
    config, collected = table.config, rollouts.collect(table)
    rows = rows_of(table, collected)
    made = rollouts.collect(fresh(table), compared(config.task, rows))
    judged = rows_of(table, made)
    best = claims.roles(config.task, rows)
    checked = expected(config.task, rows, gains(made))
    losses = held_out(table, list(rows))
    seconds = {name: report.core_seconds(table, name) for name in rows}
    results = {
        "fresh starts": judged,
        "best": best,
        "levels": evaluation.LEVELS,
        "held out": {name: loss.mean(0) for name, loss in losses.items()},
        "training core seconds": seconds,
    }
    parts = [_measured(config, seconds), _order(checked), _levels(table, losses)]
    lines = cells(rows, judged, best)
    text = report.write(table, COLUMNS, lines, parts, rows, checked, results)
    figures.write(table, rows, judged, best, made, losses)
    return text


def cells(
    rows: Mapping[str, Row], judged: Mapping[str, Row], best: Mapping[str, str]
) -> list[list[str]]:
    """Returns the table's lines, see ``COLUMNS``; details are of fresh starts, where there are."""
    lines = []
    for name, row in rows.items():
        of_fresh = judged.get(name)
        shown = of_fresh or row
        summary = shown.summary
        reference = next((role for role, policy in best.items() if policy == name), name)
        lines.append(
            [
                row.label + (f" ({reference})" if reference != name else ""),
                str(len(shown.seeds)),
                *(report.percent(of_fresh.summary.success) if of_fresh else ("", "")),
                report.of_each_seed(of_fresh, "success") if of_fresh else "",
                report.percent(summary.placed)[0],
                report.percent(summary.lost)[0],
                report.percent(summary.back)[0],
                f"{1000 * summary.position.value:.1f}",
                f"{math.degrees(summary.angle.value):.1f}",
                f"{summary.seconds.value:.1f}" if summary.seconds.count else "",
                *report.percent(row.summary.success),
                PAPER.get(reference, ""),
            ]
        )
    return lines


def _measured(config, seconds):
    o, scene, sources = config.task, task.scene_of(config), config.data.sources
    return (
        f"Success: the slider rests within {1000 * scene.position:g} mm and "
        f"{math.degrees(scene.angle):.3g} degrees of its goal and the pusher is within "
        f"{1000 * scene.back:g} mm of its place, within {scene.max_steps * DT:g} s. The best of a "
        f"sweep is picked on {o.episodes} starts, and judged with target only on {o.fresh} fresh "
        "ones, for each training seed; other columns are of fresh starts where they are given. "
        f"Lost: the slider ends more than {1000 * metrics.LOST:g} mm from its goal. "
        f"Target demonstrations: {sources.target.split}, source: {sources.source.split} of "
        f"{o.source or o.images_source}. {config.train.steps} steps of {config.train.batch_size}, "
        f"solver {config.policy.solver} {config.policy.steps}, planned anew every "
        f"{config.policy.execute} steps. Wilson's intervals over the episodes of all seeds, which "
        f"know nothing of how seeds differ. {report.training_took(seconds)}"
    )


def _order(checked):
    if not checked:
        return ""
    return (
        f"{report.expected(checked)}\n\nGains in points of success: means over the same fresh "
        "starts, with bootstrap intervals of 95% over starts."
    )


def _levels(table, losses):
    lines = [
        [table.rows[name].label, *(f"{v:.3f}" for v in ratios)]
        for name, ratios in bands(losses).items()
    ]
    text = (
        f"Loss on {SAMPLES} chunks of held-out target demonstrations over that of target only, by "
        "noise level (geometric means): below 1 the source helps there, above 1 it hurts."
    )
    columns = ("policy", *(f"sigma {low:g} to {high:g}" for low, high in _BANDS))
    return f"{text}\n\n{markdown(columns, lines)}" if lines else ""
