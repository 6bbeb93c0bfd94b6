"""Checks the claims about bin sorting with the numbers of the table."""

from collections.abc import Mapping

import ml_collections

from experiments.bin_sorting import policies
from experiments.table import report
from experiments.table.report import Claim, Row


def sweep(
    task: ml_collections.ConfigDict, rows: Mapping[str, Row], corrupt: str
) -> dict[float, str]:
    """Returns the evaluated policies of the sweep, by increasing sigma_max."""
    more = task.sigma_max if corrupt == "arbitrary" else task.sigma_max_opposite
    names = {level: policies.omni(level, corrupt=corrupt) for level in sorted({task.best, *more})}
    return {level: name for level, name in names.items() if name in rows}


def best_of(
    task: ml_collections.ConfigDict, rows: Mapping[str, Row], corrupt: str = "arbitrary"
) -> str:
    """Returns the policy of the sweep with the highest score; "" if there is none."""
    names = sweep(task, rows, corrupt).values()
    return report.best_of(names, rows, lambda summary: summary.score.value)


def check(task: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> list[Claim]:
    """Returns the claims about the evaluated policies."""
    return _arbitrary(task, rows) + _opposite(task, rows)


def _arbitrary(task, rows):
    best = best_of(task, rows)
    if not best or not {"correct", "cotrain_arbitrary"} <= rows.keys():
        return []
    percent = lambda name, field="score": 100 * getattr(rows[name].summary, field).value  # noqa: E731
    claims: list[Claim] = []

    def gain(over, field, least, claim):
        gap = percent(best, field) - percent(over, field)
        claims.append(Claim(claim, f"{best}: {gap:+.1f} points", gap >= least))

    gain("correct", "score", 15, "omni's score is 15 points above correct only")
    gain("cotrain_arbitrary", "score", 30, "omni's score is 30 points above co-training")
    if "task_arbitrary" in rows:
        claim = "omni's score is at least that of co-training told the task"
        gain("task_arbitrary", "score", 0, claim)
    gain("correct", "logic", -3, "omni's logic is at most 3 points below correct only")
    # "Reaches": below by at most half of the sum of the intervals' widths.
    reach = [rows[n].summary.completion for n in (best, "cotrain_arbitrary")]
    slack = 100 * sum(e.high - e.low for e in reach) / 4
    claim = (
        "omni's completion reaches co-training's "
        f"(less at most {slack:.1f} points, the intervals' half widths)"
    )
    gain("cotrain_arbitrary", "completion", -slack, claim)
    low = percent("correct", "completion")
    claims.append(Claim("correct only leaves completion below 80%", f"{low:.1f}%", low < 80))
    names = list(sweep(task, rows, "arbitrary").values())
    if len(names) >= 3:
        for field, sign, word in (("logic", -1, "falls"), ("completion", 1, "rises")):
            first, last = (percent(names[end], field) for end in (0, -1))
            claim = f"{field} {word} along the sweep, ends compared"
            measured = f"{first:.1f}% to {last:.1f}%"
            claims.append(Claim(claim, measured, sign * (last - first) > 0))
    if "chosen" in rows:
        gap = percent("chosen") - percent(best)
        claim = "omni with the classifier's sigma_max: score within 5 points of the best"
        measured = f"sigma_max {task.chosen:g}: {gap:+.1f} points"
        claims.append(Claim(claim, measured, gap >= -5))
    return claims


def _opposite(task, rows):
    best = best_of(task, rows, "opposite")
    if not best or not {"correct", "cotrain_opposite"} <= rows.keys():
        return []
    gain = lambda over: 100 * (rows[best].summary.score.value - rows[over].summary.score.value)  # noqa: E731
    above, by_cotraining = gain("correct"), gain("cotrain_opposite")
    return [
        Claim(
            "with opposite: omni's score is above correct only and co-training",
            f"{best}: {min(above, by_cotraining):+.1f} points",
            min(above, by_cotraining) > 0,
        ),
        Claim(
            "with opposite: omni's score is 30 points above correct only (the paper: 32.3)",
            f"{best}: {above:+.1f} points",
            above >= 30,
        ),
    ]
