"""The report: the kinds by what they are worth, the policies, figures and ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ambient_jax.cli import report
from ambient_jax.estimates import Estimate
from experiments.defects import figures
from experiments.defects.advice import PARTS, Advice
from experiments.defects.kinds import WORDS
from experiments.maze import metrics
from experiments.maze.rollout import Rollouts
from experiments.table import report as tables
from experiments.table import rollouts
from experiments.table.experiment import Table

COLUMNS = (
    *("policy", "success", "95% interval", "less clean only, points", "jerk^2", "95% interval"),
    *("collided", "out of time"),
)
KINDS = (
    *("rank", "defect", "trains", "gain as advised", "gain everywhere"),
    *(f"{part} levels" for part in PARTS),
)


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the tables as markdown."""
    config = table.config
    given: Any = table.annotations.get("advice", [])
    by_policy = rollouts.collect(table)
    rows = {
        name: tables.row(table.rows[name].label, seeds, metrics.summarise)
        for name, seeds in by_policy.items()
    }
    less = _less_clean(by_policy)
    lines = [_cells(row.label, row.summary, less.get(name)) for name, row in rows.items()]
    parts = [report.markdown(KINDS, kind_lines(given)), _caption(config)]
    results = {
        "policies": rows,
        "less clean only": less,
        "advice": [_result(one) for one in given],
        "training core seconds": {name: tables.core_seconds(table, name) for name in rows},
        "config": config.to_dict(),
    }
    folder = table.workdir / "report"
    text = report.write(folder, COLUMNS, lines, "\n\n".join(parts), results)
    if given:
        figures.gains(given).savefig(folder / "gains.png", dpi=160)
    return text


def kind_lines(given: Sequence[Advice]) -> list[list[str]]:
    """Returns the lines of the table of kinds, see ``KINDS``."""
    return [
        [
            *(str(rank), WORDS[one.kind], one.words, _percent(one.gain), _percent(one.everywhere)),
            *(_percent(one.parts[part]) for part in PARTS),
        ]
        for rank, one in enumerate(given, 1)
    ]


def _caption(config) -> str:
    task, tried = config.task, config.task.candidates
    parts = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in PARTS.items())
    return (
        f"{task.clean} clean plans and {task.each} of each kind. Policies: {task.goals} goals of "
        f"seed {task.eval_seed}, {len(task.seeds)} training seed, {config.train.steps} steps of "
        f"{config.train.batch_size}, solver {config.policy.solver} {config.policy.steps}. Success "
        "with Wilson's interval; the difference is paired by goals; jerk^2 (m^2/s^6): mean over "
        "successful rollouts; bootstrap intervals. Kinds: a gain is by how much the loss on "
        f"held-out clean plans falls, {tried.steps} steps of {tried.batch_size}, {tried.folds} "
        "folds, with its interval over clean plans; as advised, levels at which a kind does not "
        f"train count as 0. By levels ({parts}): trained at all of them."
    )


def _less_clean(by_policy: Mapping[str, Mapping[int, Rollouts]]) -> dict[str, Estimate]:
    """Returns each policy's success less that of clean plans only, on the same goals."""
    less = {n: tables.gain(by_policy, n, "clean") for n in by_policy if n != "clean"}
    return {name: gain for name, gain in less.items() if gain}


def _cells(label: str, summary: metrics.Summary, less: Estimate | None) -> list[str]:
    return [
        *(label, *tables.percent(summary.success)),
        _percent(less).replace("%", "") if less else "",
        *tables.numbers(summary.jerk),
        *(f"{summary.collided:.1%}", f"{summary.timed_out:.1%}"),
    ]


def _percent(estimate: Estimate) -> str:
    value, low, high = (100 * v for v in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.1f}% [{low:+.1f}, {high:+.1f}]"


def _result(one: Advice) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "trains": one.words,
        "bounds": one.bounds,
        "exact": one.exact,
        "gain": one.gain,
        "everywhere": one.everywhere,
        "parts": one.parts,
        "choice": vars(one.choice),
    }
