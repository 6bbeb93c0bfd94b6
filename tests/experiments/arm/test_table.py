"""The table: its configs, its policies, what is said of them, and a whole small run."""

import copy
import json
import pathlib

import ml_collections
import numpy as np
import pytest

from ambient_jax.train import config as train_config
from experiments import tasks
from experiments.arm import claims, metrics, policies, report, table, task, timing
from experiments.arm import config as arm_config
from experiments.arm.rollout import Rollouts
from experiments.table import policies as table_policies
from experiments.table import report as table_report


@pytest.mark.parametrize("variant", arm_config.VARIANTS)
def test_variants_are_whole(variant):
    config = arm_config.get_config(variant)
    train_config.check(config)
    assert tasks.get(config.task.name) is task
    task.check(config)
    made = policies.rows(config.task, {})
    assert set(claims.main_names(config.task).values()) <= made.keys()
    for name, row in made.items():
        train_config.check(table_policies.config_of(config, name, row, 7))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"clean": 0}, "clean is 0, expected a whole number of at least 1"),
        ({"best": 1.5}, "best is 1.5, expected a number from 0 to 1"),
        ({"replan": 33}, "replan is 33, expected a whole number from 2 to 32"),
        ({"groups": ("mian",)}, "groups is 'mian'.*did you mean 'main'"),
    ],
)
def test_what_is_wrong_is_told_before_data_are_built(tmp_path, changes, told):
    config = arm_config.get_config()
    config.data.root = str(tmp_path / "data")
    config.task.update(changes)
    with pytest.raises(ValueError, match=rf"config\.task\.{told}"):
        table.run(config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def rolled(success, roughness):
    """Rollouts whose first joint swings by ``roughness`` rad from step to step."""
    success = np.asarray(success, bool)
    positions = np.zeros((len(success), timing.STEPS + 1, 7), np.float32)
    positions[:, ::2, 0] = roughness
    fields = dict(collided=~success, limits=np.zeros(len(success), bool))
    return Rollouts(
        positions, np.full(len(success), timing.STEPS), success, **fields, miss=0.0 * success
    )


def test_claims_say_the_order_with_paired_intervals():
    config = arm_config.get_config()
    names = claims.main_names(config.task)
    few, some, most = (np.arange(400) % 10 < count for count in (4, 6, 7))
    found = {
        names["filtering"]: {0: rolled(few, 0.001), 1: rolled(most, 0.001)},
        names["co-training"]: {0: rolled(some, 0.02)},
        names["ambient"]: {0: rolled(most, 0.01)},
    }
    rows = {n: table_report.row(n, s, metrics.summarise) for n, s in found.items()}
    checked = claims.check(config.task, rows, found)
    assert [claim.holds for claim in checked] == [True] * 5
    assert "smooth to ambient_0.1: +30.0 points" in checked[2].measured  # of the shared seed
    found[names["ambient"]] = {0: rolled(few, 0.03)}
    rows = {n: table_report.row(n, s, metrics.summarise) for n, s in found.items()}
    turned = [claim.holds for claim in claims.check(config.task, rows, found)]
    assert turned == [True, False, None, True, False]
    lines = report.cells(rows, {name: role for role, name in names.items()})
    assert all(len(line) == len(report.COLUMNS) for line in lines)
    assert lines[1][-1] == "59.9% / 42.7 (alpha 0.091)"


def test_the_committed_caption_is_that_of_its_config():
    folder = pathlib.Path(report.__file__).parent / "results"
    results = json.loads((folder / "results.json").read_text())
    config = ml_collections.FrozenConfigDict(results["config"])
    text = report.caption(config, results["training core seconds"])
    assert text in (folder / "table.md").read_text()


def test_the_film_shows_what_tells_the_policies_apart():
    solved = [[True, True, False], [True, False, False], [True, True, False]]
    assert report.told({str(i): rolled(s, 0.01) for i, s in enumerate(solved)}) == 1


@pytest.mark.slow
def test_from_plans_to_the_report(tmp_path):
    """Every policy of the debug variant, one seed; the same command makes nothing anew."""
    config = arm_config.get_config("debug")
    config.data.root = str(tmp_path / "data")
    config.task.update(dict(seeds=(0,), workers=1, together=8))
    again, folder = copy.deepcopy(config), tmp_path / "run"
    table.run(config, str(folder))
    text = (folder / "report" / "table.md").read_text()
    for part in ("smooth plans only", "replanned every 8 steps", "data: rrt (6)"):
        assert part in text, part
    made = {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert sum(p.name == "rollouts.npz" for p in made) == 7
    assert sum(p.name == "rollouts_replanned.npz" for p in made) == 5
    for figure in ("plans", "film"):
        assert (folder / "report" / f"{figure}.png").stat().st_size > 1000
    again.task.report_only = True
    table.run(again, str(folder))
    assert made == {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert (folder / "report" / "table.md").read_text() == text
