"""Figures: the classifier's plane, success by method, held-out losses by both levels."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ambient_jax.evaluate import evaluation
from experiments.shifted import excess, judge, losses
from experiments.shifted.judge import Judged
from experiments.table.figures import COLOURS, GREY, intervals, noise_axis, panels, save, style
from experiments.table.report import Row


def write(
    folder: pathlib.Path,
    rows: Mapping[str, Row],
    judged: Mapping[str, Judged],
    by_loss: Mapping[str, Judged],
    loss: Mapping[str, np.ndarray],
) -> None:
    """Writes the figures of the report."""
    labels = {name: row.label for name, row in rows.items()}
    drawn = {
        "plane": plane(judged, by_loss) if judged else None,
        "success": success(rows) if rows else None,
        "losses": held_out(loss, labels) if "clean" in loss else None,
    }
    save(folder, drawn)


def plane(judged: Mapping[str, Judged], by_loss: Mapping[str, Judged]) -> Figure:
    """Draws what classifier and loss say of each kind at both levels, and the border chosen."""
    drawn = [(judge.RHOS, found, 0, "P(clean) of shifted pairs") for found in [judged] if found]
    if by_loss:
        drawn.append((excess.RHOS, by_loss, 0.5, "excess of the loss of clean only"))
    columns = max(len(found) for _, found, _, _ in drawn)
    figure, lines = panels(len(drawn), columns, 1.2 + 2.7 * columns, 3 * len(drawn), sharey=True)
    for line, (rhos, found, base, words) in zip(lines, drawn, strict=True):
        for axes, (kind, one) in zip(line, found.items(), strict=False):
            shown = base - one.probability if base else one.probability
            look = dict(vmin=0, vmax=0.5, cmap="magma_r") if base else dict(vmin=0.4, vmax=0.5)
            mesh = axes.pcolormesh(judge.SIGMAS, rhos, shown, shading="gouraud", **look)
            axes.plot(judge.SIGMAS, one.border, color="#56b4e9", lw=2, label="least level admitted")
            axes.set_title(kind.replace("_", ", "), fontsize=9)
            axes.set_ylim(0, 1)
            noise_axis(axes, xlim=(judge.SIGMAS[0], judge.SIGMAS[-1]))
            axes.grid(False)
        line[0].set_ylabel(r"observation's noise level $\rho$")
        figure.colorbar(mesh, ax=line, label=words)
        for axes in line[len(found) :]:
            axes.set_axis_off()
    lines[0, 0].legend(fontsize=7, loc="upper left")
    return figure


def success(rows: Mapping[str, Row]) -> Figure:
    """Draws success with its interval and that of each seed, a line per policy."""
    figure, [[axes]] = panels(1, 1, 6.6, 0.8 + 0.3 * len(rows))
    value, ends = intervals([row.summary.success for row in rows.values()])
    at = -np.arange(len(rows))
    axes.errorbar(value, at, xerr=np.abs(ends - value), fmt="o", color=COLOURS[0], capsize=3)
    for y, row in zip(at, rows.values(), strict=True):
        seeds = [100 * s.success.value for s in row.seeds.values()]
        axes.plot(seeds, [y + 0.22] * len(seeds), "|", color=GREY, ms=6)
    if "clean" in rows:
        axes.axvline(100 * rows["clean"].summary.success.value, color=GREY, lw=0.8, ls="--")
    axes.set_yticks(at, [row.label for row in rows.values()], fontsize=8)
    axes.set(xlabel="success [%], 95% interval; ticks: each seed", xlim=(0, 100))
    axes.grid(alpha=0.25)
    return figure


def held_out(loss: Mapping[str, np.ndarray], labels: Mapping[str, str]) -> Figure:
    """Draws the loss at rho = 0 of each policy, and at all rho of one with noised observations,
    over that of clean only."""
    clean = loss["clean"][:, 0].mean(0)
    noised = [name for name in loss if loss[name].shape[1] > 1]
    shown = noised[:2]
    figure, [line] = panels(1, 1 + len(shown), 4.6 + 3.4 * len(shown), 3.9, sharey=True)
    for i, name in enumerate(n for n in loss if n != "clean"):
        ratio, look = loss[name][:, 0].mean(0) / clean, style(i) | {"ls": "-:"[i // 8 % 2]}
        line[0].plot(evaluation.LEVELS, ratio, ms=3, lw=1.2, label=labels[name], **look)
    line[0].set_title("observation without noise", fontsize=9)
    for axes, name in zip(line[1:], shown, strict=True):
        for i, rho in enumerate(losses.RHOS):
            ratio = loss[name][:, i].mean(0) / clean
            label = rf"$\rho$ = {rho:g}"
            axes.plot(evaluation.LEVELS, ratio, ms=3, lw=1.2, label=label, **style(i))
        axes.set_title(labels[name], fontsize=9)
    for axes in line:
        noise_axis(axes)
        axes.axhline(1, color=GREY, lw=0.8)
        axes.legend(fontsize=5, loc="upper left" if axes is line[0] else "best")
    line[0].set_ylabel("held-out loss, of clean only")
    return figure
