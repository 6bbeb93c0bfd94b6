"""Figures of the table: Pareto front, sweep of sigma_min, loss per noise level, denoising."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.policy import solvers
from ambient_jax.policy.policy import Policy
from experiments.estimates import Estimate
from experiments.maze import env, figures
from experiments.maze.rollout import Rollouts
from experiments.table import entries

_INK, _GREY = "#22262b", "#8a8f98"
# One colour for each role in all figures; told apart with any colour vision.
_COLOURS = {"gcs": "#009e73", "rrt": "#d55e00", "cotrain": "#e69f00", "ambient": "#0072b2"}
_OTHER = "#8a5fa8"
# Noise levels of the denoising figure: nearly pure noise to nearly done.
_SHOWN = (0.99, 0.8, 0.4, 0.15, 0.05, 0.0)


def write(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    rows: Mapping[str, Any],
    best: str,
    sources: Mapping[str, Sequence[np.ndarray]],
    jerk: Mapping[str, Estimate],
    rollouts: Mapping[str, Rollouts],
    floor: Mapping[str, Any],
) -> None:
    """Writes every figure of the report; see the functions of each for the arguments."""
    folder = workdir / "report"
    figures.save(figures.sources_figure(sources), folder / "data.png")
    figures.save(pareto_figure(rows, best, jerk["rrt"]), folder / "pareto.png")
    figures.save(sweep_figure(config, rows), folder / "sigma_min.png")
    main = ["gcs", "rrt", "cotrain", best]
    shown = {rows[n].label: rollouts[n] for n in main if n in rollouts}
    figures.save(figures.rollouts_figure(shown), folder / "rollouts.png")
    if floor:
        figures.save(levels_figure(floor), folder / "levels.png")
    drawn = {
        rows[name].label: Policy.from_checkpoint(
            workdir / entries.key(name, config.task.seeds[0]),
            solver=config.policy.solver,
            steps=config.policy.steps,
        )
        for name in main
    }
    figures.save(denoising_figure(drawn), folder / "denoising.png")


def colour(name: str) -> str:
    """The colour of a policy by its name in the table."""
    return next((c for start, c in _COLOURS.items() if name.startswith(start)), _OTHER)


def pareto_figure(rows: Mapping[str, Any], best: str, data: Estimate) -> Figure:
    """Success against mean squared jerk, one point a policy with both intervals.

    Args:
      rows: ``Row`` by policy.
      best: the policy to draw larger.
      data: mean squared jerk of the RRT data.
    """
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.subplots()
    failed = lambda share: max(100 * (1 - share), 0.05)  # noqa: E731 (the axis is logarithmic)
    points = {n: row.summary for n, row in rows.items() if row.summary.jerk.count}
    for name, point in points.items():
        jerk, success = point.jerk, point.success
        x, y = jerk.value, failed(success.value)
        axes.errorbar(
            x,
            y,
            xerr=[[max(x - jerk.low, 0)], [max(jerk.high - x, 0)]],
            yerr=[[max(y - failed(success.high), 0)], [max(failed(success.low) - y, 0)]],
            fmt="*" if name == best else "o",
            ms=11 if name == best else 5,
            color=colour(name),
            lw=1,
        )
    sweep = sorted(n for n in points if n.removeprefix("ambient_").replace(".", "").isdigit())
    line = [(points[n].jerk.value, failed(points[n].success.value)) for n in sweep]
    axes.plot(*np.transpose(line), color=_COLOURS["ambient"], lw=0.8, alpha=0.5)
    axes.axvline(data.value, color=_GREY, lw=1, ls=":")
    axes.set(xscale="log", yscale="log", xlabel="mean squared jerk of successful rollouts [m²/s⁶]")
    axes.invert_yaxis()
    shown = [s for s in (99.9, 99.5, 99, 98, 95, 90, 80, 50, 20) if _within(axes, 100 - s)]
    axes.set_yticks([100 - s for s in shown], [f"{s:g}" for s in shown])
    axes.minorticks_off()
    ticks = [t for t in (1000, 2000, 5000, 10_000, 20_000) if _within(axes, t, "x")]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_ylabel("success [%] (failures on a logarithmic scale)")
    axes.grid(alpha=0.25)
    bottom = axes.get_ylim()[0]
    axes.text(data.value, bottom, "RRT data ", fontsize=7, color=_GREY, va="bottom", ha="right")
    places = {n: (p.jerk.value, failed(p.success.value)) for n, p in points.items()}
    _label(figure, axes, places)
    return figure


def _within(axes, value, axis="y"):
    low, high = sorted(getattr(axes, f"get_{axis}lim")())
    return low <= value <= high


def _label(figure, axes, places):
    """Names beside their points, each at the first of some places where it covers no other."""
    figure.draw_without_rendering()
    marks = {name: axes.transData.transform(at) for name, at in places.items()}
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in marks.values()]
    dot = figure.dpi / 72
    for name, (x, y) in marks.items():
        level = name.removeprefix("ambient_")
        text = rf"$\sigma_{{min}}$ {level}" if level.replace(".", "").isdigit() else name
        width, height = dot * (4 * len(name.replace("ambient_0", "abc")) + 2), 8 * dot
        spots = [
            (side, rise)
            for rise in (2, -9, 11, -18, 20, -27, 29, -36, 38)
            for side in (6, -6 - width / dot)
        ]
        for side, rise in spots:
            left, bottom = x + side * dot, y + rise * dot
            box = left, bottom, left + width, bottom + height
            if left > axes.bbox.x0 and not any(
                box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken
            ):
                break
        taken.append(box)
        axes.annotate(
            text,
            places[name],
            xytext=(side, rise),
            textcoords="offset points",
            fontsize=7,
            color=colour(name),
        )


def sweep_figure(config: ml_collections.ConfigDict, rows: Mapping[str, Any]) -> Figure:
    """Success and mean squared jerk against sigma_min, with co-training and GCS only as limits."""
    names = {f"ambient_{v}": v for v in sorted({*config.task.sigma_min, config.task.best})}
    names = {name: level for name, level in names.items() if name in rows}
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    parts = (("success", 100, "success [%]"), ("jerk", 1, "mean squared jerk [m²/s⁶]"))
    for axes, (field, scale, label) in zip(figure.subplots(1, 2), parts, strict=True):
        found = [getattr(rows[name].summary, field) for name in names]
        value, low, high = (
            scale * np.array([getattr(e, end) for e in found]) for end in ("value", "low", "high")
        )
        levels = list(names.values())
        axes.fill_between(levels, low, high, color=_COLOURS["ambient"], alpha=0.2, lw=0)
        axes.plot(levels, value, "o-", color=_COLOURS["ambient"], ms=4, label="ambient")
        for limit, told in (("cotrain", "co-training"), ("gcs", "GCS only"), ("rrt", "RRT only")):
            estimate = getattr(rows[limit].summary, field)
            axes.axhspan(
                scale * estimate.low, scale * estimate.high, color=colour(limit), alpha=0.15, lw=0
            )
            axes.axhline(scale * estimate.value, color=colour(limit), lw=1, ls="--", label=told)
        axes.set(xscale="logit", xlabel=r"$\sigma_{min}$ of the RRT data", ylabel=label)
        axes.set_xticks(levels, [f"{level:g}" for level in levels], fontsize=7, rotation=45)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    if np.any(value > 0):
        axes.set_yscale("log")
    axes.legend(fontsize=7)
    return figure


def levels_figure(floor: Mapping[str, Any]) -> Figure:
    """Loss of x0_hat against the noise level on held-out GCS and RRT chunks.

    Args:
      floor: {name: {"sigma": [L], "gcs": [L], "rrt": [L]}}, of the best linear denoiser too.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, source in zip(panels, ("gcs", "rrt"), strict=True):
        for name, found in floor.items():
            linear = name.startswith("best")
            axes.plot(
                found["sigma"],
                found[source],
                color=_INK if linear else colour(name),
                ls="--" if linear else "-",
                lw=1.2,
                label=name.replace("_", " "),
            )
        sigma = np.asarray(next(iter(floor.values()))["sigma"])
        axes.plot(sigma, sigma**2, color=_GREY, lw=0.8, ls=":", label=r"$\sigma^2$")
        axes.set(xscale="logit", yscale="log", xlabel=r"noise level $\sigma$")
        axes.set_title(f"held-out {source.upper()} chunks", fontsize=9)
        axes.grid(alpha=0.25)
        axes.set_xticks([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])
        axes.minorticks_off()
    panels[0].set_ylabel("mean squared error of x0_hat")
    panels[1].legend(fontsize=7)
    return figure


def denoising_figure(drawn: Mapping[str, Policy], *, goals: int = 4, seed: int = 3) -> Figure:
    """What each policy takes the chunk to be on its way from noise: the route first, then detail.

    Args:
      drawn: policies by label; a row of panels each, the same goals and noise in all.
      goals: number of goals, one colour each, planned for from the start.
      seed: of goals and noise.
    """
    places = env.free_goals(np.random.default_rng(seed), goals)
    figure = Figure(figsize=(2.0 * len(_SHOWN), 2.15 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), len(_SHOWN), squeeze=False)
    start = np.asarray(env.WORLD.start)
    for line, (label, policy) in zip(panels, drawn.items(), strict=True):
        levels, chunks = _denoise(policy, places, seed)
        for axes, level in zip(line, _SHOWN, strict=True):
            index = int(np.argmin(np.abs(levels - level)))
            figures.draw_world(axes)
            for i, goal in enumerate(places):
                shade = f"C{i}"
                path = np.concatenate([start[None], chunks[index, i]])
                axes.plot(*path.T, ".-", ms=2, lw=0.7, color=shade)
                axes.plot(*goal, "*", ms=5, color=shade)
            axes.set(xlim=(start[0] - 1.7, start[0] + 1.7), ylim=(start[1] - 1.7, start[1] + 1.7))
            axes.set_title(rf"$\sigma$ = {levels[index]:.2g}" if index < len(levels) - 1 else "x0")
            axes.title.set_fontsize(8)
        line[0].text(
            -0.04, 0.5, label, transform=line[0].transAxes, rotation=90, va="center", ha="right"
        ).set_fontsize(8)
    return figure


def _denoise(policy, goals, seed):
    """Levels [n + 1] and x0_hat in metres [n + 1, N, H, 2] at each, the sample at level 0."""
    shape = (len(goals), policy.history, 2)
    observation = {
        "state": np.broadcast_to(np.float32(env.WORLD.start), shape),
        "goal": np.broadcast_to(np.float32(goals)[:, None], shape),
    }

    @jax.jit
    def solve(keys):
        x0, path = solvers.solve(
            policy.denoiser(policy.params, observation),
            keys,
            (policy.horizon, 2),
            solver=policy.solver,
            steps=policy.steps,
            schedule=policy.schedule,
            prediction=policy.prediction,
            clip=policy.clip,
            trace=True,
        )
        return policy.normalizer.unnormalize("action", jax.numpy.concatenate([path, x0[None]]))

    keys = jax.random.split(jax.random.key(seed), len(goals))
    return np.asarray(solvers.levels(policy.schedule, policy.steps)), np.asarray(solve(keys))
