"""Figures of the table: success, sweep, bounds, bias of modes, scaling, and films of policies."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.annotate import thresholds
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import chosen, claims, figures, modes, policies, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table.rows import Row

_INK, _GREY = "#22262b", "#8a8f98"
# Told apart with any colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#22262b", "#7f4f24")
_MARKS = "osD^vPX*"
_TICKS = ([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])


def write(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    rows: Mapping[str, Row],
    best: Mapping[str, str],
    rollouts: Mapping[str, Rollouts],
    annotations: Mapping[str, Any],
    bias: Mapping[str, Any],
    drifts: Mapping[int, Any],
) -> None:
    """Writes the figures of the report for what is there.

    Args:
      config: of the table.
      workdir: whose ``report`` they go to.
      rows: by policy.
      best: ``summary.roles``.
      rollouts: of the first seed, by policy.
      annotations: ``chosen.results``, by name.
      bias: ``modes.study``.
      drifts: ``drift.of_methods``.
    """
    folder, scene = workdir / "report", task.scene_of(config)
    save = lambda figure, name, dpi=160: figure.savefig(folder / f"{name}.png", dpi=dpi)  # noqa: E731
    save(success_figure(rows), "success")
    if len(claims.sweep(config.task, rows)) > 1:
        save(sweep_figure(config, rows), "sigma_min")
    if annotations:
        save(curves_figure(annotations), "curves")
    if bias:
        save(modes_figure(bias), "modes")
    if any(scaled(config.task, rows, target) for target in config.task.targets):
        save(scaling_figure(config, rows, drifts), "scaling")
    for role, name in (("target", "target"), ("best", best["best"])):
        if name in rollouts:
            for kind, draw in (("film", figures.filmstrip), ("traces", figures.traces)):
                figure = draw(rollouts[name], scene)
                figure.suptitle(rows[name].label, fontsize=8)
                save(figure, f"{kind}_{role}", 110)


def success_figure(rows: Mapping[str, Row]) -> Figure:
    """Success of every policy with its interval, and that of each seed as a tick."""
    figure = Figure(figsize=(7.6, 1.2 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows.values()):
        axes.plot(*_bar(row.summary.success, y), color=_COLOURS[0], lw=1.6)
        each = [100 * s.success.value for s in row.seeds.values()]
        axes.plot(each, [y] * len(each), "|", color=_GREY, ms=9)
        axes.plot(100 * row.summary.success.value, y, "o", color=_COLOURS[0], ms=5)
    axes.set_yticks(range(len(rows)), [row.label for row in rows.values()], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="success [%], 95% intervals; ticks: each seed")
    axes.grid(alpha=0.25, axis="x")
    return figure


def _bar(estimate, y):
    return [100 * estimate.low, 100 * estimate.high], [y, y]


def sweep_figure(config: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> Figure:
    """Success against sigma_min, a line for each share of target data above it.

    At the left end (sigma_min 0) stands co-training with that share, at the right end target only.
    """
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    task, ticks = config.task, {0.0: "co-training", 1.0: "target only"}
    swept = sorted({*task.sigma_min, task.best})
    lines = {"natural share": {0.0: "cotrain", **{v: policies.hard(v) for v in swept}}}
    for alpha in sorted(task.alpha):
        named = {v: policies.weighted(v, alpha) for v in swept}
        lines[f"alpha {alpha:g}"] = {0.0: f"alpha_{alpha:g}", **named}
    for i, (label, named) in enumerate(lines.items()):
        named = {v: name for v, name in (named | {1.0: "target"}).items() if name in rows}
        if not set(named) - set(ticks):
            continue
        levels = sorted(named)
        found = [rows[named[v]].summary.success for v in levels]
        value, (below, above) = _intervals(found)
        axes.fill_between(levels, value - below, value + above, color=_COLOURS[i], alpha=0.12, lw=0)
        axes.plot(levels, value, f"{_MARKS[i]}-", color=_COLOURS[i], ms=4, lw=1.4, label=label)
    shown = [0.0, *swept, 1.0]
    axes.set_xticks(shown, [ticks.get(v, f"{v:g}") for v in shown], fontsize=7, rotation=60)
    axes.set(xlabel=r"$\sigma_{min}$ of the source", ylabel="success [%]", ylim=(0, 103))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, title="target data above it", title_fontsize=8)
    return figure


def curves_figure(annotations: Mapping[str, Any]) -> Figure:
    """Mean P(clean) of the source's chunks and the total variation, a colour an annotation."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, told) in enumerate(annotations.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        levels, curve = np.array(told["levels"]), np.array(told["curves"]["source"])
        crossing, task_ = told["sigma_min"]["source, dataset"]["mean"], told["config"]["task"]
        seen = "actions and observation" if task_["observed"] else "actions alone"
        if name not in (chosen.TABLE, chosen.OBSERVED, chosen.STRICT):
            seen = name.replace("_", " ")
        label = f"{seen}, tau {task_['tau']:g}: {crossing:.3f}"
        left.plot(levels, curve, ".", color=colour)
        left.plot(levels, thresholds.isotonic(curve), color=colour, lw=1, label=label)
        left.axhline(0.5 - task_["tau"], color=_GREY, lw=0.8, ls="--")
        if 0 < crossing < 1:
            left.axvline(crossing, color=colour, lw=1, ls=":")
        tv = told["total_variation"]["source"]
        right.fill_between(levels, tv["low"], tv["high"], color=colour, alpha=0.2, lw=0)
        right.plot(levels, tv["value"], ".-", color=colour, lw=1)
    left.set_ylabel("P(clean), mean over the source")
    right.set_ylabel("total variation (held out, 95%)")
    left.legend(fontsize=6, title=r"$\sigma_{min}$ per data set", title_fontsize=7)
    for axes in (left, right):
        _noise_axis(axes)
    return figure


def modes_figure(bias: Mapping[str, Any]) -> Figure:
    """Bias of modes against the noise level by granularity, and the modes' shares for each."""
    columns = 1 + len(bias)
    lines = -(-columns // 3)
    figure = Figure(figsize=(10.5, 3.0 * lines + 0.5), layout="constrained")
    first, *panels = figure.subplots(lines, 3, squeeze=False).ravel()
    levels = np.array(evaluation.LEVELS)
    for i, (name, told) in enumerate(bias.items()):
        some = told["admitted"] >= modes.LEAST
        style = dict(color=_COLOURS[i % len(_COLOURS)], marker=_MARKS[i % len(_MARKS)])
        first.plot(
            levels[some], told["bias"][some], ms=3.5, lw=1.1, label=chosen.words(name), **style
        )
    first.set_ylabel("bias (total variation)")
    first.set_ylim(bottom=0)
    first.legend(fontsize=6)
    for axes, (name, told) in zip(panels, bias.items(), strict=False):
        some = told["admitted"] >= modes.LEAST
        # The data's own shares at the left edge, for the eye to compare with.
        if some.any():
            shares = told["shares"][some].T
            axes.stackplot(levels[some], shares, labels=modes.MODES, colors=_COLOURS)
        for edge in np.cumsum(told["data"])[:-1]:
            axes.axhline(edge, color=_INK, lw=0.7, ls=":")
        axes.set(ylim=(0, 1), title=chosen.words(name))
        axes.title.set_fontsize(8)
        axes.set_ylabel("share of admitted chunks", fontsize=7)
    shown = panels[0].get_legend_handles_labels()
    figure.legend(*shown, fontsize=7, loc="outside lower center", ncols=len(modes.MODES))
    for axes in panels[len(bias) :]:
        axes.set_axis_off()
    for axes in (first, *panels[: len(bias)]):
        _noise_axis(axes)
        axes.set_xlim(levels[0] * 0.9, levels[-1])
    return figure


def scaled(
    config: ml_collections.ConfigDict, rows: Mapping[str, Row], target: int
) -> dict[str, dict[int, Any]]:
    """Success by method and number of source demonstrations, of what is there."""
    found: dict[str, dict[int, Any]] = {}
    for method in config.methods:
        for size in sorted(config.sources):
            name = policies.scaling(method, size, target)
            if name in rows:
                found.setdefault(method, {})[size] = rows[name].summary.success
    return found


def scaling_figure(
    config: ml_collections.ConfigDict, rows: Mapping[str, Row], drifts: Mapping[int, Any]
) -> Figure:
    """Success (above) and what a method learns of the target (below) against the number of source
    demonstrations, a column for each number of target ones.

    Lines of methods with intervals; source only grey, target only dotted. Below: the loss on
    held-out target demonstrations over that of source only, see ``drift.of_methods``.
    """
    given, sizes = config.task, sorted(config.task.sources)
    figure = Figure(figsize=(2.6 + 3.6 * len(given.targets), 6.2), layout="constrained")
    panels = figure.subplots(2, len(given.targets), sharex=True, sharey="row", squeeze=False)
    # Side by side, or intervals cover each other.
    beside = {method: 1.02 ** (i - 4) for i, method in enumerate(given.methods)}
    for target, (above, below) in zip(given.targets, panels.T, strict=True):
        style = {method: _style(given, method) for method in given.methods}
        for method, found in scaled(given, rows, target).items():
            value, spread = _intervals(found.values())
            at = np.array(list(found)) * beside[method]
            above.errorbar(at, value, spread, elinewidth=0.7, **style[method])
        alone = {n: policies.source_only(n) for n in sizes if policies.source_only(n) in rows}
        if alone:
            value, spread = _intervals([rows[name].summary.success for name in alone.values()])
            above.plot(list(alone), value, color=_GREY, ls="--", lw=1.2, label="source only")
        if f"target_{target}" in rows:
            level = 100 * rows[f"target_{target}"].summary.success.value
            above.axhline(level, color=_GREY, ls=":", lw=1.2, label="target only")
        for method, ratios in drifts.get(target, {}).items():
            at = np.array(list(ratios)) * beside[method]
            below.plot(at, list(ratios.values()), **style[method])
        below.axhline(1, color=_GREY, ls="--", lw=1.2)
        above.set_title(f"{target} target demonstrations", fontsize=9)
        for axes in (above, below):
            axes.set(xscale="log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.grid(alpha=0.25)
        below.set(xlabel="source demonstrations")
    panels[0, 0].set(ylabel="success [%]", ylim=(0, 103))
    name = rf"loss over source only's, $\sigma$ > {given.best:g}"
    panels[1, 0].set(ylabel=name)
    shown = {}
    for axes in panels[0]:
        handles, labels = axes.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown, fontsize=7, loc="outside right center")
    return figure


def _style(task, method):
    """A colour for each kind of method, dashed at the best share of target data."""
    kinds = list(dict.fromkeys(m.removesuffix("_alpha") for m in policies.METHODS))
    i = kinds.index(method.removesuffix("_alpha"))
    style = dict(color=_COLOURS[i], marker=_MARKS[i], ms=4, lw=1.2)
    dashes = "--" if method.endswith("alpha") else "-"
    return style | dict(ls=dashes, label=policies.method_label(task, method))


def _intervals(estimates):
    """Values [N] in percent, and the distances [2, N] to the ends of their intervals."""
    value, low, high = (
        100 * np.array([getattr(e, end) for e in estimates]) for end in ("value", "low", "high")
    )
    return value, (value - low, high - value)


def _noise_axis(axes):
    axes.set(xscale="logit", xlabel=r"noise level $\sigma$")
    axes.set_xticks(*_TICKS)
    axes.minorticks_off()
    axes.grid(alpha=0.25)
