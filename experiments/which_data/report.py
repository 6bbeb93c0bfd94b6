"""The report of the study: table, figures and ``results.json``."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from ambient_jax import estimates
from ambient_jax.cli import report
from ambient_jax.estimates import Estimate
from experiments.which_data import scores
from experiments.which_data.judged import BEST, CHOSEN, CLEAN, Judged, describe

COLUMNS = (
    *("task", "clean", "shift", "chosen without rollouts", "clean only", "best co-training"),
    *("best of the sweep", "chosen", "95%", "less the better of clean only and co-training"),
    "jerk^2",
)
_COLOURS = {CLEAN: "#888888", "co-training": "#c8553d", CHOSEN: "#1f77b4", BEST: "#2a9d4a"}
MARGIN = 0.03


def write(judged: Sequence[Judged], config: ml_collections.ConfigDict, folder: pathlib.Path) -> str:
    """Writes ``table.md``, ``results.json`` and figures; returns the table as markdown."""
    lines = [_line(one) for one in judged]
    task = config.task
    gains = [gain for one in judged if (gain := one.gain())]
    below = sum(gain.low < -MARGIN for gain in gains)
    counts = ", ".join(f"{count} of {name}" for name, count in task.episodes.items())
    caption = (
        f"Episodes for each policy and training seed ({len(task.seeds)}), from the same starts: "
        f"{counts}. Chosen without rollouts by `annotate.choice` from losses on folds of the "
        "clean demonstrations. Success (bin sorting: blocks in the right bin) with bootstrap "
        "intervals over starts, which know nothing of how training seeds differ. Best "
        "co-training: the share with more successes here."
    )
    if gains:
        caption += (
            f" At {below} of {len(gains)} points the interval of the last difference reaches below "
            f"{-100 * MARGIN:.0f} points; its mean is below at "
            f"{sum(gain.value < -MARGIN for gain in gains)}."
        )
    study = [
        scores.Scored(
            *(one.measured, one.sampled, one.of_candidates(), float(one.success[CHOSEN].mean()))
        )
        for one in judged
    ]
    if all(len(point.success) > 1 for point in study):
        scored = report.markdown(scores.COLUMNS, scores.compare(study))
        caption += (
            f"\n\nScores of the policies of clean data only and co-training at these {len(study)} "
            "points, from candidates of the same mixtures (intervals: bootstrap over points):\n\n"
            f"{scored}"
        )
    results = {"points": [_result(one) for one in judged], "config": config.to_dict()}
    text = report.write(folder, COLUMNS, lines, caption, results)
    success_figure(judged).savefig(folder / "success.png", dpi=160)
    levels_figure(judged).savefig(folder / "levels.png", dpi=160)
    return text


def of_policy(one: Judged, name: str) -> Estimate:
    """Returns a policy's mean success."""
    return estimates.mean(one.success[name])


def cotraining(one: Judged) -> str:
    """Returns the name of the most successful share of co-training; "" without one."""
    names = [name for name in one.success if name not in (CHOSEN, CLEAN, BEST)]
    return max(names, key=lambda name: one.success[name].mean(), default="")


def _line(one):
    percent = lambda e: f"{100 * e.value:.1f}%"  # noqa: E731
    cell = lambda name: percent(of_policy(one, name)) if name in one.success else ""  # noqa: E731
    chosen, gain, mixed = of_policy(one, CHOSEN), one.gain(), cotraining(one)
    points = lambda e: f"{100 * e.value:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"  # noqa: E731
    return [
        *(one.point.task, str(one.point.clean), one.point.shift, describe(one.choice)),
        cell(CLEAN),
        f"{cell(mixed)} ({mixed.replace('_', ' ')})" if mixed else "",
        cell(BEST),
        percent(chosen),
        f"{100 * chosen.low:.1f} to {100 * chosen.high:.1f}",
        points(gain) if gain else "",
        f"{one.jerk[CHOSEN].value:.4g}" if CHOSEN in one.jerk else "",
    ]


def _result(one) -> dict[str, Any]:
    chosen = one.choice
    return {
        "point": one.point._asdict(),
        "choice": {"words": describe(chosen), **vars(chosen)},
        "success": {name: of_policy(one, name) for name in one.success},
        "gain": one.gain(),
        "jerk": one.jerk,
    }


def success_figure(judged: Sequence[Judged]) -> Any:
    """Plots success against the number of clean demonstrations, a panel for each task and shift."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((one.point.task, one.point.shift) for one in judged))
    figure = Figure(figsize=(3.1 * len(panels), 3.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        here = [one for one in judged if (one.point.task, one.point.shift) == panel]
        here.sort(key=lambda one: one.point.clean)
        for name, colour in _COLOURS.items():
            names = [cotraining(one) if name == "co-training" else name for one in here]
            shown = [(o, n) for o, n in zip(here, names, strict=True) if n in o.success]
            if not shown:
                continue
            x = np.array([one.point.clean for one, _ in shown])
            values = [of_policy(one, n) for one, n in shown]
            y = 100 * np.array([[v.value, v.low, v.high] for v in values])
            errors = np.maximum([y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]], 0)
            label = {CLEAN: "clean only", BEST: "best of the sweep"}.get(name, name)
            axes.errorbar(x, y[:, 0], errors, color=colour, marker="o", ms=4, lw=1.4, label=label)
        axes.set(xscale="log", title=f"{panel[0]}, shift {panel[1]}", xlabel="clean demonstrations")
        axes.set_xticks(ticks := [one.point.clean for one in here], map(str, ticks))
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("success, %")
    figure.axes[0].legend(fontsize=8)
    return figure


def levels_figure(judged: Sequence[Judged]) -> Any:
    """Plots what the choice rests on: the loss ratio and the decisions broken, by noise level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, broken = figure.subplots(1, 2)
    for k, one in enumerate(judged):
        chosen, colour = one.choice, f"C{k % 10}"
        label = f"{one.point.task} {one.point.clean}, {one.point.shift}"
        loss.plot(chosen.levels, np.exp(chosen.ratio), color=colour, lw=1.3, label=label)
        band = np.exp(chosen.low), np.exp(chosen.high)
        loss.fill_between(chosen.levels, *band, color=colour, alpha=0.12, lw=0)
        broken.plot(chosen.levels, chosen.broken, color=colour, lw=1.3)
    loss.axhline(1, color="#888888", lw=0.8, ls="--")
    loss.set(ylabel="held-out loss, mixture / clean only", yscale="log")
    loss.set_yticks(ticks := (0.05, 0.1, 0.2, 0.5, 1), map(str, ticks))
    broken.set(ylabel="decisions broken in an episode")
    for axes in (loss, broken):
        axes.set(xscale="logit", xlabel=r"noise level $\sigma$")
        axes.set_xticks((0.01, 0.1, 0.5, 0.9, 0.99), ("0.01", "0.1", "0.5", "0.9", "0.99"))
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure
