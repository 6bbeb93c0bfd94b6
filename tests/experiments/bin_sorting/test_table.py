"""The table: which policies there are, who trains them, and what is said of them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.train import config as config_lib
from ambient_jax.train import runs, sweep, trainer
from experiments.bin_sorting import claims, policies, report, sigma_max, table
from experiments.bin_sorting import config as bins_config
from experiments.bin_sorting.rollout import Rollouts
from experiments.bin_sorting.scene import LEFT, NOWHERE, RIGHT
from experiments.table import policies as table_policies

ROOT = pathlib.Path(__file__).parents[3]
COLOURS = (0, 0, 1, 1)


@pytest.fixture
def config():
    config = bins_config.get_config("table")
    config.task.groups = policies.GROUPS
    return config


def test_policies_differ_from_the_base_in_what_they_say(config):
    base = config.to_dict()
    for name, row in policies.rows(config.task, {}).items():
        made = table_policies.config_of(config, name, row, 7)
        config_lib.check(made)
        changed = runs.differences(base, made.to_dict())
        told = {field for field in row.changes if not field.startswith("law.")}
        law = {field for field in changed if field.startswith("law.")}
        assert changed.keys() - law - {"seed"} <= told, name


def test_every_policy_is_trained_once_and_only_with_its_like(config):
    named = policies.rows(config.task, {})
    programs = table_policies.programs(config, named, together=4)
    keys = [key for program in programs for key in program]
    once = set(config.task.one_seed)
    expected = [
        table_policies.key(name, seed)
        for name, row in named.items()
        for seed in ([0] if {name, row.group} & once else config.task.seeds)
    ]
    assert sorted(keys) == sorted(expected)
    for program in programs:
        sweep.check(program)


def test_groups_name_groups_and_single_policies(config):
    """The policy named first is trained first, although its own group is not asked for."""
    config.task.update(groups=("cotrain_opposite", "correct", "variants"), one_seed=())
    config.task.update(seeds=(0,))
    named = policies.rows(config.task, {})
    assert {"correct", "cotrain_opposite", "exclusive"} <= named.keys()
    assert not {"only_opposite", "cotrain_arbitrary", "alpha_0.5"} & named.keys()
    first = table_policies.programs(config, named, together=1)[0]
    assert list(first) == ["cotrain_opposite/seed_0"]


def shares(config, name, sigma):
    """P(source | sigma) of a policy, as {name: share}, for sets of 1000, 4000 and 4000 chunks."""
    made = table_policies.config_of(config, name, policies.rows(config.task, {})[name], 0)
    sources = made.data.sources
    names = ("correct", "arbitrary", "opposite")
    weight = [sources[n].weight * size for n, size in zip(names, (1, 4, 4), strict=True)]
    low = [sources[n].sigma_min for n in names]
    high = [1.0 if b is None else b for b in (sources[n].sigma_max for n in names)]
    mixture = mixing.make_sources(weight, [True, False, False], low, high)
    law = trainer.build(mixing, made.law)
    found = np.asarray(mixing.source_probabilities(law, sigma, mixture), np.float64)
    return dict(zip(names, found.round(6).tolist(), strict=True))


def test_each_policy_draws_what_its_name_says(config):
    """Shares by hand, from the sizes: 0.2 = 1 / (1 + 4)."""
    clean, mixed = dict(correct=1, arbitrary=0, opposite=0), dict(correct=0.2, arbitrary=0.8)
    mixed["opposite"] = 0
    for sigma in (0.1, 0.5, 0.99):
        assert shares(config, "correct", sigma) == clean
        assert shares(config, "cotrain_arbitrary", sigma) == mixed
        assert shares(config, "only_arbitrary", sigma) == dict(correct=0, arbitrary=1, opposite=0)
        assert shares(config, "alpha_0.5", sigma)["correct"] == 0.5
    assert shares(config, "omni_arbitrary_0.8", 0.79) == mixed
    assert shares(config, "omni_arbitrary_0.8", 0.81) == clean
    above = shares(config, "omni_arbitrary_0.8_0.95", 0.96)
    assert above == mixed and shares(config, "omni_arbitrary_0.8_0.95", 0.9) == clean
    assert shares(config, "omni_opposite_0.5", 0.4) == dict(correct=0.2, arbitrary=0, opposite=0.8)
    assert shares(config, "exclusive", 0.79) == dict(correct=0, arbitrary=1, opposite=0)
    assert shares(config, "exclusive", 0.81) == clean


def row(right, wrong, episodes=100):
    """A policy of two seeds that places so many of 4 blocks, right and wrong ones first."""
    correct = np.array([LEFT, LEFT, RIGHT, RIGHT])
    placements = np.where(np.arange(4) < right, correct, LEFT + RIGHT - correct)
    placements = np.where(np.arange(4) < right + wrong, placements, NOWHERE)
    count = np.full(episodes, 9)
    made = Rollouts(count, count, np.tile(placements, (episodes, 1)), np.zeros((episodes, 2, 33)))
    return report.summarise("", {0: made, 1: made}, COLOURS)


def test_claims_hold_when_the_numbers_do(config):
    good = {
        "correct": row(2, 0),
        "cotrain_arbitrary": row(2, 2),
        "task_arbitrary": row(3, 1),
        "omni_arbitrary_0.24": row(2, 0),
        "omni_arbitrary_0.5": row(3, 0),
        "omni_arbitrary_0.8": row(4, 0),
        "omni_arbitrary_0.95": row(2, 1),
        "omni_opposite_0.8": row(4, 0),
        "chosen": row(4, 0),
        "cotrain_opposite": row(1, 3),
    }
    assert good["correct"].summary.score.value == 0.5 and good["correct"].seeds.keys() == {0, 1}
    assert claims.best_of(config.task, good) == "omni_arbitrary_0.8"
    told = claims.check(config.task, good)
    assert [c for c in told if not c[2]] == [] and len(told) == 11
    for worse, change in {
        "correct": row(4, 0),
        "cotrain_arbitrary": row(4, 0),
        "omni_arbitrary_0.8": row(2, 1),
        "omni_arbitrary_0.95": row(2, 0),
        "omni_opposite_0.8": row(2, 0),
        "chosen": row(3, 0),
    }.items():
        failed = [c for c in claims.check(config.task, good | {worse: change}) if not c[2]]
        assert failed, worse
    assert claims.check(config.task, {"correct": row(2, 0)}) == []
    # Opposite demonstrations can be judged without arbitrary ones; 25 points are not 30.
    opposite = {"correct": row(2, 0), "cotrain_opposite": row(1, 3), "omni_opposite_0.8": row(3, 0)}
    assert [c[2] for c in claims.check(config.task, opposite)] == [True, False]


def test_measuring_sigma_max_is_no_report_alone(tmp_path):
    config = bins_config.get_config("debug")
    config.data.root, config.task.report_only = str(tmp_path / "data"), True
    with pytest.raises(ValueError, match="report_only is True, expected False"):
        sigma_max.run(config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_from_demonstrations_to_the_report(tmp_path, tiny):
    """The main policies in one process; a second run only writes the report."""
    config = tiny(bins_config.get_config("debug"))
    config.task.update(dict(held_out=1, episodes=2))
    folder = tmp_path / "run"
    table.run(config, str(folder))
    text = (folder / "report" / "table.md").read_text()
    for label in ("correct only", "arbitrary only", "told the task", "sigma_max 0.8 (best)"):
        assert label in text
    results = json.loads((folder / "report" / "results.json").read_text())
    assert results["policies"]["correct"]["summary"]["score"]["count"] == 2 * 2
    assert len(results["loss per noise level"]["correct"]) == 19
    for figure in ("film_correct", "film_best", "film_cotrain_arbitrary", "levels"):
        assert (folder / "report" / f"{figure}.png").stat().st_size > 1000
    made = {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert len(made) == 2 * 5
    table.run(config, str(folder))
    assert made == {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert (folder / "report" / "table.md").read_text() == text


@pytest.mark.slow
def test_the_command(tmp_path):
    arguments = [
        f"--config={ROOT}/experiments/bin_sorting/config.py:debug",
        "--config.task.groups=('main',)",
        "--config.task.seeds=(0,)",
        "--config.task.workers=1",
        "--config.train.steps=4",
        "--config.train.warmup=1",
        "--config.train.log_every=2",
        "--config.train.checkpoint_every=4",
        "--config.model.features=(8,)",
        "--config.policy.steps=2",
        "--config.task.held_out=2",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}

    def run(*more):
        command = [sys.executable, "-m", "experiments.bin_sorting", *arguments, *more]
        options = dict(cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500)
        return subprocess.run(command, **options, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "bin_sorting" / "debug"
    text = (folder / "report" / "table.md").read_text()
    for told in ("correct only", "arbitrary only", "told the task", "sigma_max 0.8 (best)"):
        assert told in text
    results = json.loads((folder / "report" / "results.json").read_text())
    assert results["policies"]["correct"]["summary"]["score"]["count"] == 4 * 2
    for figure in ("film_correct", "film_best", "film_cotrain_arbitrary", "levels"):
        assert (folder / "report" / f"{figure}.png").stat().st_size > 1000
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("rollouts.npz")}
    assert len(before) == 5
    again = run()
    assert again.returncode == 0, again.stderr
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("rollouts.npz")}
    assert (folder / "report" / "table.md").read_text() == text
    wrong = run("--config.task.groups=('mian',)")
    assert wrong.returncode and "did you mean 'main'" in wrong.stderr
