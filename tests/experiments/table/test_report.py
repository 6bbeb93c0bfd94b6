"""The tables in the repository are what the code makes of the results beside them."""

import json
import math
import pathlib
import types

import ml_collections
import numpy as np
import pytest

from ambient_jax.estimates import Estimate
from experiments import bin_sorting, maze, planar_pushing  # noqa: F401
from experiments.bin_sorting import claims as bin_claims
from experiments.bin_sorting import metrics as bin_metrics
from experiments.bin_sorting import report as bin_report
from experiments.maze import claims as maze_claims
from experiments.maze import metrics as maze_metrics
from experiments.maze import report as maze_report
from experiments.planar_pushing import caption, claims, studies
from experiments.planar_pushing import metrics as push_metrics
from experiments.planar_pushing import report as push_report
from experiments.table import report
from experiments.table.report import Claim, Row

ROOT = pathlib.Path(__file__).parents[3] / "experiments"


def committed(name):
    """(config, results, lines of the table, text below it) of a results folder."""
    results = json.loads((ROOT / name / "results.json").read_text())
    table, _, below = (ROOT / name / "table.md").read_text().partition("\n\n")
    cells = [[c.strip() for c in line[1:-1].split("|")] for line in table.splitlines()]
    return ml_collections.FrozenConfigDict(results["config"]), results, cells[2:], below


def rows_of(results, summary):
    def estimate(value):
        if not isinstance(value, dict):
            return value
        return Estimate(**{n: math.nan if v is None else v for n, v in value.items()})

    def made(fields):
        return summary(**{name: estimate(value) for name, value in fields.items()})

    return {
        name: Row(row["label"], made(row["summary"]), {k: made(v) for k, v in row["seeds"].items()})
        for name, row in results.items()
    }


def claims_of(results):
    return [Claim(**claim) for claim in results["claims"]]


def test_the_best_has_the_most_seeds():
    estimate = lambda value: types.SimpleNamespace(success=Estimate(value, 0, 1, 9))  # noqa: E731
    seeds = {"lucky": 1, "good": 3, "bad": 3}
    rows = {
        name: Row(name, estimate(value), dict.fromkeys(range(seeds[name])))
        for name, value in (("lucky", 1.0), ("good", 0.8), ("bad", 0.2))
    }
    assert report.best_of(["lucky", "bad", "good", "absent"], rows) == "good"
    worst = lambda summary: -summary.success.value  # noqa: E731
    assert report.best_of(rows, rows, worst) == "bad" and report.best_of(["absent"], rows) == ""


def test_maze():
    config, results, lines, below = committed("maze/results")
    rows = rows_of(results["policies"], maze_metrics.Summary)
    others = rows_of(results["other solvers"], maze_metrics.Summary)
    best = maze_claims.best_of_sweep(config.task, rows)
    made = [*maze_report.cells(rows, best), *maze_report.cells(others)]
    assert made == lines[: len(made)] and best == results["best sigma_min"]
    checked = maze_claims.check(
        config.task, rows, results["data"]["mean squared jerk"]["rrt"]["value"]
    )
    assert checked == claims_of(results)
    text = maze_report.caption(config, results["training core seconds"])
    assert f"{text}\n\n{report.expected(checked)}\n" == below


@pytest.mark.parametrize("folder", ["", "/baselines", "/opposite/25", "/opposite/50"])
def test_bin_sorting(folder):
    config, results, lines, below = committed(f"bin_sorting/results{folder}")
    rows = rows_of(results["policies"], bin_metrics.Summary)
    best = {c: bin_claims.best_of(config.task, rows, c) for c in ("arbitrary", "opposite")}
    assert bin_report.cells(rows, best) == lines and best == results["best"]
    checked = bin_claims.check(config.task, rows)
    assert checked == claims_of(results)
    text = bin_report.caption(config, 4, results["training core seconds"])
    assert f"{text}\n\n{report.expected(checked)}\n" == below


@pytest.mark.parametrize("folder", ["results", "results/quick", "results/scaling"])
def test_planar_pushing(folder):
    config, results, lines, below = committed(f"planar_pushing/{folder}")
    rows = rows_of(results["policies"], push_metrics.Summary)
    best = claims.roles(config.task, rows)
    assert push_report.cells(rows, best) == lines and best == results["best"]

    def arrays(found):
        return {
            name: {k: np.array(v, float) for k, v in each.items()} for name, each in found.items()
        }

    losses = {name: np.array(loss) for name, loss in results["held out"]["loss"].items()}
    drifts = studies.drifts(config.task, losses)
    scaling = {
        int(target): {int(source): arrays(found) for source, found in by_source.items()}
        for target, by_source in results["modes"]["scaling"].items()
    }
    confirmed = rows_of(results["fresh starts"], push_metrics.Summary)
    bias = arrays(results["modes"]["bias"])
    parts = [
        caption.measured(config, results["training core seconds"]),
        caption.fresh(config, confirmed),
        caption.expected(claims_of(results)),
        caption.bounds(results["annotations"]),
        caption.bias(bias),
        caption.scaled_bias(scaling),
        caption.drifts(config, drifts),
    ]
    assert "\n\n".join(filter(None, parts)) + "\n" == below
    nothing = lambda low, high: None  # noqa: E731
    studied = dict(bias=bias, scaled_bias=scaling, drifts=drifts)
    checked = claims.check(config.task, rows, nothing, nothing, **studied)
    assert set(checked) <= set(claims_of(results))
