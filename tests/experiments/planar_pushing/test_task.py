import pytest

from ambient_jax.train import config as train_config
from experiments import tasks
from experiments.planar_pushing import config as push_config
from experiments.planar_pushing import data, expert, measure, task
from experiments.planar_pushing.scene import SOURCE, TARGET, Scene


@pytest.mark.parametrize("variant", push_config.VARIANTS)
def test_variants_are_whole(variant):
    config = push_config.get_config(variant)
    train_config.check(config)
    assert tasks.get(config.task.name) is task
    assert task.scene_of(config) == Scene(**config.task.scene.to_dict())
    assert len(set(task.starts(config.task))) == config.task.episodes


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="config variant"):
        push_config.get_config("ambience")


def test_policies_are_tested_from_starts_of_no_demonstration(monkeypatch):
    """For all seeds, worlds and attempts, also held-out ones: by the numbers that starts get."""
    seen = []
    monkeypatch.setattr(expert, "demonstrate", lambda env, style, number: seen.append(number) or _N)
    for seed in (0, 1, 900):
        for world in data.WORLDS:
            for index in (0, 499_999, 500_000, 999_999):
                data.attempt(Scene(), TARGET, world, "", seed, index)
    assert len(set(seen)) == len(seen) and max(seen) < 2**31
    config = push_config.get_config().task
    for config.eval_seed in (0, 1, 200):
        assert task.starts(config).max() < min(seen)


class _N:
    success = True


def test_tolerance_in_words():
    scene = Scene(position=0.02, angle=0.1745329, max_steps=150)
    assert task.asked(scene) == "20 mm and 10 degrees of the goal within 15 s"


def test_measured_row():
    """An expert repeats itself when replayed; in 0.5 s it cannot succeed."""
    row = measure.expert_row("source", "planner", SOURCE, TARGET, 3)
    assert len(row) == len(measure.COLUMNS)
    assert row[:2] == ["source", "100.0%"] and row[3] == "100.0%"
    with pytest.raises(ValueError, match="no demonstration of source succeeds"):
        measure.expert_row("source", "planner", SOURCE, TARGET, 1, scene=Scene(max_steps=5))
