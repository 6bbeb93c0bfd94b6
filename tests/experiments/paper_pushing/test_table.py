"""The table: its configs, its policies, a small run from the state, and one from pictures."""

import json

import jax
import numpy as np
import pytest

from ambient_jax.train import config as train_config
from experiments import checks, tasks
from experiments.paper_pushing import config as configs
from experiments.paper_pushing import policies, report, rollout, seen, table, task
from experiments.paper_pushing.env import PaperScene
from experiments.planar_pushing import classifier_bounds
from experiments.table import policies as table_policies
from experiments.table.annotations import Annotation


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_variants_are_whole(variant):
    config = configs.get_config(variant)
    train_config.check(config)
    assert tasks.get(config.task.name) is task
    task.check(config)
    for name, row in policies.rows(config.task, {}).items():
        train_config.check(table_policies.config_of(config, name, row, 7))


def test_starts_that_choose_are_not_those_that_report():
    config = configs.get_config()
    chooses, reports = (checks.evaluation_seeds(c.task) for c in (config, task.fresh(config)))
    assert not set(chooses) & set(reports)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"sigma_min": (0.2, 1.1)}, r"sigma_min is \(0.2, 1.1\), expected each a number from 0"),
        ({"upper": 3000}, "upper is 3000, expected at most config.task.target, 2000"),
        ({"images_source": -1}, "images_source is -1"),
        ({"groups": ("mian",)}, "groups is 'mian'.*did you mean 'main'"),
        ({"groups": ("target_uper",)}, "groups is 'target_uper'.*did you mean 'target_upper'"),
        ({"scene": {"back": -1.0}}, "scene.back"),
    ],
)
def test_what_is_wrong_is_told_before_data_are_built(tmp_path, changes, told):
    config = configs.get_config()
    config.data.root = str(tmp_path / "data")
    config.task.update(changes)
    with pytest.raises(ValueError, match=rf"config\.task\.{told}"):
        table.run(config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_the_upper_bound_has_more_demonstrations_and_nothing_else():
    config = configs.get_config()
    rows = policies.rows(config.task, {})
    made = {n: table_policies.config_of(config, n, rows[n], 0).to_dict() for n in rows}
    upper, target = made[policies.UPPER], made["target"]
    assert upper["data"]["sources"]["target"].pop("split") == "train[:2000]"
    assert target["data"]["sources"]["target"].pop("split") == "train[:50]"
    assert upper | {"name": ""} == target | {"name": ""}


def test_the_source_below_a_level_is_what_ambient_leaves_out():
    config = configs.get_config("pixels_below")
    rows = policies.rows(config.task, {})
    assert list(rows) == [policies.UPPER, "below_0.3_alpha_0.5"]
    made = {n: table_policies.config_of(config, n, row, 0) for n, row in rows.items()}
    below = made["below_0.3_alpha_0.5"]
    source = below.data.sources.source
    assert (below.law.name, below.law.alpha) == ("ambient", 0.5)
    assert (source.sigma_min, source.sigma_max) == (1.0, 0.3)
    assert below.data.sources.target.split == "train[:50]"
    config.task.images_target = 50
    with pytest.raises(ValueError, match="upper is 2000.*at most config.task.images_target"):
        task.check(config)


def test_the_sweep_from_pictures_differs_in_its_bounds_and_shares_only():
    config = configs.get_config("pixels_sweep")
    assert list(classifier_bounds.needed(config.task)) == ["table"]
    found = {
        "sigma_min": {"source, dataset": {"mean": 0.2}},
        "levels": [0.5],
        "total_variation": {"source": {"value": [0.1]}},
    }
    rows = policies.rows(config.task, {"table": Annotation("folder", found, "source", 50, 2000)})
    assert set(rows) == set(config.task.groups)
    assert set().union(*(row.changes for row in rows.values())) == {
        *("law.name", "law.alpha", "data.sources.source.sigma_min", "data.sources.source.bounds"),
    }
    chosen = rows["dataset_alpha_0.5"].changes
    assert (chosen["data.sources.source.sigma_min"], chosen["law.alpha"]) == (0.2, 0.5)
    seeds = table_policies.programs(config, rows, together=1)
    assert sum(any(key.startswith("dataset") for key in program) for program in seeds) == 3
    assert len(seeds) == 7
    # The levels and the network are those of the table that they are set beside.
    beside = configs.get_config("pixels")
    for section in ("data", "model", "train", "policy", "augmentation"):
        assert config[section].to_dict() == beside[section].to_dict()


def test_streamed_policies_train_alone():
    config = configs.get_config("pixels")
    rows = policies.rows(config.task, {})
    assert list(rows) == list(config.task.groups)
    programs = table_policies.programs(config, rows, together=4)
    seeds = config.task.seeds
    assert [list(p) for p in programs] == [[f"{n}/seed_{seed}"] for n in rows for seed in seeds]


def test_a_small_table_from_the_state(tmp_path, tiny, capsys):
    config = tiny(configs.get_config("debug"))
    config.task.groups = ("main", "upper")
    table.run(config, str(tmp_path / "run"))
    printed = capsys.readouterr().out
    assert "target only, 4 target demonstrations" in printed and "best ambient" in printed
    folder = tmp_path / "run" / "report"
    results = json.loads((folder / "results.json").read_text())
    assert results["fresh starts"].keys() == {
        *("target", "alpha_0.5", "ambient_0.6", policies.UPPER)
    }
    assert len(results["held out"]["target"]) == len(results["levels"])
    assert {p.name for p in folder.glob("*.png")} >= {"success.png", "levels.png", "films.png"}


def test_rolling_out_from_pictures_is_no_report_alone(tmp_path):
    config = configs.get_config("debug")
    config.task.report_only = True
    with pytest.raises(ValueError, match="report_only is True, expected False"):
        seen.run(config, str(tmp_path))


@pytest.mark.slow
def test_policies_of_the_state_act_from_pictures(tmp_path, tiny, capsys):
    config = tiny(configs.get_config("debug"))
    config.task.groups = ("target", "alpha_0.5")
    workdir = str(tmp_path / "run")
    with pytest.raises(ValueError, match="expected those of its table"):
        seen.run(config, workdir)
    table.run(config, workdir)
    capsys.readouterr()
    seen.run(config, workdir)
    assert "co-training, alpha 0.5" in capsys.readouterr().out
    results = json.loads((tmp_path / "run/report/seen/results.json").read_text())
    assert results["difference"].keys() == {"target", "alpha_0.5"}
    assert results["state"].keys() == results["pictures"].keys()


@pytest.mark.slow
def test_a_small_table_from_pictures(tmp_path, capsys):
    config = configs.get_config("debug_pixels")
    config.data.root = str(tmp_path / "data")
    config.task.workers = 1
    table.run(config, str(tmp_path / "run"))
    assert "ambient, sigma_min 0.6" in capsys.readouterr().out
    assert (tmp_path / "run" / "report" / "films.png").exists()


def test_bands_are_ratios_to_target_only():
    """By hand: twice target only's loss at low noise, half at high."""
    levels = np.array(report.evaluation.LEVELS)
    target = np.ones((1, len(levels)))
    other = np.where(levels < 0.3, 2.0, 0.5)[None]
    made = report.bands({"target": target, "cotrain": other})
    assert made["target"] == [1] * 5
    np.testing.assert_allclose(made["cotrain"], [2, 2, 2, 0.5, 0.5])


def test_a_policy_of_pictures_sees_the_pushers_place_and_not_the_slider():
    states = np.random.default_rng(0).normal(size=(3, 1, 12)).astype(np.float32) * 0.1
    shapes = {"state": (1, 2), "state_mask": (2,), "image_primary": (), "image_wrist_mask": (1,)}
    inputs = {name: jax.ShapeDtypeStruct(shape, bool) for name, shape in shapes.items()}
    seen = rollout.observe(states, inputs, PaperScene())
    np.testing.assert_array_equal(seen["state"], states[..., :2])
    assert seen["image_wrist"].shape == (3, 1, 64, 64, 3) and seen["image_wrist_mask"].all()
    assert seen["state_mask"].shape == (3, 2)
    assert rollout.observe(states, {"state": None}, PaperScene())["state"] is states
