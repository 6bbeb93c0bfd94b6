"""The table: its configs, its policies, what is said of them, and a whole small run."""

import copy

import numpy as np
import pytest

from ambient_jax.train import config as train_config
from experiments import checks, tasks
from experiments.pusht import config as pusht_config
from experiments.pusht import policies, report, table, task
from experiments.pusht.rollout import Rollouts
from experiments.table import policies as table_policies


@pytest.mark.parametrize("variant", pusht_config.VARIANTS)
def test_variants_are_whole(variant):
    config = pusht_config.get_config(variant)
    train_config.check(config)
    assert tasks.get(config.task.name) is task
    task.check(config)
    assert len(set(checks.evaluation_seeds(config.task))) == config.task.episodes
    for name, row in policies.rows(config.task, {}).items():
        train_config.check(table_policies.config_of(config, name, row, 7))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"sigma_min": ()}, "sigma_min is empty"),
        ({"steady": 0}, "steady is 0, expected a whole number of at least 1"),
        ({"sigma_min": (0.2, 1.1)}, r"sigma_min is \(0.2, 1.1\), expected each a number from 0"),
        ({"tremor": -1.0}, "tremor is -1.0, expected a number of pixels"),
        ({"content": 0.99}, "content is 0.99, expected a coverage above 0, at most 0.95"),
        ({"episodes": 1001}, "episodes is 1001, expected a whole number from 1 to 1000"),
        ({"image": {"sigma_min": 0.3}}, "image.sigma_min is 0.3, expected one of"),
        ({"image": {"shaky": 1001}}, "image.shaky is 1001, expected at most"),
        ({"groups": ("mian",)}, "groups is 'mian'.*did you mean 'main'"),
    ],
)
def test_what_is_wrong_is_told_before_data_are_built(tmp_path, changes, told):
    config = pusht_config.get_config()
    config.data.root = str(tmp_path / "data")
    config.task.groups = ("main", "images")
    task.check(config)
    config.task.update(changes)
    with pytest.raises(ValueError, match=rf"config\.task\.{told}"):
        table.run(config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def of(success, coverage=0.5):
    success = np.asarray(success)
    count = len(success)
    states = np.cumsum(np.ones((count, 11, 5)), 1)
    best = np.where(success, 0.96, coverage)
    return Rollouts(np.arange(count), np.full(count, 10), success, best, states)


def test_the_best_are_confirmed_by_pairs_of_starts():
    """By hand: ambient succeeds where co-training does and in a quarter of the starts more."""
    first = np.random.default_rng(0).random(400) < 0.5
    more = first | (np.arange(400) % 4 == 0)
    found = {
        "steady": {0: of(first & more), 1: of(first)},
        "cotrain": {0: of(np.zeros(400, bool))},
        "alpha_0.5": {0: of(first)},
        "ambient_0.2": {0: of(first)},
        "ambient_0.2_alpha_0.5": {0: of(more)},
    }
    config = pusht_config.get_config()
    config.task.groups = ("main", "weighted")
    made = table.EXPERIMENT.policies(config.task, {})
    rows = {
        n: report.report.row(made[n].label, s, report.metrics.summarise) for n, s in found.items()
    }
    best = task.best(config.task, rows)
    assert best == {"co-training": "alpha_0.5", "ambient": "ambient_0.2_alpha_0.5"}
    gap = report.gains(found)
    gain = gap("success", "alpha_0.5", best["ambient"])
    assert gain.value == pytest.approx(np.mean(more & ~first)) and gain.count == 400
    assert gap("score", "alpha_0.5", best["ambient"]).value == pytest.approx(
        np.mean(more & ~first) * (1 - 0.5 / 0.95)
    )
    assert gap("success", "alpha_0.5", "ambient_0.4") is None
    assert [claim.holds for claim in report.claims(best, gap)] == [True] * 4
    worse = report.claims({**best, "ambient": "cotrain"}, gap)
    assert [claim.holds for claim in worse] == [False] * 4
    lines = report.cells(rows, best)
    assert all(len(line) == len(report.COLUMNS) for line in lines)
    assert lines[-1][0].endswith("alpha 0.5 (best ambient)")


@pytest.mark.slow
def test_from_demonstrations_to_the_report(tmp_path):
    """Every policy of the debug variant, one seed; the same command makes nothing anew."""
    config = pusht_config.get_config("debug")
    config.data.root = str(tmp_path / "data")
    config.train.update(dict(steps=4, warmup=1, log_every=2, checkpoint_every=4))
    config.task.update(dict(seeds=(0,), workers=1, together=8, episodes=2, fresh=3))
    config.task.update(dict(tremor=5.0, content=0.5))
    config.task.image.steps = 4
    again, folder = copy.deepcopy(config), tmp_path / "run"
    table.run(config, str(folder))
    text = (folder / "report" / "table.md").read_text()
    seen = "sigma_min 0.4, alpha 0.5, images"
    for part in ("clean only", "(best ambient)", seen, "data: shaky", "fresh"):
        assert part in text, part
    for figure in ("success", "sigma_min", "levels", "data", "film"):
        assert (folder / "report" / f"{figure}.png").stat().st_size > 1000
    made = {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert sum(p.name == "rollouts.npz" for p in made) == 6 + 3
    assert sum(p.name == "fresh.npz" for p in made) == 3
    again.task.report_only = True
    table.run(again, str(folder))
    assert made == {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert (folder / "report" / "table.md").read_text() == text
