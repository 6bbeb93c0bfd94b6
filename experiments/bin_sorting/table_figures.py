"""Figures of the table: the sweep of sigma_max, and films of what policies do."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.evaluate import evaluation
from experiments.bin_sorting import figures, policies, summary, task
from experiments.bin_sorting.rollout import Rollouts
from experiments.table.rows import Row

# Told apart with any colour vision.
_COLOURS = {"score": "#22262b", "logic": "#0072b2", "completion": "#d55e00"}
_NAMES = {"score": "score", "logic": "correct logic", "completion": "completion"}


def write(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    rows: Mapping[str, Row],
    best: Mapping[str, str],
    rollouts: Mapping[str, Rollouts],
    losses: Mapping[str, list[float]],
) -> None:
    """Writes the figures of the report for what is there.

    Args:
      config: of the table.
      workdir: whose ``report`` they go to.
      rows: by policy.
      best: the best policy of the sweep, by corrupt set; "" for none.
      rollouts: of the first seed, by policy.
      losses: ``levels.measure``.
    """
    folder = workdir / "report"
    shown = [c for c in policies.CORRUPT if len(summary.sweep(config, rows, c)) > 1]
    if shown:
        sweep_figure(config, rows, shown).savefig(folder / "sigma_max.png", dpi=160)
    if losses:
        labels = {name: rows[name].label for name in losses}
        levels_figure(losses, labels).savefig(folder / "levels.png", dpi=160)
    for name in ("correct", "cotrain_arbitrary", best["arbitrary"]):
        if name in rollouts:
            film = figures.filmstrip(rollouts[name], task.scene_of(config), episodes=(0, 1, 2))
            film.suptitle(rows[name].label, fontsize=8)
            film.savefig(
                folder / f"film_{'best' if name == best['arbitrary'] else name}.png", dpi=110
            )


def sweep_figure(
    config: ml_collections.ConfigDict, rows: Mapping[str, Row], shown: list[str]
) -> Figure:
    """Score, logic and completion against sigma_max, a panel for each corrupt set.

    At the left end stands correct only (sigma_max 0), at the right end co-training (1).
    """
    figure = Figure(figsize=(0.8 + 4.6 * len(shown), 3.8), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, corrupt in zip(panels, shown, strict=True):
        named = summary.sweep(config, rows, corrupt)
        ends = {0.0: "correct", 1.0: f"cotrain_{corrupt}"}
        named |= {level: name for level, name in ends.items() if name in rows}
        levels = sorted(named)
        for field, colour in _COLOURS.items():
            found = [getattr(rows[named[level]].summary, field) for level in levels]
            value, low, high = (
                100 * np.array([getattr(e, end) for e in found]) for end in ("value", "low", "high")
            )
            axes.fill_between(levels, low, high, color=colour, alpha=0.18, lw=0)
            axes.plot(levels, value, "o-", color=colour, ms=4, lw=1.4, label=_NAMES[field])
        axes.set(xlabel=rf"$\sigma_{{max}}$ of the {corrupt} demonstrations", ylim=(0, 103))
        axes.grid(alpha=0.25)
        axes.set_xticks(levels, [_tick(level) for level in levels], fontsize=7, rotation=60)
    panels[0].set_ylabel("[%]")
    panels[0].legend(fontsize=8, loc="lower left")
    return figure


def levels_figure(losses: Mapping[str, list[float]], labels: Mapping[str, str]) -> Figure:
    """Loss on held-out correct demonstrations over that of correct only, at each noise level."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, loss in losses.items():
        ratio = np.asarray(loss) / np.asarray(losses.get("correct", loss))
        axes.plot(evaluation.LEVELS, ratio, "o-", ms=3, lw=1.2, label=labels[name])
    axes.set(xscale="logit", yscale="log", xlabel=r"noise level $\sigma$")
    axes.set_ylabel("loss on held-out correct\ndemonstrations, of that of correct only")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, loc="lower left")
    return figure


def _tick(level):
    return {0.0: "correct only", 1.0: "co-training"}.get(level, f"{level:g}")
