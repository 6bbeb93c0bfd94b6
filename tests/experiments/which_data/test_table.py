"""The study runs, carries on and reports; its differences are paired and its words right."""

import json
import types

import numpy as np
import pytest

from ambient_jax.annotate import candidates
from ambient_jax.annotate.candidates import Candidate
from ambient_jax.annotate.choice import Choice
from experiments.which_data import config as variants
from experiments.which_data import report, table
from experiments.which_data.judged import Judged, describe
from experiments.which_data.points import TASKS, Point

_NOTHING = np.zeros(2)


def _choice(candidate, sigma_max=1.0):
    levels = np.array([0.1, 0.9])
    return Choice(candidate, sigma_max, levels, _NOTHING, _NOTHING, _NOTHING, _NOTHING, {}, 0.1)


def _judged(**success):
    point, chosen = Point("push", 50, "1"), _choice(Candidate(0.5, 0.1))
    return Judged(
        point, None, {}, chosen, {n: np.asarray(v, float) for n, v in success.items()}, {}
    )


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (_choice(Candidate(1.0)), "clean only"),
        (_choice(Candidate(0.5), 0.0), "clean only"),
        (_choice(Candidate(0.5)), "alpha 0.5, everywhere"),
        (_choice(Candidate(None, 0.2)), "by number, above 0.2"),
        (_choice(Candidate(0.5), 0.8), "alpha 0.5, below 0.80"),
        (_choice(Candidate(0.5, 0.1), 0.8), "alpha 0.5, above 0.1 below 0.80"),
    ],
)
def test_a_choice_is_said_in_words(chosen, words):
    assert describe(chosen) == words


def test_the_gain_is_paired_and_against_the_better_of_the_others():
    rng = np.random.default_rng(0)
    better = rng.random(400) < 0.6
    chosen = better | (rng.random(400) < 0.1)
    judged = _judged(clean=rng.random(400) < 0.3, natural=better, best=np.ones(400), chosen=chosen)
    gain = judged.gain()
    assert gain.value == pytest.approx(chosen.mean() - better.mean())
    assert gain.high - gain.low < 0.06  # unpaired it would be 0.13
    assert report.cotraining(judged) == "natural"
    assert _judged(chosen=chosen).gain() is None


def test_blocks_in_the_right_bin_count_as_success():
    from experiments.bin_sorting import metrics
    from experiments.bin_sorting.scene import Scene

    placements = np.random.default_rng(0).integers(0, 3, (50, len(Scene().colours)))
    success = TASKS["bins"].success(types.SimpleNamespace(placements=placements))
    score = metrics.summarise(placements, Scene().colours).score.value
    assert success.shape == (50,) and success.mean() == pytest.approx(score)


def test_a_report_judges_and_locks_nothing(tmp_path, monkeypatch):
    config = variants.get_config("debug")
    config.task.report_only = True
    monkeypatch.setattr(candidates, "measure", lambda *args: pytest.fail("measured"))
    monkeypatch.setattr(candidates, "read", lambda *args: None)  # of other options
    with pytest.raises(ValueError, match="has no judged point, expected one of push,4,1"):
        table.run(config, str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_study_runs_and_carries_on(tmp_path):
    config = variants.get_config("debug")
    config.data.root = str(tmp_path / "data")
    config.task.workers = 1
    table.run(config, str(tmp_path / "study"))
    folder = tmp_path / "study" / "report"
    results = json.loads((folder / "results.json").read_text())
    assert [p["point"]["task"] for p in results["points"]] == ["push", "maze"]
    for point in results["points"]:
        assert set(point["success"]) == {"chosen", "clean", "natural", "alpha_0.5"}
        assert point["gain"]["low"] <= point["gain"]["value"] <= point["gain"]["high"]
    assert (folder / "success.png").stat().st_size > 10_000
    text = (folder / "table.md").read_text()
    config.task.report_only = True
    table.run(config, str(tmp_path / "study"))
    assert (folder / "table.md").read_text() == text
