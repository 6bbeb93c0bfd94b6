import numpy as np
import pytest

from ambient_jax.train import config as train_config
from experiments import checks, tasks
from experiments.bin_sorting import config as bins_config
from experiments.bin_sorting import data, expert, metrics, table, task
from experiments.bin_sorting.scene import Scene


@pytest.mark.parametrize("variant", bins_config.VARIANTS)
def test_variants_are_whole(variant):
    config = bins_config.get_config(variant)
    train_config.check(config)
    assert tasks.get(config.task.name) is task
    task.check(config)
    easy = dict(red=1, blue=1, max_steps=120) if variant == "debug" else {}
    assert task.scene_of(config) == Scene(**easy)
    assert len(set(checks.evaluation_seeds(config.task))) == config.task.episodes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"opposite": 0}, "opposite is 0, expected a whole number of at least 1"),
        ({"held_out": -1}, "held_out is -1, expected a whole number of at least 0"),
        ({"data_seed": 601}, "data_seed is 601, expected a whole number from 0 to 600"),
        ({"sigma_max_opposite": (1.5,)}, "sigma_max_opposite is .*, expected each a number from 0"),
        ({"scene": {"rde": 1}}, "scene is 'rde', .*; did you mean 'red'"),
        ({"scene": {"block": 0.0}}, "scene.block is 0.0, expected a positive finite number"),
        ({"episodes": 0}, "episodes is 0, expected a whole number from 1 to 1000"),
        ({"eval_seed": 300}, "eval_seed is 300, expected a whole number from 0 to 299"),
    ],
)
def test_what_is_wrong_is_told_before_data_are_built(tmp_path, changes, told):
    config = bins_config.get_config()
    config.data.root = str(tmp_path / "data")
    config.task.update(changes)
    with pytest.raises(ValueError, match=rf"config\.task\.{told}"):
        table.run(config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="config variant"):
        bins_config.get_config("corect")


def test_policies_are_tested_in_scenes_of_no_demonstration(monkeypatch):
    """For all seeds, rules and attempts, also held-out ones: by the numbers that scenes get."""
    seen = []
    monkeypatch.setattr(
        expert, "demonstrate", lambda env, rule, number: seen.append(number) or _Done
    )
    for seed in (0, 1, 600):
        for rule in expert.RULES:
            for index in (0, 499_999, 500_000, 999_999):
                data.attempt(Scene(), rule, "", seed, index)
    assert len(set(seen)) == len(seen) and max(seen) < 2**31
    config = bins_config.get_config().task
    config.episodes = 1000
    for config.eval_seed in (0, 1, 299):
        assert checks.evaluation_seeds(config).max() < min(seen)


class _Done:
    placements = bins = np.zeros(4)


def test_row_of_the_table():
    summary = metrics.summarise([[0, 0, 1, -1], [0, 1, -1, -1]], (0, 0, 1, 1))
    found = task.row("omni", summary)
    assert len(found) == len(task.COLUMNS) and found[0] == "omni"
    # 8 blocks, 5 of them placed, 4 of these right.
    assert found[1] == "50.0%" and found[3] == "80.0%" and found[5] == "62.5%" and found[7] == "2"
    nothing = task.row("none", metrics.summarise([[-1, -1, -1, -1]], (0, 0, 1, 1)))
    assert nothing[1] == nothing[5] == "0.0%" and nothing[3:5] == ["", ""]
