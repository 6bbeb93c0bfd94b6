"""Figures of the table: the sweep of sigma_max, and films of what policies do."""

from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.evaluate import evaluation
from experiments.bin_sorting import claims, figures, policies, task
from experiments.bin_sorting.rollout import Rollouts
from experiments.table.experiment import Table
from experiments.table.figures import COLOURS, INK, band, level_ticks, noise_axis, panels, save
from experiments.table.report import Row

_COLOURS = {"score": INK, "logic": COLOURS[0], "completion": COLOURS[1]}
_NAMES = {"score": "score", "logic": "correct logic", "completion": "completion"}


def write(
    table: Table,
    rows: Mapping[str, Row],
    best: str,
    rollouts: Mapping[str, Rollouts],
    losses: Mapping[str, np.ndarray],
) -> None:
    """Writes the figures of the report, with ``rollouts`` of the first seed. ``best`` is the best
    policy of the sweep with arbitrary demonstrations."""
    folder, config = table.workdir / "report", table.config
    swept = [c for c in policies.CORRUPT if len(claims.sweep(config.task, rows, c)) > 1]
    labels = {name: row.label for name, row in rows.items()}
    sweep = sweep_figure(config.task, rows, swept) if swept else None
    levels = levels_figure(losses, labels) if losses else None
    save(folder, {"sigma_max": sweep, "levels": levels})
    for role, name in (("correct",) * 2, ("cotrain_arbitrary",) * 2, ("best", best)):
        if name in rollouts:
            film = figures.filmstrip(rollouts[name], task.scene_of(config), episodes=(0, 1, 2))
            film.suptitle(labels[name], fontsize=8)
            save(folder, {f"film_{role}": film}, dpi=110)


def sweep_figure(
    task: ml_collections.ConfigDict, rows: Mapping[str, Row], shown: Sequence[str]
) -> Figure:
    """Plots score, logic and completion against sigma_max, a panel per corrupt set. The left end is
    correct only, the right end co-training."""
    figure, [line] = panels(1, len(shown), 0.8 + 4.6 * len(shown), 3.8, sharey=True)
    for axes, corrupt in zip(line, shown, strict=True):
        ends = {0.0: "correct", 1.0: f"cotrain_{corrupt}"}
        names = claims.sweep(task, rows, corrupt)
        names |= {level: name for level, name in ends.items() if name in rows}
        levels = sorted(names)
        for field, colour in _COLOURS.items():
            estimates = [getattr(rows[names[level]].summary, field) for level in levels]
            band(axes, levels, estimates, color=colour, label=_NAMES[field])
        axes.set(xlabel=rf"$\sigma_{{max}}$ of the {corrupt} demonstrations", ylim=(0, 103))
        level_ticks(axes, levels, {0.0: "correct only", 1.0: "co-training"})
    line[0].set_ylabel("[%]")
    line[0].legend(fontsize=8, loc="lower left")
    return figure


def levels_figure(losses: Mapping[str, np.ndarray], labels: Mapping[str, str]) -> Figure:
    """Plots the loss on held-out correct demonstrations over that of correct only, by level."""
    figure, [[axes]] = panels(1, 1, 6.4, 3.8)
    for name, loss in losses.items():
        ratio = loss / losses.get("correct", loss)
        axes.plot(evaluation.LEVELS, ratio, "o-", ms=3, lw=1.2, label=labels[name])
    noise_axis(axes, yscale="log")
    axes.set_ylabel("loss on held-out correct\ndemonstrations, of that of correct only")
    axes.legend(fontsize=7, loc="lower left")
    return figure
