import math

import pytest

from ambient_jax.train import config as train_config
from experiments import checks, tasks
from experiments.planar_pushing import config as push_config
from experiments.planar_pushing import data, expert, measure, table, task
from experiments.planar_pushing.scene import SOURCE, TARGET, Scene


@pytest.mark.parametrize("variant", push_config.VARIANTS)
def test_variants_are_whole(variant):
    config = push_config.get_config(variant)
    train_config.check(config)
    assert tasks.get(config.task.name) is task
    task.check(config)
    easy = dict(position=0.04, angle=0.5, yaw=0.3, max_steps=80) if variant == "debug" else {}
    assert task.scene_of(config) == Scene(**easy)
    assert len(set(checks.evaluation_seeds(config.task))) == config.task.episodes


def test_any_field_of_the_scene_is_a_flag():
    config = push_config.get_config()
    config.update_from_flattened_dict({"task.scene.position": 0.02, "task.scene.goal": [0, 0, 1]})
    assert task.scene_of(config) == Scene(position=0.02, goal=(0.0, 0.0, 1.0))
    assert isinstance(hash(task.scene_of(config)), int)


ALL = {"groups": ("main", "scaling", "few", "omni"), "source": 4000}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"sources": ()}, "sources is empty"),
        ({"targets": ()}, "targets is empty"),
        ({"source": 3000}, "sources is .*, expected each at most config.task.source, 3000"),
        ({"target": 40}, r"targets is \(10, 50\), expected each at most config.task.target, 40"),
        ({"few": 151}, "few is 151, expected at most config.task.target, 150"),
        ({"sigma_max": (0.4,)}, r"sigma_max is \(0.4,\), expected each at most config.task.best"),
        ({"source": 0}, "source is 0, expected a whole number of at least 1"),
        ({"buckets": (100, 1.5)}, r"buckets is \(100, 1.5\), expected each a whole number"),
        ({"held_out": -1}, "held_out is -1, expected a whole number of at least 0"),
        ({"data_seed": 901}, "data_seed is 901, expected a whole number from 0 to 900"),
        ({"sigma_min": (0.3, 1.1)}, r"sigma_min is \(0.3, 1.1\), expected each a number from 0"),
        ({"alpha": ("half",)}, "alpha is .*, expected each a number from 0 to 1"),
        ({"sigma_max": (-0.1,)}, "sigma_max is .*, expected each a number from 0 to 1"),
        ({"best": math.nan}, "best is nan, expected a number from 0 to 1"),
        ({"low": -0.1}, "low is -0.1, expected a number from 0 to 1"),
        ({"best_alpha": 2.0}, "best_alpha is 2.0, expected a number from 0 to 1"),
        ({"strict": 0.0}, "strict is 0.0, expected a number between 0 and 0.5"),
        ({"strict": 0.5}, "strict is 0.5, expected a number between 0 and 0.5"),
        ({"gap": -1.0}, "gap: level of the gap is -1.0, expected a finite number"),
        ({"gap": 5.0}, "gap: level of the gap is 5.0, expected a smaller one"),
        ({"knobs": ("lag", "drag")}, r"knobs is \('lag', 'drag'\), expected each one of"),
        ({"scene": {"positon": 0.1}}, "scene is 'positon', .*; did you mean 'position'"),
        ({"scene": {"position": -1.0}}, "scene.position is -1.0, expected a positive"),
        ({"scene": {"goal": (0.0,)}}, r"scene.goal is \(0.0,\), expected 3 finite numbers"),
        ({"episodes": 0}, "episodes is 0, expected a whole number from 1 to 1000"),
        ({"episodes": 1001}, "episodes is 1001, expected a whole number from 1 to 1000"),
        ({"eval_seed": -1}, "eval_seed is -1, expected a whole number from 0 to 299"),
        ({"eval_seed": 300}, "eval_seed is 300, expected a whole number from 0 to 299"),
    ],
)
def test_what_is_wrong_is_told_before_data_are_built(tmp_path, changes, told):
    config = push_config.get_config()
    config.data.root = str(tmp_path / "data")
    config.task.update(ALL)
    task.check(config)
    config.task.update(changes)
    with pytest.raises(ValueError, match=rf"config\.task\.{told}"):
        table.run(config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_what_no_group_asks_for_is_not_checked():
    config = push_config.get_config()
    config.task.update(dict(groups=("main",), sources=(), target=5, sigma_max=(0.9,)))
    task.check(config)


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
    config.episodes = 1000
    for config.eval_seed in (0, 1, 299):
        assert checks.evaluation_seeds(config).max() < min(seen)


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
