"""Figures of the table: Pareto front, sweep of sigma_min, loss per noise level, denoising."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.estimates import Estimate
from ambient_jax.policy import solvers
from ambient_jax.policy.policy import Policy
from experiments.maze import claims, env, figures
from experiments.maze.rollout import Rollouts
from experiments.table import figures as common
from experiments.table.experiment import Table
from experiments.table.figures import GREY, INK, panels
from experiments.table.report import Row

# One colour for each role in all figures, distinct in any colour vision.
_COLOURS = {"gcs": "#009e73", "rrt": "#d55e00", "cotrain": "#e69f00", "ambient": "#0072b2"}
_OTHER = "#8a5fa8"
# Noise levels of the denoising figure: nearly pure noise to nearly done.
_SHOWN = (0.99, 0.8, 0.4, 0.15, 0.05, 0.0)


def write(
    table: Table,
    rows: Mapping[str, Row],
    best: str,
    sources: Mapping[str, Sequence[np.ndarray]],
    jerk: Estimate,
    rollouts: Mapping[str, Rollouts],
    losses: Mapping[str, Any],
) -> None:
    """Writes the figures of the report.

    ``rows`` are by policy, ``sources`` the paths of each data set, ``jerk`` the mean squared jerk
    of the RRT data, ``rollouts`` those of the first seed, by policy, ``losses`` as from
    ``report.held_out_losses``; ``best`` is the policy of the sweep to draw larger.
    """
    main = [name for name in ("gcs", "rrt", "cotrain", best) if name in rollouts]
    seed, policy = table.config.task.seeds[0], table.config.policy
    load = lambda name: Policy.from_checkpoint(  # noqa: E731
        table.folder(name, seed), solver=policy.solver, steps=policy.steps
    )
    loaded = {rows[name].label: load(name) for name in main}
    common.save(
        table.workdir / "report",
        {
            "data": figures.sources_figure(sources),
            "pareto": pareto_figure(rows, best, jerk),
            "sigma_min": sweep_figure(table.config.task, rows),
            "rollouts": figures.rollouts_figure({rows[n].label: rollouts[n] for n in main}),
            "levels": levels_figure(losses) if losses else None,
            "denoising": denoising_figure(loaded),
        },
        dpi=200,
    )


def colour(name: str) -> str:
    """Returns the colour of a policy by its name in the table."""
    return next((c for start, c in _COLOURS.items() if name.startswith(start)), _OTHER)


def pareto_figure(rows: Mapping[str, Any], best: str, data: Estimate) -> Figure:
    """Plots success against mean squared jerk, a point per policy with both intervals."""
    figure, [[axes]] = panels(1, 1, 7.6, 5.2)
    failed = lambda share: max(100 * (1 - share), 0.05)  # noqa: E731 (the axis is logarithmic)
    points = {n: row.summary for n, row in rows.items() if row.summary.jerk.count}
    for name, point in points.items():
        jerk, success = point.jerk, point.success
        x, y = jerk.value, failed(success.value)
        across = [[max(x - jerk.low, 0)], [max(jerk.high - x, 0)]]
        along = [[max(y - failed(success.high), 0)], [max(failed(success.low) - y, 0)]]
        style = dict(fmt="*", ms=11) if name == best else dict(fmt="o", ms=5)
        axes.errorbar(x, y, xerr=across, yerr=along, color=colour(name), lw=1, **style)
    sweep = sorted(n for n in points if n.removeprefix("ambient_").replace(".", "").isdigit())
    line = [(points[n].jerk.value, failed(points[n].success.value)) for n in sweep]
    axes.plot(*np.transpose(line), color=_COLOURS["ambient"], lw=0.8, alpha=0.5)
    axes.axvline(data.value, color=GREY, lw=1, ls=":")
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
    axes.text(data.value, bottom, "RRT data ", fontsize=7, color=GREY, va="bottom", ha="right")
    places = {n: (p.jerk.value, failed(p.success.value)) for n, p in points.items()}
    _label(figure, axes, places)
    return figure


def _within(axes, value, axis="y"):
    low, high = sorted(getattr(axes, f"get_{axis}lim")())
    return low <= value <= high


def _label(figure, axes, places):
    """Writes names beside their points, at the first free place."""
    figure.draw_without_rendering()
    marks = {name: axes.transData.transform(at) for name, at in places.items()}
    boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y in marks.values()]
    dot = figure.dpi / 72
    for name, (x, y) in marks.items():
        level = name.removeprefix("ambient_")
        text = rf"$\sigma_{{min}}$ {level}" if level.replace(".", "").isdigit() else name
        width, height = dot * (4 * len(name.replace("ambient_0", "abc")) + 2), 8 * dot
        rises, sides = (2, -9, 11, -18, 20, -27, 29, -36, 38), (6, -6 - width / dot)
        spots = [(side, rise) for rise in rises for side in sides]
        for side, rise in spots:
            left, bottom = x + side * dot, y + rise * dot
            box = left, bottom, left + width, bottom + height
            if left > axes.bbox.x0 and not any(
                box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in boxes
            ):
                break
        boxes.append(box)
        style = dict(textcoords="offset points", fontsize=7, color=colour(name))
        axes.annotate(text, places[name], xytext=(side, rise), **style)


def sweep_figure(task: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> Figure:
    """Plots success and jerk against sigma_min, with co-training and GCS only as limits."""
    swept = claims.sweep(task, rows)
    figure, [row] = panels(1, 2, 8.4, 3.4)
    parts = (("success", 100, "success [%]"), ("jerk", 1, "mean squared jerk [m²/s⁶]"))
    for axes, (field, scale, label) in zip(row, parts, strict=True):
        value = lambda name, field=field: getattr(rows[name].summary, field)  # noqa: E731
        ambient = [value(name) for name in swept.values()]
        common.band(axes, list(swept), ambient, scale, color=_COLOURS["ambient"], label="ambient")
        limits = {"cotrain": "co-training", "gcs": "GCS only", "rrt": "RRT only"}
        for limit, name in ((n, label) for n, label in limits.items() if n in rows):
            [middle], ends = common.intervals([value(limit)], scale)
            axes.axhspan(*ends[:, 0], color=colour(limit), alpha=0.15, lw=0)
            axes.axhline(middle, color=colour(limit), lw=1, ls="--", label=name)
        axes.set(xscale="logit", xlabel=r"$\sigma_{min}$ of the RRT data", ylabel=label)
        common.level_ticks(axes, list(swept))
    if any(estimate.value > 0 for estimate in ambient):
        axes.set_yscale("log")
    axes.legend(fontsize=7)
    return figure


def levels_figure(losses: Mapping[str, Any]) -> Figure:
    """Plots loss of x0_hat against the noise level on held-out GCS and RRT chunks: ``losses`` are
    {name: {"sigma": [L], "gcs": [L], "rrt": [L]}}, of the best linear denoiser too."""
    figure, [row] = panels(1, 2, 8.4, 3.6, sharey=True)
    for axes, source in zip(row, ("gcs", "rrt"), strict=True):
        for name, loss in losses.items():
            linear = name.startswith("best")
            style = dict(color=INK, ls="--") if linear else dict(color=colour(name), ls="-")
            label = name.replace("_", " ")
            axes.plot(loss["sigma"], loss[source], lw=1.2, label=label, **style)
        sigma = np.asarray(loss["sigma"])
        axes.plot(sigma, sigma**2, color=GREY, lw=0.8, ls=":", label=r"$\sigma^2$")
        axes.set_title(f"held-out {source.upper()} chunks", fontsize=9)
        common.noise_axis(axes, yscale="log")
    row[0].set_ylabel("mean squared error of x0_hat")
    row[1].legend(fontsize=7)
    return figure


def denoising_figure(models: Mapping[str, Policy], *, goals: int = 4, seed: int = 3) -> Figure:
    """Plots x0_hat of each policy (by label, a row of panels each) on its way from noise, with the
    same ``goals`` goals, planned for from the start, and noise of ``seed`` in all."""
    places = env.free_goals(np.random.default_rng(seed), goals)
    width, height = 2.0 * len(_SHOWN), 2.15 * len(models)
    figure, lines = panels(len(models), len(_SHOWN), width, height)
    start = np.asarray(env.WORLD.start)
    solve: dict[str, Callable] = {}  # policies that differ in parameters only are compiled once
    for line, (label, policy) in zip(lines, models.items(), strict=True):
        key = policy.chain.to_json()
        solve.setdefault(key, _denoiser(policy, places, seed))
        levels = np.asarray(solvers.levels(policy.schedule, policy.steps))
        chunks = np.asarray(solve[key](policy.params))
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
        style = dict(rotation=90, va="center", ha="right", fontsize=8)
        line[0].text(-0.04, 0.5, label, transform=line[0].transAxes, **style)
    return figure


def _denoiser(policy, goals, seed):
    """Returns ``solve(params)``: x0_hat in metres [n + 1, N, H, 2] by noise level, sample last."""
    shape = (len(goals), policy.history, 2)
    observation = {
        "state": np.broadcast_to(np.float32(env.WORLD.start), shape),
        "goal": np.broadcast_to(np.float32(goals)[:, None], shape),
    }
    fields = ("solver", "steps", "schedule", "prediction", "clip")
    options = {name: getattr(policy, name) for name in fields}

    @jax.jit
    def solve(params):
        keys = jax.random.split(jax.random.key(seed), len(goals))
        denoiser, size = policy.denoiser(params, observation), (policy.horizon, 2)
        x0, path = solvers.solve(denoiser, keys, size, trace=True, **options)
        return policy.normalizer.unnormalize("action", jax.numpy.concatenate([path, x0[None]]))

    return solve
