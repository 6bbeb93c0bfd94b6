"""The table: which policies, trained by which program, and what is said of them."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.estimates import wilson
from ambient_jax.train import config as config_lib
from ambient_jax.train import runs, sweep, trainer
from experiments.maze import claims, metrics, policies, table
from experiments.maze import config as maze_config
from experiments.maze.rollout import Rollouts
from experiments.table import cache, rollouts
from experiments.table import policies as table_policies
from experiments.table import report as report_lib
from experiments.table.annotations import Annotation

ROOT = pathlib.Path(__file__).parents[3]


RESULTS = {
    "sigma_min": {"rrt, dataset": {"mean": 0.1}},
    "levels": (0.1, 0.9),
    "total_variation": {"rrt": {"value": (1.0, 0.0)}},
}


@pytest.fixture
def config():
    return maze_config.get_config("table")


def rows_of(config):
    """The policies of the table, whose annotation has been made."""
    return policies.rows(config.task, {"rrt": Annotation("folder", RESULTS, "rrt", 100, 5000)})


def test_every_variant_is_a_valid_config():
    for name in maze_config.VARIANTS:
        config = maze_config.get_config(name)
        config_lib.check(config)
        assert rows_of(config)


def test_policies_differ_from_the_base_in_what_they_say(config):
    base = config.to_dict()
    for name, row in rows_of(config).items():
        changed = runs.differences(base, table_policies.config_of(config, name, row, 7).to_dict())
        told = {field for field in row.changes if not field.startswith("law.")}
        law = {field for field in changed if field.startswith("law.")}
        assert changed.keys() - law - {"seed"} <= told, name
        assert changed["seed"][1] == 7
    assert config.to_dict() == base  # and the base is left alone


def test_every_policy_is_trained_once_and_only_with_its_like(config):
    programs = table_policies.programs(config, rows_of(config), together=4)
    names = [name for program in programs for name in program]
    once = set(config.task.one_seed)
    several = [
        table_policies.key(name, seed)
        for name, row in rows_of(config).items()
        for seed in ([0] if {name, row.group} & once else config.task.seeds)
    ]
    assert sorted(names) == sorted(several) and len(set(names)) == len(names)
    for program in programs:
        assert len(program) <= 4
        # Bounds of each step are no array of a sweep.
        if any(map(table_policies.is_alone, program.values())):
            assert len(program) == 1
        else:
            sweep.check(program)
    # One program holds every law that is one program: all of the table's hard laws.
    (first, *_) = table_policies.programs(config, rows_of(config), together=10**6)
    assert {n.split("/")[0].split("_")[0] for n in first} == {
        *("gcs", "rrt", "cotrain", "ambient", "alpha")
    }
    assert list(programs[0]) == [f"{n}/seed_0" for n in ("gcs", "rrt", "cotrain", "ambient_0.1")]


def test_rrt_only_draws_no_gcs(config):
    changed = table_policies.config_of(config, "rrt", rows_of(config)["rrt"], 0)
    law = trainer.build(mixing, changed.law)
    weights = [s.weight for s in changed.data.sources.values()]
    sources = mixing.make_sources(weights, [True, False])
    np.testing.assert_array_equal(mixing.source_probabilities(law, 0.5, sources), [0, 1])


def test_misspelt_group(config):
    config.task.groups = ("main", "sweeps")
    with pytest.raises(ValueError, match="sweeps.*did you mean 'sweep'"):
        rows_of(config)


def made(successes, jerk, count=200, steps=20):
    """Straight paths with an alternating sideways step that gives them a mean squared jerk."""
    # A sideways zigzag of +-a has third differences of 8 a.
    a = np.sqrt(jerk) * 1e-3 / 8
    path = np.stack([0.1 * np.arange(steps + 1), a * (-1) ** np.arange(steps + 1)], 1)
    success = np.arange(count) < successes
    full = np.full(count, steps)
    return Rollouts(np.tile(path, (count, 1, 1)), full, success, ~success, np.zeros((count, 2)))


def row(successes, jerk):
    return report_lib.row(
        "", {0: made(successes, jerk), 1: made(successes, jerk, 100)}, metrics.summarise
    )


def test_seeds_are_pooled():
    both = {0: made(150, 100.0), 1: made(50, 400.0, count=100, steps=30)}
    found = report_lib.row("policy", both, metrics.summarise)
    assert found.summary.success == wilson(200, 300)
    assert found.summary.jerk.value == pytest.approx((150 * 100 + 50 * 400) / 200)
    assert [found.seeds[s].success.value for s in (0, 1)] == [0.75, 0.5]
    pooled = rollouts.pool(both.values())
    lengths = {len(path) for path in pooled.paths(pooled.success)}
    assert lengths == {21, 31}


def test_claims_hold_when_the_numbers_do(config):
    config.task.sigma_min, config.task.best = (0.005, 0.1, 0.99), 0.1
    # Out of 200 and, for the second seed, of 100.
    good = {
        "gcs": row(50, 9e3),
        "rrt": row(200, 14e3),
        "cotrain": row(190, 13e3),
        "ambient_0.005": row(191, 13e3),
        "ambient_0.1": row(199, 3e3),
        "ambient_0.99": row(52, 9e3),
        "exclusive": row(199, 3.2e3),
        "chosen_dataset": row(197, 3.4e3),
    }
    good["rrt"] = dataclasses.replace(good["rrt"], summary=metrics.summarise(made(200, 14e3)))
    good = {
        n: dataclasses.replace(r, summary=dataclasses.replace(r.summary, jerk=_spread(r)))
        for n, r in good.items()
    }
    assert claims.best_of_sweep(config.task, good) == "ambient_0.1"
    told = claims.check(config.task, good, 14.3e3)
    assert [c for c in told if not c[2]] == []
    for worse, count in (
        ("ambient_0.1", 3),
        ("rrt", 1),
        ("exclusive", 1),
        ("gcs", 2),
        ("ambient_0.005", 1),
        ("chosen_dataset", 1),
    ):
        bad = good | {worse: row(100, 60e3)}
        failed = [c for c in claims.check(config.task, bad, 14.3e3) if not c[2]]
        assert len(failed) >= count, worse


def test_a_short_sweep_claims_nothing_of_its_limits(config):
    config.task.sigma_min, config.task.best = (0.03, 0.4), 0.1
    names = ("gcs", "rrt", "cotrain", "ambient_0.03", "ambient_0.1", "ambient_0.4")
    told = claims.check(config.task, {name: row(190, 9e3) for name in names}, 14.3e3)
    assert not [claim for claim, *_ in told if "within intervals" in claim]


def _spread(r):
    jerk = r.summary.jerk
    return dataclasses.replace(jerk, low=0.95 * jerk.value, high=1.05 * jerk.value)


def test_of_equally_successful_policies_the_smoothest_is_best(config):
    config.task.sigma_min = (0.2, 0.3)
    rows = {f"ambient_{v}": row(190, j) for v, j in ((0.1, 5e3), (0.2, 2e3), (0.3, 4e3))}
    assert claims.best_of_sweep(config.task, rows) == "ambient_0.2"


def test_rollouts_come_back_as_saved(tmp_path):
    one, path = made(3, 10.0, count=5), tmp_path / "rollouts.npz"
    cache.save(path, {}, dataclasses.asdict(one))
    for field in Rollouts.__dataclass_fields__:
        found = getattr(Rollouts(**cache.load(path)), field)
        np.testing.assert_array_equal(found, getattr(one, field))


def test_from_planning_to_the_report(tmp_path, tiny, capsys):
    """The main policies in one process and one program."""
    config = tiny(maze_config.get_config("debug"))
    config.task.update(dict(sigma_min=(), solvers=(), clean=2, corrupt=4, shortcut=0))
    config.task.update(dict(held_out=2, goals=8))
    before = config.to_dict()
    table.run(config, str(tmp_path / "run"))
    folder = tmp_path / "run" / "report"
    text = (folder / "table.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip() and "data: rrt" in text
    results = json.loads((folder / "results.json").read_text())
    assert results["policies"]["rrt"]["summary"]["success"]["count"] == 8
    assert set(results["loss per noise level"]) == {
        *("best linear denoiser", "gcs", "rrt", "cotrain", "ambient_0.1")
    }
    for figure in ("data", "pareto", "sigma_min", "rollouts", "levels", "denoising"):
        assert (folder / f"{figure}.png").stat().st_size > 1000
    assert config.to_dict() == before  # a run writes nothing into its config


@pytest.mark.slow
def test_from_planning_to_the_report_and_again(tmp_path):
    """Two processes train three programs; the second run finds nothing to do but the report."""
    arguments = [
        f"--config={ROOT}/experiments/maze/config.py:debug",
        "--config.task.groups=('main', 'variants')",
        "--config.task.seeds=(0,)",
        "--config.task.goals=12",
        "--config.task.workers=2",
        "--config.train.steps=10",
        "--config.train.log_every=5",
        "--config.train.checkpoint_every=5",
        "--config.model.features=(8,)",
        "--config.policy.steps=2",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}

    def run(*more):
        return subprocess.run(
            [sys.executable, "-m", "experiments.maze", *arguments, *more],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "maze" / "debug"
    text = (folder / "report" / "table.md").read_text()
    assert text.splitlines()[2].startswith("| GCS only")
    for told in ("exclusive bands", "soft ambient", "ambient loss of eps", "data: shortcut"):
        assert told in text
    results = json.loads((folder / "report" / "results.json").read_text())
    assert results["policies"]["rrt"]["summary"]["success"]["count"] == 12
    assert set(results["loss per noise level"]) == {
        *("best linear denoiser", "gcs", "rrt", "cotrain", "ambient_0.1")
    }
    for figure in ("data", "pareto", "sigma_min", "rollouts", "levels", "denoising"):
        content = (folder / "report" / f"{figure}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("rollouts_*.npz")}
    assert len(before) == 8 + 4  # the main four with a second solver
    gone = folder / "soft" / "seed_0" / "rollouts_ddpm_2.npz"
    gone.unlink()
    partial = run("--config.task.report_only=True")
    assert partial.returncode == 0 and not gone.exists()
    assert "soft ambient" not in (folder / "report" / "table.md").read_text()
    stale = run("--config.task.report_only=True", "--config.task.goals=13")
    told = "has no rollouts of this config (11 made with other goals, 1 not made yet)"
    assert stale.returncode and told in stale.stderr
    again = run()
    assert again.returncode == 0, again.stderr
    kept = {p: p.stat().st_mtime_ns for p in folder.rglob("rollouts_*.npz")}
    assert len([p for p, t in before.items() if kept[p] == t]) == len(before) - 1
    assert (folder / "report" / "table.md").read_text() == text
    wrong = run("--config.task.groups=('mian',)")
    assert wrong.returncode and "did you mean 'main'" in wrong.stderr
