"""Figures of an annotation: curves, distribution of sigma_min, chunks at both of its ends."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.annotate import thresholds
from ambient_jax.data import device, sources

_INK, _GREY = "#22262b", "#8a8f98"
_TICKS = ([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])


def write(
    folder: pathlib.Path,
    task: ml_collections.ConfigDict,
    data: device.DeviceData,
    prepared: sources.Prepared,
    curves: Mapping[str, np.ndarray],
    levels: np.ndarray,
    contraction: Mapping[str, Any],
    bounds: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Writes ``curves.png``, ``sigma_min.png`` and, for each source, ``chunks_<name>.png``."""
    save = lambda figure, name: figure.savefig(folder / f"{name}.png", dpi=160)  # noqa: E731
    save(curves_figure(curves, levels, contraction, task), "curves")
    save(distribution_figure(bounds, levels), "sigma_min")
    for name, c in curves.items():
        k = prepared.names.index(name)
        own = np.arange(data.offset[k], data.offset[k] + data.size[k])
        save(chunks_figure(data, own, c, levels, task), f"chunks_{name}")


def curves_figure(curves, levels, contraction, task) -> Figure:
    """Mean P(clean) of each source with the spread of its datapoints; total variation."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, c) in enumerate(curves.items()):
        low, high = np.quantile(c, [0.1, 0.9], axis=0)
        left.fill_between(levels, low, high, color=f"C{i}", alpha=0.15, lw=0)
        left.plot(levels, c.mean(0), ".", color=f"C{i}", label=name)
        left.plot(levels, thresholds.isotonic(c.mean(0)), color=f"C{i}", lw=1)
        crossing = float(thresholds.sigma_min(levels, c.mean(0), tau=task.tau, rule=task.rule))
        if 0 < crossing < 1:
            left.axvline(crossing, color=f"C{i}", lw=1, ls=":")
        tv = contraction[name]
        right.fill_between(levels, tv["low"], tv["high"], color=f"C{i}", alpha=0.2, lw=0)
        right.plot(levels, tv["value"], ".-", color=f"C{i}", label=name)
    left.axhline(0.5 - task.tau, color=_GREY, lw=0.8, ls="--")
    left.set_ylabel("P(clean), 10% to 90% of datapoints")
    right.set_ylabel("total variation (held out, 95%)")
    for axes in (left, right):
        axes.set(xscale="logit", xlabel=r"noise level $\sigma$")
        axes.set_xticks(*_TICKS)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7)
    return figure


def distribution_figure(bounds, levels) -> Figure:
    """Share of the datapoints of each source below each sigma_min, by granularity."""
    figure = Figure(figsize=(4.2 * len(bounds), 3.2), layout="constrained")
    edges = np.concatenate([[0.0], levels, [1.0]])
    for axes, (name, each) in zip(
        figure.subplots(1, len(bounds), squeeze=False)[0], bounds.items(), strict=True
    ):
        for granularity, low in each.items():
            share = [np.mean(low <= edge) for edge in edges]
            axes.step(np.clip(edges, 2e-3, 0.9985), share, where="post", label=granularity)
        axes.set(xscale="logit", xlabel=r"$\sigma_{min}$", title=name, ylim=(-0.02, 1.02))
        axes.set_ylabel("share of datapoints admitted above it")
        axes.set_xticks(*_TICKS)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7)
    return figure


def chunks_figure(data, own, c, levels, task, *, shown: int = 8, horizon: int = 16) -> Figure:
    """The chunks of lowest and of highest sigma_min, first two action dimensions."""
    # P(clean) over all levels breaks the ties that a grid of levels leaves.
    score = thresholds.sigma_min(levels, c, tau=task.tau, rule=task.rule) - 1e-3 * c.mean(1)
    order = np.argsort(score)
    figure = Figure(figsize=(1.25 * shown, 3.0), layout="constrained")
    panels = figure.subplots(2, shown)
    actions = np.asarray(data.steps["action"])
    for line, rows, told in zip(
        panels, (order[:shown], order[-shown:]), ("lowest", "highest"), strict=True
    ):
        for axes, row in zip(line, rows, strict=False):
            start = own[row]
            path = actions[start : min(start + horizon, int(data.end[start]))]
            axes.plot(
                path[:, 0], path[:, min(1, path.shape[1] - 1)], ".-", lw=0.8, ms=2, color=_INK
            )
            axes.set_aspect("equal", adjustable="datalim")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"{np.clip(score[row], 0, 1):.2g}", fontsize=7)
        line[0].set_ylabel(f"{told}\n" + r"$\sigma_{min}$", fontsize=8)
    return figure
