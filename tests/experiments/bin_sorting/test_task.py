import numpy as np
import pytest

from ambient_jax.train import config as train_config
from experiments import tasks
from experiments.bin_sorting import config as bins_config
from experiments.bin_sorting import data, expert, metrics, task
from experiments.bin_sorting.scene import Scene


@pytest.mark.parametrize("variant", bins_config.VARIANTS)
def test_variants_are_whole(variant):
    config = bins_config.get_config(variant)
    train_config.check(config)
    assert tasks.get(config.task.name) is task
    changed = config.task.scene.to_dict()
    assert task.scene_of(config) == Scene(**changed)
    assert len(set(task.scenes(config.task))) == config.task.episodes


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
    for config.eval_seed in (0, 1, 200):
        assert task.scenes(config).max() < min(seen)


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
