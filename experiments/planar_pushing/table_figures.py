"""Figures of the table: success, sweep, bounds, bias of modes, scaling, and films of policies."""

import itertools
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.annotate import thresholds
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import claims, classifier_bounds, figures, policies, studies, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import figures as drawing
from experiments.table.annotations import Annotations
from experiments.table.experiment import Table
from experiments.table.report import Row


def write(
    table: Table,
    rows: Mapping[str, Row],
    best: str,
    rollouts: Mapping[str, Rollouts],
    bias: Mapping[str, Any],
    drifts: Mapping[int, Any],
) -> None:
    """Writes the figures of the report, with ``rollouts`` of the first seed and ``studies``."""
    folder, section = table.workdir / "report", table.config.task
    is_scaled = any(scaled(section, rows, target) for target in section.targets)
    judged = {n: made for n, made in table.annotations.items() if "curves" in made.results}
    drawings = {
        "success": success_figure(rows),
        "sigma_min": sweep_figure(section, rows) if len(claims.sweep(section, rows)) > 1 else None,
        "curves": curves_figure(judged) if judged else None,
        "modes": modes_figure(bias) if bias else None,
        "scaling": scaling_figure(section, rows, drifts) if is_scaled else None,
    }
    drawing.save(folder, drawings)
    for role, name in (("target", "target"), ("best", best)):
        if name in rollouts:
            for kind, draw in (("film", figures.filmstrip), ("traces", figures.traces)):
                figure = draw(rollouts[name], task.scene_of(table.config))
                figure.suptitle(rows[name].label, fontsize=8)
                drawing.save(folder, {f"{kind}_{role}": figure}, dpi=110)


def success_figure(rows: Mapping[str, Row]) -> Figure:
    """Plots the success of every policy with its interval, and that of each seed as a tick."""
    figure, [[axes]] = drawing.panels(1, 1, 7.6, 1.2 + 0.24 * len(rows))
    for y, row in enumerate(rows.values()):
        [value], [[low], [high]] = drawing.intervals([row.summary.success])
        axes.plot([low, high], [y, y], color=drawing.COLOURS[0], lw=1.6)
        by_seed = [100 * s.success.value for s in row.seeds.values()]
        axes.plot(by_seed, [y] * len(by_seed), "|", color=drawing.GREY, ms=9)
        axes.plot(value, y, "o", color=drawing.COLOURS[0], ms=5)
    axes.set_yticks(range(len(rows)), [row.label for row in rows.values()], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="success [%], 95% intervals; ticks: each seed")
    axes.grid(alpha=0.25, axis="x")
    return figure


def sweep_figure(task: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> Figure:
    """Plots success against sigma_min, a line per share of target data above it. The left end is
    co-training with that share, the right end target only."""
    figure, [[axes]] = drawing.panels(1, 1, 5.6, 3.8)
    swept = sorted({*task.sigma_min, task.best})
    lines = {"natural share": {0.0: "cotrain", **{v: policies.hard(v) for v in swept}}}
    for alpha in sorted(task.alpha):
        names = {v: policies.weighted(v, alpha) for v in swept}
        lines[f"alpha {alpha:g}"] = {0.0: f"alpha_{alpha:g}", **names}
    for i, (label, names) in enumerate(lines.items()):
        names = {v: name for v, name in (names | {1.0: "target"}).items() if name in rows}
        if names.keys() & set(swept):
            success = [rows[names[v]].summary.success for v in sorted(names)]
            drawing.band(axes, sorted(names), success, label=label, **drawing.style(i))
    drawing.level_ticks(axes, [0.0, *swept, 1.0], {0.0: "co-training", 1.0: "target only"})
    axes.set(xlabel=r"$\sigma_{min}$ of the source", ylabel="success [%]", ylim=(0, 103))
    axes.legend(fontsize=8, title="target data above it", title_fontsize=8)
    return figure


def curves_figure(annotations: Annotations) -> Figure:
    """Plots mean P(clean) of the source's chunks and total variation, a colour per annotation by a
    classifier."""
    figure, [[left, right]] = drawing.panels(1, 2, 8.4, 3.4)
    for i, (name, annotation) in enumerate(annotations.items()):
        colour, results = drawing.COLOURS[i % len(drawing.COLOURS)], annotation.results
        levels, curve = np.array(results["levels"]), np.array(results["curves"]["source"])
        crossing, options = annotation.sigma_min, results["config"]["task"]
        inputs = "actions and observation" if options["observed"] else "actions alone"
        if name not in classifier_bounds.NAMES:
            inputs = name.replace("_", " ")
        label = f"{inputs}, tau {options['tau']:g}"
        label += "" if crossing is None else f": {crossing:.3f}"
        left.plot(levels, curve, ".", color=colour)
        left.plot(levels, thresholds.isotonic(curve), color=colour, lw=1, label=label)
        left.axhline(0.5 - options["tau"], color=drawing.GREY, lw=0.8, ls="--")
        if crossing is not None and 0 < crossing < 1:
            left.axvline(crossing, color=colour, lw=1, ls=":")
        variation = results["total_variation"]["source"]
        right.fill_between(levels, variation["low"], variation["high"], color=colour, alpha=0.2)
        right.plot(levels, variation["value"], ".-", color=colour, lw=1)
    drawing.noise_axis(left, ylabel="P(clean), mean over the source")
    drawing.noise_axis(right, ylabel="total variation (held out, 95%)")
    left.legend(fontsize=6, title=r"$\sigma_{min}$ per data set", title_fontsize=7)
    return figure


def modes_figure(bias: Mapping[str, Any]) -> Figure:
    """Plots the bias of modes against the noise level, and the modes' shares, by granularity."""
    lines = -(-(1 + len(bias)) // 3)
    figure, grid = drawing.panels(lines, 3, 10.5, 3.0 * lines + 0.5)
    first, *panels = grid.ravel()
    levels = np.array(evaluation.LEVELS)
    limits = dict(xlim=(levels[0] * 0.9, levels[-1]))
    for i, (name, study) in enumerate(bias.items()):
        axes, words = panels[i], classifier_bounds.words(name)
        some = study["admitted"] >= studies.LEAST
        first.plot(
            levels[some], study["bias"][some], ms=3.5, lw=1.1, label=words, **drawing.style(i)
        )
        if some.any():
            shares = study["shares"][some].T
            axes.stackplot(levels[some], shares, labels=studies.MODES, colors=drawing.COLOURS)
        # The shares in the data, for comparison.
        for edge in np.cumsum(study["data"])[:-1]:
            axes.axhline(edge, color=drawing.INK, lw=0.7, ls=":")
        axes.set_title(words, fontsize=8)
        axes.set_ylabel("share of admitted chunks", fontsize=7)
        drawing.noise_axis(axes, ylim=(0, 1), **limits)
    drawing.noise_axis(first, ylabel="bias (total variation)", **limits)
    first.set_ylim(bottom=0)
    first.legend(fontsize=6)
    shown = panels[0].get_legend_handles_labels()
    figure.legend(*shown, fontsize=7, loc="outside lower center", ncols=len(studies.MODES))
    for axes in panels[len(bias) :]:
        axes.set_axis_off()
    return figure


def scaled(
    task: ml_collections.ConfigDict, rows: Mapping[str, Row], target: int
) -> dict[str, dict[int, Any]]:
    """Returns success of evaluated policies by method and number of source demonstrations."""
    by_method: dict[str, dict[int, Any]] = {}
    for method, size in itertools.product(task.methods, sorted(task.sources)):
        name = policies.scaling(method, size, target)
        if name in rows:
            by_method.setdefault(method, {})[size] = rows[name].summary.success
    return by_method


def scaling_figure(
    task: ml_collections.ConfigDict, rows: Mapping[str, Row], drifts: Mapping[int, Any]
) -> Figure:
    """Plots success (above) and ``studies.drifts`` (below) against source demonstrations. A column
    has one number of target demonstrations; source only is grey, target only dotted."""
    sizes, targets = sorted(task.sources), task.targets
    shared = dict(sharex=True, sharey="row")
    figure, grid = drawing.panels(2, len(targets), 2.6 + 3.6 * len(targets), 6.2, **shared)
    # Shifted, so that intervals do not overlap.
    beside = {method: 1.02 ** (i - 4) for i, method in enumerate(task.methods)}
    # A colour for each way of bounding, dashed at the best share of target data.
    bounds = list(dict.fromkeys(m.removesuffix("_alpha") for m in policies.METHODS))
    style = {}
    for method in task.methods:
        look = drawing.style(bounds.index(method.removesuffix("_alpha")))
        dashes, label = method.endswith("alpha"), policies.method_label(task, method)
        style[method] = look | dict(ls="--" if dashes else "-", ms=4, lw=1.2, label=label)
    for target, (above, below) in zip(targets, grid.T, strict=True):
        for method, by_size in scaled(task, rows, target).items():
            value, ends = drawing.intervals(by_size.values())
            at = np.array(list(by_size)) * beside[method]
            above.errorbar(at, value, np.abs(ends - value), elinewidth=0.7, **style[method])
        alone = {n: policies.source_only(n) for n in sizes if policies.source_only(n) in rows}
        if alone:
            value, _ = drawing.intervals([rows[name].summary.success for name in alone.values()])
            above.plot(list(alone), value, color=drawing.GREY, ls="--", lw=1.2, label="source only")
        if f"target_{target}" in rows:
            level = 100 * rows[f"target_{target}"].summary.success.value
            above.axhline(level, color=drawing.GREY, ls=":", lw=1.2, label="target only")
        for method, ratios in drifts.get(target, {}).items():
            at = np.array(list(ratios)) * beside[method]
            below.plot(at, list(ratios.values()), **style[method])
        below.axhline(1, color=drawing.GREY, ls="--", lw=1.2)
        above.set_title(f"{target} target demonstrations", fontsize=9)
        for axes in (above, below):
            axes.set(xscale="log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.grid(alpha=0.25)
        below.set(xlabel="source demonstrations")
    grid[0, 0].set(ylabel="success [%]", ylim=(0, 103))
    grid[1, 0].set(ylabel=rf"loss over source only's, $\sigma$ > {task.best:g}")
    shown = {}
    for axes in grid[0]:
        handles, labels = axes.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown, fontsize=7, loc="outside right center")
    return figure
