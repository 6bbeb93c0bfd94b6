"""Processes that train a table: they end with their parent."""

import os
import pathlib
import subprocess
import sys
import time
import types

import ml_collections
import pytest

from experiments.table import run
from experiments.table.experiment import Experiment, Table

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/environ").exists(), reason="reads /proc")
def test_no_process_outlives_its_parent(tmp_path, tiny):
    """Killed at any moment, the workers save what they have and end; the same command goes on."""
    config = {"groups": ("main",), "seeds": (0,), "together": 2, "workers": 2}
    config |= dict(clean=2, corrupt=4, shortcut=0, held_out=0, solvers=())
    script = (
        "import sys; from experiments.maze import config, table\n"
        "if __name__ == '__main__':\n"
        f"    c = config.get_config('debug'); c.task.update({config})\n"
        "    c.train.steps, c.model = 100_000, config.ml_collections.ConfigDict(\n"
        "        {'name': 'linear_network:Linear', 'encoder': {'name': 'linear_network:Flat'}})\n"
        "    c.data.root = sys.argv[1]; table.run(c, sys.argv[1])\n"
    )
    file = tmp_path / "run.py"
    file.write_text(script)
    token = str(tmp_path)  # in the environment of all its processes
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
        "JAX_PLATFORMS": "cpu",
        "WORKERS_OF": token,
    }
    with (tmp_path / "log.txt").open("w") as log:
        parent = subprocess.Popen(
            [sys.executable, str(file), str(tmp_path)],
            env=env,
            cwd=tmp_path,
            stderr=log,
            stdout=log,
        )
    try:
        _wait(lambda: list(tmp_path.rglob("metrics.jsonl")) and _steps(tmp_path), parent)
        assert len(_alive(token)) > 2
    finally:
        parent.kill()
        parent.wait()
    _wait(lambda: not _alive(token))
    # The policies of one program were saved where they were stopped, at one step.
    saved = {p.parts[-3]: int(p.name) for p in tmp_path.rglob("checkpoints/[1-9]*")}
    assert saved and all(step < 100_000 for step in saved.values())


def _steps(folder):
    return any(path.stat().st_size for path in folder.rglob("metrics.jsonl"))


def _alive(token):
    """Processes that inherited WORKERS_OF=token (from /proc: Linux)."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"WORKERS_OF={token}".encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def _wait(condition, process=None, seconds=240):
    """Until the condition holds; fails when the process ends first or after the seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, "the process ended"
        time.sleep(0.2)


@pytest.mark.parametrize("report_only", [False, True])
def test_a_damaged_checkpoint_is_the_trainer_s_affair(tmp_path, monkeypatch, caplog, report_only):
    """Training goes back to a sound one; a report has nothing to go back to."""

    def damaged(folder):
        raise ValueError(f"{folder} is damaged")

    monkeypatch.setattr(run.checkpoint, "load_assets", damaged)
    config = ml_collections.ConfigDict({"task": {"seeds": (0,), "report_only": report_only}})
    experiment = types.SimpleNamespace(policies=lambda task, annotations: {"one": None})
    table = Table(experiment, config, tmp_path)
    if report_only:
        with pytest.raises(ValueError, match="is damaged"):
            run.check_trained(table)
    else:
        run.check_trained(table)
        assert "is damaged" in caplog.text


def test_a_report_alone_builds_no_data(tmp_path, monkeypatch):
    """It may run beside a table that reads them."""
    task = ml_collections.ConfigDict({"name": "one", "seeds": (0,), "report_only": True})
    config = ml_collections.ConfigDict({"task": task})
    experiment = Experiment(
        get_config=lambda: config,
        check=lambda config: None,
        build=lambda config: pytest.fail("built"),
        policies=lambda task, annotations: {},
        files=lambda table, key, config: {},
        simulator=lambda policy, config: None,
        rollouts=object,
        report=lambda table: "",
    )
    monkeypatch.setattr(run, "train_and_evaluate", lambda table: True)
    run.run(experiment, config, tmp_path)
    assert not list(tmp_path.iterdir())
