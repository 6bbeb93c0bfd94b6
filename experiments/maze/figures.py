"""Figures of the maze: the demonstrations of each source, and the rollouts of each policy."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from experiments.maze import metrics
from experiments.maze.env import DT, WORLD
from experiments.maze.rollout import Rollouts

_WALL, _INK, _COLOURS = "#c9ccd1", "#22262b", "viridis"
# Blue, vermilion, orange: told apart with any colour vision.
_OUTCOMES = {"success": "#0072b2", "collision": "#d55e00", "out of time": "#e69f00"}
_PANEL = 3.2  # inches


def draw_world(axes: Axes) -> None:
    """Draws the boxes, the outer wall and the start."""
    for left, right, bottom, top in WORLD.boxes:
        size = right - left, top - bottom
        axes.add_patch(Rectangle((left, bottom), *size, fc=_WALL, ec=_WALL, lw=0.4))
    side = WORLD.high - WORLD.low
    axes.add_patch(Rectangle((WORLD.low,) * 2, side, side, fill=False, ec=_INK, lw=1.0, zorder=5))
    axes.plot(*WORLD.start, "o", ms=4.5, mfc="white", mec=_INK, mew=1.0, zorder=6)
    margin = 0.01 * side
    axes.set_xlim(WORLD.low - margin, WORLD.high + margin)
    axes.set_ylim(WORLD.low - margin, WORLD.high + margin)
    axes.set_aspect("equal")
    axes.set_axis_off()


def sources_figure(sources: Mapping[str, Sequence[np.ndarray]], *, shown: int = 100) -> Figure:
    """Draws a row of panels, one for each source: its first ``shown`` paths [T + 1, 2] in metres.

    The numbers in the titles are of all paths.
    """
    if not sources:
        raise ValueError("got no sources, expected at least one name with its paths")
    figure, panels = _row(len(sources))
    # One time scale for all panels, or the same colour would mean another time.
    lengths = [len(path) - 1 for paths in sources.values() for path in paths[:shown]]
    longest = max(lengths, default=1)
    scale = Normalize(0, longest * DT)
    lines = None
    for axes, (name, paths) in zip(panels, sources.items(), strict=True):
        draw_world(axes)
        title = f"{name}: {len(paths):,} trajectories"
        if shown < len(paths):
            title += f" ({shown:,} shown)"
        title += f"\nmean squared jerk {_round(metrics.mean_squared_jerk(paths).value)} m²/s⁶"
        axes.set_title(title, fontsize=9, color=_INK)
        some = [np.asarray(path, float) for path in paths[:shown] if len(path) > 1]
        if not some:
            continue
        segments = np.concatenate([np.stack([path[:-1], path[1:]], 1) for path in some])
        times = np.concatenate([np.arange(len(path) - 1) * DT for path in some])
        style = dict(cmap=_COLOURS, norm=scale, lw=0.7, alpha=0.8, capstyle="round")
        lines = LineCollection(segments, array=times, **style)
        axes.add_collection(lines)
        ends = np.array([path[-1] for path in some])
        axes.plot(*ends.T, ".", ms=2.5, color=_INK, mew=0, zorder=4)
    if lines is not None:
        bar = figure.colorbar(lines, ax=panels, fraction=0.03, pad=0.015, shrink=0.85)
        bar.set_label("time [s]", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.solids.set_alpha(1.0)
    return figure


def rollouts_figure(policies: Mapping[str, Rollouts], *, shown: int = 100) -> Figure:
    """Draws a row of panels, one for each policy: its first ``shown`` paths and goals, by outcome.

    The numbers in the titles are of all rollouts.
    """
    if not policies:
        raise ValueError("got no policies, expected at least one name with its rollouts")
    figure, panels = _row(len(policies), legend=True)
    for axes, (name, rollouts) in zip(panels, policies.items(), strict=True):
        draw_world(axes)
        summary = metrics.summarise(rollouts)
        title = f"{name}: {summary.success.value:.1%} success"
        title += f"\nmean squared jerk {_round(summary.jerk.value)} m²/s⁶"
        axes.set_title(title, fontsize=9, color=_INK)
        for i, path in enumerate(rollouts.paths()[:shown]):
            failed = not rollouts.success[i]
            failure = "collision" if rollouts.collided[i] else "out of time"
            colour, alpha = (_OUTCOMES[failure], 0.9) if failed else (_OUTCOMES["success"], 0.55)
            axes.plot(*path.T, color=colour, lw=0.7, alpha=alpha, zorder=2 + failed)
            axes.plot(*rollouts.goals[i], ".", ms=4, color=colour, mew=0, zorder=4)
            if failed:
                axes.plot(*path[-1], "x", ms=4, color=colour, mew=1.1, zorder=5)
    handles = [Line2D([], [], color=colour, lw=1.5) for colour in _OUTCOMES.values()]
    handles += [
        Line2D([], [], color=_INK, marker=".", ls="", ms=6),
        Line2D([], [], color=_INK, marker="x", ls="", ms=4.5),
        Line2D([], [], marker="o", ls="", ms=4.5, mfc="white", mec=_INK),
    ]
    labels = [*_OUTCOMES, "goal", "end of a failure", "start"]
    layout = dict(ncols=6, fontsize=8) if len(policies) > 1 else dict(ncols=3, fontsize=7)
    place = dict(loc="outside lower center", columnspacing=1.4, frameon=False)
    figure.legend(handles, labels, **layout, **place)
    return figure


def _row(count: int, legend: bool = False) -> tuple[Figure, list[Axes]]:
    # The titles' two lines, and beside or below them the colour bar or the legend.
    legend_height = 0.3 if count > 1 else 0.5
    height = _PANEL + 0.45 + (legend_height + 0.2 if legend else 0.0)
    width = (_PANEL + 0.1) * count + (0.0 if legend else 0.6)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.05)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _round(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
