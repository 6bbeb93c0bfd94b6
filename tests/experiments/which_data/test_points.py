"""Points of the study name a task, clean demonstrations and a shift; their configs train."""

import pytest

from ambient_jax.annotate.candidates import Candidate
from ambient_jax.train import config as train_config
from experiments.which_data import config as variants
from experiments.which_data import table
from experiments.which_data.points import TASKS, Point, config_of


@pytest.mark.parametrize("text", sorted({*variants.POINTS, *variants.BASE}))
def test_the_points_of_the_variants_are_configs_that_train(text):
    point = Point.parse(text)
    config = config_of(point, variants.get_config("grid"))
    task = TASKS[point.task]
    task.experiment.check(config)
    assert config.data.sources[task.clean].split == f"train[:{point.clean}]"
    assert config.task[task.count] >= point.clean
    assert len(config.data.sources) == 2 and config.data.sources[task.corrupt].role == "corrupt"
    assert config.task[task.episodes] == 200 and config.task.held_out == 0
    config.law = {"name": "ambient"}
    train_config.check(config)


def test_the_base_points_train_as_in_the_tables():
    study = variants.get_config("chosen")
    for text in variants.BASE:
        point = Point.parse(text)
        ours, theirs = config_of(point, study), TASKS[point.task].experiment.get_config("table")
        for section in ("train", "model", "schedule", "objective", "policy"):
            assert ours[section] == theirs[section], (text, section)


def test_shifts_change_the_corrupt_data():
    study = variants.get_config("grid")
    assert config_of(Point("push", 50, "0.3"), study).task.gap == 0.3
    assert config_of(Point("maze", 50, "shortcut"), study).data.sources.rrt.path == "maze_shortcut"
    opposite = config_of(Point("bins", 50, "opposite"), study)
    assert opposite.data.sources.arbitrary.path == "bins_opposite"


@pytest.mark.parametrize("text", ["push", "push,50", "push,1,1", "push,many,1", "pull,50,1", ""])
def test_other_points_are_refused(text):
    with pytest.raises(ValueError, match="config.task.points"):
        Point.parse(text)


def test_the_candidates_are_clean_data_shares_and_levels():
    tried = table.tried(variants.get_config("grid").task)
    assert tried[:3] == [Candidate(1.0), Candidate(None), Candidate(0.5)]
    assert tried[3:] == [Candidate(0.5, level) for level in (0.05, 0.1, 0.2, 0.4)]
