"""Gains over clean only, claims and the bands of the held-out loss, by hand."""

import functools
import json
import pathlib

import ml_collections
import numpy as np
import pytest

from ambient_jax.estimates import Estimate
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing.rollout import Rollouts
from experiments.shifted import config as shifted_config
from experiments.shifted import excess, figures, judge, report
from experiments.table import report as table_report


def made(success):
    count = len(success)
    error, qpos = np.full((count, 2), 0.01), np.zeros((count, 2, 9))
    seeds, lengths = np.arange(count), np.full(count, 10)
    return Rollouts(seeds, lengths, np.array(success, bool), error, qpos)


@pytest.fixture(scope="module")
def collected():
    half, all_of_them = np.arange(40) % 2, np.ones(40)
    return {
        "clean": {0: made(half), 1: made(half)},
        "bumped_as_is": {0: made(1 - half), 1: made(0 * half)},
        "bumped_aligned_as_is": {0: made(all_of_them)},
    }


def test_gains_compare_the_same_starts_and_seeds(collected):
    gain = functools.partial(table_report.gain, collected)
    assert gain("bumped_aligned_as_is", "clean").value == pytest.approx(0.5)
    assert gain("bumped_as_is", "clean").value == pytest.approx(0.25 - 0.5)
    assert gain("bumped_aligned_as_is", "bumped_as_is").value == pytest.approx(0.5)
    assert gain("bumped_noised", "clean") is None


def test_claims_hold_where_the_interval_is_above_zero(collected):
    task = shifted_config.get_config("table").task
    holds = {claim.claim: claim.holds for claim in report.claims(task, collected)}
    assert holds == {
        "bumped: as is > clean only": False,
        "bumped, aligned: as is > clean only": True,
        "bumped, aligned: as is > as reported": True,
    }


def test_bands_are_geometric_means_of_ratios():
    level = np.asarray(evaluation.LEVELS)
    clean = np.ones((2, 1, len(level)))
    other = np.where(level <= 0.1, 2.0, np.where(level <= 0.7, 1.0, 0.5)) * np.ones((1, 3, 1))
    loss = {"clean": clean, "bumped_noised": other}
    assert report.band_ratios(loss, "bumped_noised") == pytest.approx([2.0, 1.0, 0.5])


def test_figures_are_drawn(collected):
    rows = {name: report.summarise(name, by_seed) for name, by_seed in collected.items()}
    judged = judge.Judged(np.full((13, 13), 0.4), 0.9, np.linspace(0.8, 0.1, 13))
    by_loss = excess.choose(np.linspace(1, 0, 7)[:, None] * np.ones(13), 0.05)
    level = len(evaluation.LEVELS)
    loss = {"clean": np.ones((2, 1, level)), "bumped_noised": np.ones((1, 6, level))}
    drawn = figures.plane({"bumped": judged}, {"bumped by loss": by_loss}), figures.success(rows)
    drawn += (figures.held_out(loss, {"bumped_noised": "noised"}),)
    for figure in drawn:
        figure.canvas.draw()


def test_the_committed_table_is_that_of_its_results():
    folder = pathlib.Path(report.__file__).parent / "results"
    results, text = json.loads((folder / "results.json").read_text()), (folder / "table.md")
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text.read_text().splitlines()]
    cells = {line[0]: line[1:] for line in lines if line}
    for name, row in results["policies"].items():
        success = Estimate(**row["summary"]["success"])
        expected = [str(len(row["seeds"])), *table_report.percent(success)]
        assert cells[row["label"]][:3] == expected
        if found := results["over clean only"].get(name):
            assert cells[row["label"]][4] == report.points(Estimate(**found))
    holds = {True: "yes", False: "**no**", None: "undecided"}
    for claim in results["claims"]:
        assert cells[claim["claim"]] == [claim["measured"], holds[claim["holds"]]]
    assert report._caption(ml_collections.FrozenConfigDict(results["config"])) in text.read_text()
    seeds = {name: len(row["seeds"]) for name, row in results["policies"].items()}
    assert seeds["clean"] == seeds["oracle"] == seeds["bumped_aligned_as_is"] == 3
