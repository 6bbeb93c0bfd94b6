"""The report of the table: rows, caption, figures, ``results.json``."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.arm import claims, data, figures, metrics, scene, table_figures, task, timing
from experiments.arm.rollout import Rollouts
from experiments.table import cache, report
from experiments.table import figures as common
from experiments.table import rollouts as table_rollouts
from experiments.table.experiment import Table
from experiments.table.report import Row

COLUMNS = (
    *("policy", "seeds", "success", "95% interval", "of each seed", "accel^2", "95% interval"),
    *("jerk^2", "length", "collided", "limits", "missed", "paper"),
)
# success / mean squared acceleration, 1000 trials: arXiv 2606.12365. Its best alpha and sigma_min
# stand for ours.
PAPER = {
    "filtering": "46.0% / 3.9",
    "co-training": "59.9% / 42.7 (alpha 0.091)",
    "ambient": "65.9% / 31.4 (sigma_min 0.025)",
}
_OPEN, _CLOSED = "rollouts.npz", "rollouts_replanned.npz"


def files(table: Table, key: str, config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """Returns the files of a policy's rollouts: open loop and, for the group main and the first
    seed, replanned every ``task.replan`` steps. See ``Experiment``."""
    base, (name, seed) = table.config, key.split("/")
    about = {
        "steps": config.train.steps,
        "solver": [base.policy[name] for name in ("solver", "steps", "clip")],
        "problems": [base.task.episodes, base.task.eval_seed],
        "scene": [scene.RANGES.tolist(), timing.STEPS, data.RECIPE],
    }
    made = {_OPEN: about | {"execute": base.policy.execute}}
    if table.rows[name].group == "main" and seed == f"seed_{base.task.seeds[0]}":
        made[_CLOSED] = about | {"execute": base.task.replan}
    return made


def collect(table: Table) -> dict[str, dict[str, dict[int, Rollouts]]]:
    """Returns the current rollouts: {file: {policy: {seed: rollouts}}}."""
    rollouts: dict[str, dict[str, dict[int, Rollouts]]] = {_OPEN: {}, _CLOSED: {}}
    for name, seed, path, _ in table_rollouts.current(table):
        by_seed = rollouts[path.name].setdefault(name, {})
        by_seed[seed] = Rollouts(**cache.load(path))
    return rollouts


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the table as markdown."""
    config, rollouts = table.config, collect(table)
    rows: dict[str, Row] = {}
    closed: dict[str, Row] = {}
    for name, by_seed in rollouts[_OPEN].items():
        rows[name] = report.row(table.rows[name].label, by_seed, metrics.summarise)
    for name, by_seed in rollouts[_CLOSED].items():
        label = f"{table.rows[name].label}, replanned every {config.task.replan} steps"
        closed[name + claims.CLOSED] = report.row(label, by_seed, metrics.summarise)
    sources = task.plans(config)
    smooth = {name: metrics.smoothness(paths, 2) for name, paths in sources.items()}
    checked = claims.check(config.task, rows, rollouts[_OPEN])
    roles = {name: role for role, name in claims.main_names(config.task).items()}
    straight = metrics.summarise(task.straight(config))
    lines = [*cells(rows, roles), *cells(closed, {})]
    success = report.percent(straight.success)
    lines.append(["straight motion, no policy", "", *success, *[""] * (len(COLUMNS) - 4)])
    lines += [data_cells(f"data: {name} ({len(p)})", p) for name, p in sources.items()]
    results: dict[str, Any] = {
        "replanned": closed,
        "straight motion": straight,
        "data": {"mean squared acceleration": smooth},
        "training core seconds": {name: report.core_seconds(table, name) for name in rows},
    }
    parts = [caption(config, results["training core seconds"]), report.expected(checked)]
    text = report.write(table, COLUMNS, lines, parts, rows, checked, results)
    first = {name: by_seed[min(by_seed)] for name, by_seed in rollouts[_OPEN].items()}
    shown = {rows[name].label: first[name] for name in roles if name in first}
    drawn = task.evaluation_problems(config)
    made = {
        "front": table_figures.front(config.task, rows, smooth["rrt"]),
        "sweep": table_figures.sweep(rows),
        "plans": figures.plans_figure(sources),
        "film": figures.film(shown, drawn, episode=told(shown)) if shown else None,
    }
    common.save(table.workdir / "report", made)
    return text


def told(rollouts: Mapping[str, Rollouts]) -> int:
    """Returns the first problem that the last policy solves and the fewest others do."""
    *others, last = rollouts.values()
    solved = sum((r.success.astype(int) for r in others), 0 * last.success.astype(int))
    return int((solved + len(rollouts) * ~last.success).argmin())


def caption(config: ml_collections.ConfigDict, seconds: Mapping[str, float]) -> str:
    """Describes how the numbers of the table were measured."""
    return (
        f"{config.task.episodes} problems for each policy and training seed (of seed "
        f"{config.task.eval_seed}), {config.train.steps} steps of {config.train.batch_size}, "
        f"solver {config.policy.solver} {config.policy.steps}; whole plans of {timing.STEPS} "
        f"steps in {timing.DURATION:g} s, open loop unless a row says otherwise (first seed only). "
        "A later plan of those replanned is followed in the time that is left. "
        "Success of all seeds with Wilson's interval, which knows nothing of how seeds differ, "
        f"then of each seed. {task.SMOOTH} The paper prints success / accel^2. "
        + report.training_took(seconds)
    )


def cells(rows: Mapping[str, Row], roles: Mapping[str, str]) -> list[list[str]]:
    """Returns the table's lines of policies, see ``COLUMNS``; ``roles`` by policy."""
    lines = []
    for name, row in rows.items():
        label, success, interval, *remaining = task.policy_cells(row.label, row.summary)
        shares = (row.summary.collided, row.summary.limits, row.summary.missed)
        lines.append(
            [
                *(label, str(len(row.seeds)), success, interval),
                *(report.of_each_seed(row, "success"), *remaining),
                *(f"{100 * share:.1f}%" for share in shares),
                PAPER.get(roles.get(name, ""), ""),
            ]
        )
    return lines


def data_cells(label, paths):
    """Returns the table's line of a data set."""
    label, success, interval, *remaining = task.data_cells(label, paths)
    return [label, "", success, interval, "", *remaining, *[""] * 4]
