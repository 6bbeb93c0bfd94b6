"""The command from folders to a report, killed in the middle, and what its files are good for."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from ambient_jax.annotate.pile import command as pile
from ambient_jax.annotate.pile import config as pile_config
from ambient_jax.cli import config_file
from ambient_jax.policy.policy import Policy
from ambient_jax.train import trainer
from tests.annotate.pile import piles
from tests.annotate.pile.test_page import browse

ROOT = pathlib.Path(__file__).parents[2]
FILES = (
    *("report.html", "datasets.csv", "episodes.csv", "results.json", "bounds.parquet"),
    *("config.py", "lerobot/shaky.parquet"),
)
SMALL = ("--quick", "--steps=30", "--batch_size=16", "--width=8", "--horizon=8")


def started(folder, workdir, flags=SMALL):
    """Starts the command as a user does."""
    command = [sys.executable, "-m", "ambient_jax.annotate", f"--workdir={workdir}", *flags]
    command += ["--clean=good", "--pile=shaky", "--pile=turned/1.0.0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    how = dict(cwd=folder, env=environment, text=True, start_new_session=True)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)


def digests(folder):
    return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in FILES}


@pytest.mark.slow
def test_report_of_a_pile(tmp_path):
    piles.write(tmp_path, 12)
    output, _ = (run := started(tmp_path, "whole")).communicate(timeout=3000)
    assert run.returncode == 0, output
    assert "| shaky" in output and "whole/report.html" in output and "Traceback" not in output
    whole = digests(tmp_path / "whole")
    run = started(tmp_path, "killed")
    for stage in ("candidates", "learning_curve", "learning_curve/curve.npz"):
        while not list((tmp_path / "killed").glob(f"work/*/{stage}")) and run.poll() is None:
            time.sleep(0.2)
        os.killpg(run.pid, signal.SIGKILL)
        output, _ = run.communicate()
        assert run.returncode == -signal.SIGKILL, output  # it was killed, not done
        assert not (tmp_path / "killed" / "report.html").exists()
        run = started(tmp_path, "killed")
    output, _ = run.communicate(timeout=3000)
    assert run.returncode == 0, output
    assert digests(tmp_path / "killed") == whole
    check_page(tmp_path)
    check_weights(tmp_path)
    check_training(tmp_path)


def check_page(folder):
    seen, console, _ = browse((folder / "whole/report.html").read_text(), folder)
    assert console == [] and "error" not in seen
    assert "sigma" in seen["low"]["said"] and seen["after"] == [0, True]


def check_weights(folder):
    table = pq.read_table(folder / "whole/lerobot/shaky.parquet").to_pydict()
    stored = sorted((folder / "shaky/data").rglob("*.parquet"))
    frames = [pq.read_table(p, columns=["index", "episode_index", "frame_index"]) for p in stored]
    for name in ("index", "episode_index", "frame_index"):
        assert table[name] == [v for frame in frames for v in frame[name].to_pylist()]
    assert 0 <= min(table["weight"]) and max(table["weight"]) <= 1


def check_training(folder):
    config = config_file.load(str(folder / "whole/config.py"))
    config.train.update(dict(steps=2, warmup=0, checkpoint_every=2))
    assert trainer.train(config, folder / "trained").step == 2
    Policy.from_checkpoint(folder / "trained")


def test_files_of_the_workdir(tmp_path, capsys):
    """All files from scores by hand, without training; LeRobot's numbers of frames are kept."""
    data = piles.write(tmp_path, 10)
    request = pile_config.Request((data["good"],), (data["shaky"], data["turned"]), horizon=8)
    datasets, clean = pile_config.open_all(request)
    config, results = pile_config.make(request, datasets, clean), piles.results(folder=tmp_path)
    scored = {}
    for f in results.findings:
        episodes = [datasets[f.name][i]["steps"]["action"] for i in range(len(datasets[f.name]))]
        lengths = list(map(len, episodes))
        f.scores.episode[:] = np.arange(len(lengths))
        scored[f"step_episode/{f.name}"] = np.repeat(np.arange(len(lengths)), lengths)
        scored[f"step/{f.name}"] = np.concatenate(list(map(np.arange, lengths)))
        scored[f"keep/{f.name}"] = np.full(sum(lengths), 0.5)
        scored[f"fingerprint/{f.name}"] = np.asarray(datasets[f.name].fingerprint)
    (tmp_path / "whole").mkdir()
    pile._write(tmp_path / "whole", results, config, datasets, scored)
    assert set(digests(tmp_path / "whole")) == set(FILES)
    assert not (tmp_path / "whole/lerobot/turned.parquet").exists()  # it is RLDS
    check_weights(tmp_path)
    printed = capsys.readouterr().out
    assert "use it above sigma 0.3" in printed and "whole/lerobot/shaky.parquet" in printed


def test_another_request_begins_anew(tmp_path):
    data = piles.write(tmp_path, 4)
    request = pile_config.Request((data["good"],), (data["shaky"],), horizon=8)
    config = pile_config.make(request, *pile_config.open_all(request))
    moved = config.copy_and_resolve_references()
    moved.data.sources.good.path = "/elsewhere"
    assert pile._key(config, 1) == pile._key(moved, 1) != pile._key(config, 2)
    moved.train.steps += 1
    assert pile._key(config, 1) != pile._key(moved, 1)


def test_command_lines_are_told_apart():
    assert pile.is_meant(["--clean", "a", "--pile=b"]) and pile.is_meant(["--pile=b"])
    assert not pile.is_meant(["--config=a.py", "--workdir=--pile"]) and not pile.is_meant([])


def test_bad_input_is_one_line(tmp_path, capsys):
    two = [f"--clean={tmp_path}/none", f"--pile={tmp_path}"]
    for flags, what in ((["--clean=a"], ""), (two, ""), ([*two, "--workdir=gs://b"], "workdir is")):
        with pytest.raises(SystemExit) as stop:
            pile.main(flags)
        assert str(stop.value).startswith(f"error: {what}") and "\n" not in str(stop.value)


def test_options_follow_the_request():
    quick, slow = (pile_config.Request(("a",), ("b",), quick=q) for q in (True, False))
    assert pile.measuring(slow, 100).folds == 4 and pile.measuring(slow, 10).folds == 2
    assert pile.measuring(quick, 100).folds == 2
    assert pile.judging(quick).steps < pile.judging(slow).steps
