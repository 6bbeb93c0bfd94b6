"""The command itself: a small run from planning to report, its resumption, and its errors."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from ambient_jax.train import config as config_lib
from experiments.open_x import config as open_x_config

ROOT = pathlib.Path(__file__).parents[3]
CONFIG = f"--config={ROOT}/experiments/open_x/config.py"
SMALL = [
    "--config.task.clean=2",
    "--config.task.corrupt=6",
    "--config.task.goals=3",
    "--config.train.steps=12",
    "--config.train.warmup=2",
    "--config.train.log_every=4",
    "--config.train.checkpoint_every=6",
    "--config.model.features=(8,)",
    "--config.policy.steps=2",
]


def _run(cwd, *arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, "-m", "experiments.open_x", *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_variant_is_a_valid_config():
    for name in open_x_config.VARIANTS:
        config_lib.check(open_x_config.get_config(name))


@pytest.mark.slow
def test_from_planning_to_the_report_and_again(tmp_path):
    done = _run(tmp_path, f"{CONFIG}:demo_debug", *SMALL)
    assert done.returncode == 0, done.stderr
    workdir = tmp_path / "runs" / "open_x" / "demo_debug"
    rows = (workdir / "report" / "table.md").read_text().splitlines()
    assert rows[0].startswith("| policy") and rows[2].startswith("| ambient, ddpm 2 steps")
    assert rows[3].startswith("| data: gcs") and rows[4].startswith("| data: rrt")
    assert rows[0] in done.stdout
    results = json.loads((workdir / "report" / "results.json").read_text())
    success = results["summary"]["success"]
    assert 0 <= success["low"] <= success["value"] <= success["high"] <= 1
    assert success["count"] == 3 and results["config"]["train"]["steps"] == 12
    for figure in ("rollouts", "data", "loss"):
        png = (workdir / "report" / f"{figure}.png").read_bytes()
        assert png.startswith(b"\x89PNG") and len(png) > 10_000
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["data"]["sources"]["rrt"]["sigma_min"] == 0.1
    steps = [json.loads(r)["step"] for r in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["12", "6"]
    assert "orbax" not in done.stderr.lower()

    before = (workdir / "metrics.jsonl").read_text()
    again = _run(tmp_path, f"{CONFIG}:demo_debug", *SMALL)
    assert again.returncode == 0, again.stderr
    assert (workdir / "metrics.jsonl").read_text() == before
    assert json.loads((workdir / "report" / "results.json").read_text()) == results


BAD = [
    (["--config.train.stpes=5"], "names no field of the config: .*did you mean 'steps'"),
    (["--config.law.name=ambeint"], "law is 'ambeint', .*did you mean 'ambient'"),
    (["--config.model.name=unett"], "model is 'unett'.*did you mean 'unet'"),
    (["--config.schedule.name=cosin"], "schedule is 'cosin', .*did you mean 'cosine'"),
    (["--config.task.name=maz"], "task.name is 'maz', .*did you mean 'maze'"),
    (["--config.task.name=", "--config.data.root=/nowhere"], "'gcs': /nowhere/maze_gcs does not"),
    (["--config.train.batch_size=0"], "batch_size is 0, expected at least 1"),
    (["surplus"], r"unexpected arguments \['surplus'\]"),
]


# One process shows what all do; tests/bad_input has the messages.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [pytest.param(*b, id=b[0][0], marks=[pytest.mark.slow] * (i > 0)) for i, b in enumerate(BAD)],
)
def test_bad_commands_end_with_one_line(tmp_path, arguments, message):
    done = _run(tmp_path, f"{CONFIG}:demo_debug", *SMALL, *arguments)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in done.stderr


def test_a_missing_config_flag_says_what_to_give(tmp_path):
    done = _run(tmp_path)
    assert done.returncode == 1 and "error: --config is missing" in done.stderr
