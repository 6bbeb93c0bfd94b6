"""Figures of PushT: success, the sweep, loss by noise level, films of rollouts, and the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from ambient_jax.evaluate import evaluation
from experiments.pusht import env as pusht
from experiments.pusht import policies
from experiments.pusht.rollout import Rollouts
from experiments.table import figures as drawing
from experiments.table.experiment import Table
from experiments.table.report import Row

_GOAL, _BLOCK, _PUSHER = "#bfe3bf", "#77838f", "#0072b2"


def write(
    table: Table,
    rows: Mapping[str, Row],
    best: Mapping[str, str],
    rollouts: Mapping[str, Rollouts],
    demos: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    losses: Mapping[str, np.ndarray],
) -> None:
    """Writes the figures of the report; ``rollouts`` are those of the first seed."""
    folder, shown = table.workdir / "report", ["steady", *best.values()]
    films = {rows[n].label: rollouts[n] for n in dict.fromkeys(shown) if n in rollouts}
    drawings = {
        "success": success_figure(rows),
        "sigma_min": sweep_figure(table.config.task, rows),
        "levels": levels_figure({rows[n].label: losses[n] for n in shown if n in losses}),
        "data": data_figure(demos),
    }
    drawing.save(folder, drawings)
    drawing.save(folder, {"film": film(films)} if films else {}, dpi=110)


def success_figure(rows: Mapping[str, Row]) -> Figure:
    """Plots success and score of every policy with intervals, and success of each seed."""
    figure, [axes] = drawing.panels(1, 2, 9.6, 1.2 + 0.26 * len(rows), sharey=True)
    for panel, field, colour in zip(axes, ("success", "score"), drawing.COLOURS, strict=False):
        for y, row in enumerate(rows.values()):
            [value], [[low], [high]] = drawing.intervals([getattr(row.summary, field)])
            by_seed = [100 * getattr(s, field).value for s in row.seeds.values()]
            panel.plot([low, high], [y, y], color=colour, lw=1.6)
            panel.plot(by_seed, [y] * len(by_seed), "|", color=drawing.GREY, ms=9)
            panel.plot(value, y, "o", color=colour, ms=5)
        panel.set_xlabel(f"{field} [%], 95% intervals; ticks: each seed", fontsize=8)
        panel.grid(alpha=0.25, axis="x")
    axes[0].set_yticks(range(len(rows)), [row.label for row in rows.values()], fontsize=7)
    axes[0].invert_yaxis()
    axes[0].set_xlim(left=0)
    return figure


def sweep_figure(task: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> Figure:
    """Plots success and score against sigma_min, a line per share of clean data above it. The left
    end is co-training with that share, the right end clean only."""
    figure, [axes] = drawing.panels(1, 2, 9.0, 3.6)
    swept = sorted(task.sigma_min)
    for i, share in enumerate((0.0, *task.alpha)):
        names = {v: policies.ambient(v, share) for v in swept}
        names |= {0.0: policies.alpha(share) if share else "cotrain", 1.0: "steady"}
        names = {v: names[v] for v in sorted(names) if names[v] in rows}
        if not set(swept) & names.keys():
            continue  # only the ends, which other figures show
        label = f"alpha {share:g}" if share else "natural share"
        for panel, field in zip(axes, ("success", "score"), strict=True):
            estimates = [getattr(rows[name].summary, field) for name in names.values()]
            style: dict[str, Any] = {"label": label, **drawing.style(i)}
            if len(estimates) > 1:
                drawing.band(panel, list(names), estimates, **style)
            panel.set(xlabel=r"$\sigma_{min}$ of the shaky hand", ylabel=f"{field} [%]")
    for panel in axes:
        ends = {0.0: "co-training", 1.0: "clean only"}
        drawing.level_ticks(panel, [0.0, *swept, 1.0], ends)
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8)
    return figure


def levels_figure(losses: Mapping[str, np.ndarray]) -> Figure | None:
    """Plots the loss on held-out clean chunks [S, L] over clean only's, by noise level."""
    if len(losses) < 2:
        return None
    figure, [[axes]] = drawing.panels(1, 1, 5.6, 3.6)
    first = next(iter(losses.values())).mean(0)
    for i, (label, loss) in enumerate(losses.items()):
        axes.plot(evaluation.LEVELS, loss.mean(0) / first, ms=3.5, label=label, **drawing.style(i))
    drawing.noise_axis(axes, ylabel="loss over clean only's, held-out clean", ylim=(0, None))
    axes.legend(fontsize=7)
    return figure


def film(
    policies: Mapping[str, Rollouts], *, episodes: Sequence[int] = (0, 1), frames: int = 9
) -> Figure:
    """Draws evenly spaced moments of episodes of each policy, rendered by the environment."""
    lines = [(label, r, i) for label, r in policies.items() for i in episodes if i < len(r.seeds)]
    figure, grid = drawing.panels(len(lines), frames, 1.25 * frames, 1.45 * len(lines))
    env = pusht.make()
    env.reset(seed=0)
    for row, (label, rollouts, i) in zip(grid, lines, strict=True):
        moments = np.linspace(0, rollouts.lengths[i], frames).round().astype(int)
        for axes, moment in zip(row, moments, strict=True):
            state = rollouts.states[i, moment]
            pusht.place(env, state[2:], state[:2])
            axes.imshow(env.render())
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{moment * pusht.DT:.1f} s", fontsize=6, pad=2)
        ending = "success" if rollouts.success[i] else f"covers {rollouts.coverage[i]:.0%}"
        row[0].set_ylabel(f"{label}\n{rollouts.seeds[i]}: {ending}", fontsize=5)
    env.close()
    return figure


def data_figure(
    demos: Mapping[str, Sequence[Mapping[str, np.ndarray]]], *, columns: int = 4
) -> Figure:
    """Draws demonstrations of each source from above: the T from light to dark, the pusher's path,
    and its targets (dots)."""
    figure, grid = drawing.panels(len(demos), columns, 2.5 * columns, 2.7 * len(demos))
    for line, (name, some) in zip(grid, demos.items(), strict=True):
        for axes, demo in zip(line, some, strict=False):
            states, actions = demo["state"], demo["action"]
            _outline(axes, pusht.GOAL, fc=_GOAL, ec="none")
            for at in np.linspace(0, len(states) - 1, 6).astype(int):
                shade = 0.2 + 0.8 * at / len(states)
                _outline(axes, states[at, 2:], fc="none", ec=_BLOCK, lw=1, alpha=shade)
            axes.plot(*actions.T, ".", color=drawing.COLOURS[1], ms=1.5, mew=0)
            axes.plot(*states[:, :2].T, color=_PUSHER, lw=0.7)
            axes.plot(*states[0, :2], "o", color=_PUSHER, ms=4)
            axes.set(xlim=(0, pusht.SIZE), ylim=(pusht.SIZE, 0), aspect="equal")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{name}, {len(actions) * pusht.DT:.1f} s", fontsize=8)
    return figure


def _outline(axes: Axes, pose: np.ndarray, **style) -> None:
    axes.add_patch(Polygon(pusht.to_world(np.asarray(pose), pusht.OUTLINE), **style))
