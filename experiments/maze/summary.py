"""From the rollouts of all policies to the report: table, claims, figures, ``results.json``."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.cli import report
from ambient_jax.data.paths import expanded
from experiments.maze import data, judge, levels, metrics, policies
from experiments.maze.rollout import Rollouts
from experiments.table import entries as table_entries
from experiments.table import rows as table_rows
from experiments.table.rows import Row

COLUMNS = (
    *("policy", "seeds", "success", "95% interval", "of each seed", "jerk^2", "95% interval"),
    *("accel^2", "time (s)", "collided", "timed out", "talk", "paper"),
)
# As printed in the talk (success / mean jerk^2, 100 trials, 100 GCS plans) and in the paper
# (success / mean accel^2, 1000 trials, 50 GCS plans): Wei 2025; arXiv 2606.12365, section 5.1.
# The talk's and the paper's best sigma_min and alpha stand for ours.
TALK = {"gcs": "50% / 7.5k", "rrt": "100% / 17k", "cotrain": "91% / 14.5k", "best": "98% / 5.5k"}
PAPER = {
    "gcs": "57.5% / 31.9",
    "cotrain": "99.4% / 62.2 (alpha 0.019)",
    "best": "99.5% / 31.0 (sigma_min 0.074)",
    "exclusive": "99.0% / 29.9",
}


def collect(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, dict[str, dict[int, Rollouts]]]:
    """The current rollouts: {policy: {"ddpm 50": {seed: rollouts}}}."""
    entries, found = policies.entries(config.task), {}
    for name, seed, path, about in table_rows.current(config, workdir, entries, judge.files):
        solver, steps, _ = about["solver"]
        by_solver = found.setdefault(name, {}).setdefault(f"{solver} {steps}", {})
        by_solver[seed] = judge.load(path)
    return found


def summarise(label: str, rollouts: Mapping[int, Rollouts]) -> Row:
    """A row from the rollouts of each seed, pooled."""
    seeds = {seed: metrics.summarise(r) for seed, r in rollouts.items()}
    return Row(label, metrics.summarise(pool(list(rollouts.values()))), seeds)


def pool(rollouts: list[Rollouts]) -> Rollouts:
    """Rollouts of several policies as one set; paths are padded to the longest."""
    longest = max(r.positions.shape[1] for r in rollouts)
    padded = [
        np.pad(r.positions, ((0, 0), (0, longest - r.positions.shape[1]), (0, 0)), "edge")
        for r in rollouts
    ]
    join = lambda name: np.concatenate([getattr(r, name) for r in rollouts])  # noqa: E731
    return Rollouts(np.concatenate(padded), *map(join, ("lengths", "success", "collided", "goals")))


def best_of_sweep(config: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> str:
    """The ambient policy of the sweep that succeeds most often; of equals, the smoothest."""
    sweep = [f"ambient_{level}" for level in sorted({*config.task.sigma_min, config.task.best})]
    value = lambda name: (rows[name].summary.success.value, -rows[name].summary.jerk.value)  # noqa: E731
    return max((name for name in sweep if name in rows), key=value)


def claims(
    config: ml_collections.ConfigDict, rows: Mapping[str, Row], rrt_jerk: float
) -> list[tuple[str, str, bool]]:
    """What the experiment is expected to show: (claim, measured, whether it holds).

    Args:
      config: of the table.
      rows: by policy, with the config's own solver.
      rrt_jerk: mean squared jerk of the RRT data.
    """
    told: list[tuple[str, str, bool]] = []
    best = best_of_sweep(config, rows)
    percent = lambda name: 100 * rows[name].summary.success.value  # noqa: E731
    jerk = lambda name: rows[name].summary.jerk.value  # noqa: E731
    told.append(
        (
            "ambient at its best sigma_min succeeds in at least 98.5%",
            f"{best}: {percent(best):.1f}%",
            percent(best) >= 98.5,
        )
    )
    gap = percent(best) - percent("cotrain")
    told.append(("ambient >= co-training - 0.5 points", f"{gap:+.1f} points", gap >= -0.5))
    ratio = jerk(best) / jerk("cotrain")
    told.append(("jerk^2 of ambient <= 0.6 of co-training's", f"{ratio:.2f}", ratio <= 0.6))
    order = ["gcs", "cotrain", best, "rrt"]
    measured = ", ".join(f"{name} {percent(name):.1f}%" for name in order)
    ordered = all(percent(a) < percent(b) for a, b in zip(order, order[1:], strict=False))
    told.append(("success: GCS only < co-training < ambient < RRT only", measured, ordered))
    low = percent("gcs") < min(percent(name) for name in order[1:]) - 10
    told.append(("GCS only is far below in success (10 points)", f"{percent('gcs'):.1f}%", low))
    measured = ", ".join(f"{name} {jerk(name):.3g}" for name in order)
    order = [best, "gcs", "cotrain", "rrt"]
    ordered = all(jerk(a) < jerk(b) for a, b in zip(order, order[1:], strict=False))
    told.append(("jerk^2: ambient < GCS only < co-training < RRT only", measured, ordered))
    share = jerk("rrt") / rrt_jerk
    told.append(("RRT only reaches 70% of its data's jerk^2", f"{share:.0%}", share >= 0.7))
    # What is there: a group may be left out, or not be done yet.
    levels_found = {*config.task.sigma_min, config.task.best}
    sweep = sorted(level for level in levels_found if f"ambient_{level}" in rows)
    ends = ((sweep[0], "cotrain"), (sweep[-1], "gcs"))
    # A short sweep does not come near its limits, and says nothing of them.
    for level, limit in [(level, of) for level, of in ends if not 0.005 < level < 0.99]:
        name = f"ambient_{level}"
        pairs = [(getattr(rows[n].summary, f) for n in (name, limit)) for f in ("success", "jerk")]
        agrees = [a.low <= b.high and b.low <= a.high for a, b in pairs]
        measured = f"success {agrees[0]}, jerk^2 {agrees[1]}"
        told.append((f"{name} is {limit} within intervals", measured, all(agrees)))
    apart = lambda name, of: (percent(name) - percent(of), jerk(name) / jerk(of))  # noqa: E731
    if "chosen_dataset" in rows:
        gap, ratio = apart("chosen_dataset", best)
        claim = f"sigma_min by classifier: within 2 points and 20% jerk^2 of {best}, or better"
        holds = gap >= -2 and ratio <= 1.2
        told.append((claim, f"{gap:+.1f} points, jerk^2 x {ratio:.2f}", holds))
    if "exclusive" in rows:
        reference = f"ambient_{config.task.best}"
        gap, ratio = apart("exclusive", reference)
        measured = f"{gap:+.1f} points, jerk^2 x {ratio:.2f}"
        holds = abs(gap) <= 1 and abs(ratio - 1) <= 0.15
        told.append((f"exclusive bands: within 1 point and 15% of {reference}", measured, holds))
    return told


def write(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the table as markdown."""
    from experiments.maze import table_figures  # figures need matplotlib, numbers do not

    found = collect(config, workdir)
    entries = policies.entries(config.task)
    own = f"{config.policy.solver} {config.policy.steps}"
    rows = {name: summarise(entries[name].label, s[own]) for name, s in found.items() if own in s}
    others = {
        f"{name}, {solver}": summarise(f"{entries[name].label}, {solver}", seeds)
        for name, by_solver in found.items()
        for solver, seeds in by_solver.items()
        if solver != own
    }
    root = pathlib.Path(expanded(config.data.root))
    names = ["gcs", "rrt", *(["shortcut"] if config.task.shortcut else [])]
    sources = {name: data.load_positions(root / f"maze_{name}") for name in names}
    jerk = {name: metrics.mean_squared_jerk(paths) for name, paths in sources.items()}
    best = best_of_sweep(config, rows)
    checked = claims(config, rows, jerk["rrt"].value)

    lines = [_cells(row, name, name == best) for name, row in rows.items()]
    lines += [_cells(row, "", False) for row in others.values()]
    for name, paths in sources.items():
        accel = metrics.mean_squared_acceleration(paths).value
        blank = [""] * (len(COLUMNS) - 8)
        value = [f"{jerk[name].value:.4g}", f"{jerk[name].low:.4g} to {jerk[name].high:.4g}"]
        lines.append([f"data: {name}", "", "", "", "", *value, f"{accel:.1f}", *blank])
    seconds = {name: table_entries.core_seconds(config, workdir, name) for name in rows}
    caption = (
        f"{config.task.goals} rollouts for each policy and training seed (goals of seed "
        f"{config.task.eval_seed}), {config.train.steps} steps of {config.train.batch_size}, "
        f"solver {own} unless a row says otherwise (first seed only). Success of all seeds with "
        "Wilson's interval, then of each seed; jerk^2 (m^2/s^6) and accel^2 (m^2/s^4): mean over "
        "successful rollouts, bootstrap interval. The talk prints success / jerk^2, the paper "
        f"success / accel^2. Training took {sum(seconds.values()) / 3600:.1f} core hours, "
        f"rollouts not counted.\n\n"
        + report.markdown(
            ("expected", "measured", "holds"),
            [(claim, value, "yes" if holds else "**no**") for claim, value, holds in checked],
        )
    )
    floor = _levels(config, workdir)
    results = {
        "policies": rows,
        "other solvers": others,
        "data": {"mean squared jerk": jerk},
        "claims": [dict(zip(("claim", "measured", "holds"), c, strict=True)) for c in checked],
        "best sigma_min": best,
        "loss per noise level": floor,
        "training core seconds": seconds,
        "config": config.to_dict(),
    }
    table = report.write(workdir / "report", COLUMNS, lines, caption, results)
    first = {n: s[own][min(s[own])] for n, s in found.items() if own in s}
    table_figures.write(config, workdir, rows, best, sources, jerk, first, floor)
    return table


def _cells(row: Row, name: str, is_best: bool) -> list[str]:
    summary, reference = row.summary, "best" if is_best else name
    success = summary.success
    return [
        row.label + (" (best)" if is_best else ""),
        str(len(row.seeds)),
        f"{100 * success.value:.1f}%",
        f"{100 * success.low:.1f} to {100 * success.high:.1f}",
        ", ".join(f"{100 * s.success.value:.1f}" for s in row.seeds.values()),
        f"{summary.jerk.value:.4g}",
        f"{summary.jerk.low:.4g} to {summary.jerk.high:.4g}",
        f"{summary.acceleration.value:.1f}",
        f"{summary.time.value:.2f}",
        f"{100 * summary.collided:.1f}%",
        f"{100 * summary.timed_out:.1f}%",
        TALK.get(reference, ""),
        PAPER.get(reference, ""),
    ]


def _levels(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Loss per noise level of the main policies and of the best linear denoiser, by source."""
    found: dict[str, Any] = {}
    for name in policies.entries(config.task):
        path = workdir / table_entries.key(name, config.task.seeds[0]) / "levels.json"
        if path.exists():
            found[name] = report.read(path)
    if not found:
        return {}
    root, shape = (
        pathlib.Path(expanded(config.data.root)),
        dict(history=config.data.history, horizon=config.data.horizon),
    )
    scale = next(iter(found.values()))["metres"]
    linear: dict[str, Any] = {"sigma": levels.LEVELS}
    for source in ("gcs", "rrt"):
        train, test = (
            levels.chunks(root / f"maze_{source}{part}", **shape) for part in ("", "_held_out")
        )
        linear[source] = levels.linear_loss(train, test, scale).tolist()
    return {"best linear denoiser": linear, **found}
