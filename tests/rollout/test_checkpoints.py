"""Reports on the rollouts of a policy trained for a few steps, and the command that makes them."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ambient_jax import rollout as rollouts
from ambient_jax.policy.policy import Policy
from ambient_jax.rollout.environment import MakeEnv
from ambient_jax.train import checkpoint, trainer
from ambient_jax.train import config as config_lib
from tests.rollout import envs

ENV = MakeEnv(envs.ENV, "tests.rollout.envs")
QUIET = dict(progress=False)


@pytest.fixture(scope="module")
def trained(toy_data, tmp_path_factory):
    """A workdir with the checkpoints of steps 2, 4 and 6."""
    workdir = tmp_path_factory.mktemp("trained")
    config = config_lib.default()
    config.data.sources.good = config_lib.source(toy_data["good"], "clean")
    config.data.sources.bad = config_lib.source(toy_data["bad"], "corrupt", sigma_min=0.3)
    config.data.observation = ("state", "goal")
    config.data.horizon, config.policy.execute, config.policy.steps = 8, 4, 3
    config.policy.clip = 1.0
    config.model = {"name": "tests.rollout.envs:Mlp"}
    config.train.update(dict(steps=6, warmup=1, batch_size=16, checkpoint_every=2, keep=3))
    trainer.train(config, workdir)
    return workdir


def test_a_report_says_what_the_episodes_were(trained, tmp_path):
    found = rollouts.evaluate(trained, ENV, episodes=5, envs=2, videos=2, out=tmp_path, **QUIET)
    policy = Policy.from_checkpoint(trained)
    episodes = rollouts.rollout(policy, ENV, episodes=5, envs=3, execute=4, **QUIET)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["success"] == {
        "value": episodes.success.mean(),
        "low": pytest.approx(episodes.rate.low),
        "high": pytest.approx(episodes.rate.high),
        "count": 5,
    }
    assert results["step"] == 6 and results["settings"]["execute"] == 4  # the config's
    assert results["steps"]["value"] == episodes.lengths.mean()
    assert results["infos"]["distance"]["count"] == 5 and results["success_from"] == "is_success"
    rows = list(csv.DictReader((tmp_path / "episodes.csv").open()))
    assert [int(row["seed"]) for row in rows] == [0, 1, 2, 3, 4]
    assert [int(row["success"]) for row in rows] == episodes.success.astype(int).tolist()
    assert [float(row["info/distance"]) for row in rows] == episodes.infos["distance"].tolist()
    assert "| step 6 | 5 " in found.table == (tmp_path / "table.md").read_text()
    assert "info['is_success'] was true" in found.table
    videos = sorted(p.name for p in (tmp_path / "videos").iterdir())
    assert videos == ["episode_0000.mp4", "episode_0001.mp4"]


def test_it_carries_on_where_it_was_stopped(trained, tmp_path, monkeypatch):
    options = dict(envs=2, videos=1, **QUIET)
    monkeypatch.setattr(envs.Reach, "calls", 0)
    whole = rollouts.evaluate(trained, ENV, episodes=6, out=tmp_path / "whole", **options)
    steps = whole.results["steps"].value * 6
    assert envs.Reach.calls == steps
    folder = tmp_path / "stopped"
    rollouts.evaluate(trained, ENV, episodes=3, out=folder, **options)
    progress = folder / "episodes.jsonl"
    lines = progress.read_text().splitlines(keepends=True)
    progress.write_text("".join(lines[:2]) + lines[2][:30])  # killed while it wrote the third
    envs.Reach.calls = 0
    found = rollouts.evaluate(trained, ENV, episodes=6, out=folder, **options)
    assert 0 < envs.Reach.calls < steps and found.table == whole.table
    same = [(tmp_path / name / "episodes.csv").read_text() for name in ("whole", "stopped")]
    assert same[0] == same[1] and len(progress.read_text().splitlines()) == 6
    (folder / "videos" / "episode_0000.mp4").unlink()
    envs.Reach.calls = 0
    rollouts.evaluate(trained, ENV, episodes=6, out=folder, **options)
    assert 0 < envs.Reach.calls <= 12 and (folder / "videos" / "episode_0000.mp4").exists()
    with pytest.raises(ValueError, match=r"has rollouts with seed = 0, these have 7: give another"):
        rollouts.evaluate(trained, ENV, episodes=6, seed=7, out=folder, **options)
    with pytest.raises(ValueError, match="out is 'gs://b', expected a local path"):
        rollouts.evaluate(trained, ENV, out="gs://b", **options)
    with pytest.raises(ValueError, match="has rollouts with parameters = "):
        step = trained / "checkpoints" / "4"
        rollouts.evaluate(step, ENV, episodes=6, out=folder, **options)


def test_without_a_picture_there_are_no_videos(trained, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(envs.Reach, "metadata", {"render_modes": []})
    with caplog.at_level("WARNING"):
        rollouts.evaluate(trained, ENV, episodes=1, videos=1, out=tmp_path, **QUIET)
    assert "no videos" in caplog.text and not (tmp_path / "videos").exists()


def test_the_best_checkpoint_is_recorded(trained, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(trained, workdir)
    env = MakeEnv(envs.ENV, "tests.rollout.envs", {"ends": False})
    options = dict(episodes=4, envs=4, seed=5, **QUIET)
    found = rollouts.best(workdir, env, **options)
    expected = {}
    for step in (2, 4, 6):
        policy = Policy.from_checkpoint(trained / "checkpoints" / str(step))
        episodes = rollouts.rollout(policy, env, execute=4, **options)
        expected[step] = (episodes.success.mean(), episodes.returns.mean(), step)
    assert len({value[:2] for value in expected.values()}) > 1
    best = max(expected, key=expected.get)
    assert found.results["best"] == best == checkpoint.best_step(workdir)
    assert checkpoint.find(workdir / "best") == (workdir / "checkpoints", best)
    record = json.loads((workdir / "best.json").read_text())
    assert record["success"] == expected[best][0] and record["env"] == envs.ENV
    assert f"| step {best} (best) " in found.table and found.table.count("| step ") == 3
    means = {s: r["return"].value for s, r in found.results["steps"].items()}
    assert means == {s: pytest.approx(value[1]) for s, value in expected.items()}
    assert "is of the episodes that chose it, which favours it" in found.table
    for seed, told in ((0, False), (5 - 1, True), (5 + 4, False)):
        options = dict(episodes=2, videos=0, seed=seed, out=tmp_path / str(seed), **QUIET)
        judged = rollouts.evaluate(workdir / "best", env, **options)
        assert ("Some of these starts chose this step" in judged.table) == told
    with pytest.raises(ValueError, match="is one checkpoint, expected a workdir"):
        rollouts.best(workdir / "checkpoints" / "4", env, **options)


def test_what_chooses_by_default_does_not_judge_by_default(trained, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(trained, workdir)
    chosen = rollouts.best(workdir, ENV, episodes=1, envs=1, **QUIET).results["settings"]["seed"]
    judged = rollouts.evaluate(workdir, ENV, episodes=1, videos=0, **QUIET).results["settings"]
    assert chosen == config_lib.default().rollouts.seed > judged["seed"] + 100_000


def command(*arguments):
    flags = [sys.executable, "-m", "ambient_jax.rollout", *arguments]
    environ = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )


@pytest.mark.slow
def test_the_command_carries_on_after_a_kill(trained, tmp_path):
    arguments = [f"--checkpoint={trained}", f"--env={envs.ENV}", "--env_module=tests.rollout.envs"]
    arguments += ["--episodes=40", "--envs=1", "--videos=0", '--env_kwargs={"limit": 200}']
    process = command(*arguments, f"--out={tmp_path / 'a'}")
    progress = tmp_path / "a" / "episodes.jsonl"
    while process.poll() is None and (not progress.exists() or len(progress.read_bytes()) < 300):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = len(progress.read_text().splitlines())
    assert process.returncode == -signal.SIGKILL and 0 < before < 40
    found = [command(*arguments, f"--out={tmp_path / name}").communicate() for name in "ab"]
    assert f"{before} episodes were run before" in found[0][1]
    assert found[0][0] == found[1][0] and "| step 6 | 40 " in found[0][0]
    names = ("episodes.csv", "results.json", "table.md")
    texts = [[(tmp_path / name / n).read_text() for n in names] for name in "ab"]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_errors_of_the_command_are_one_line(trained):
    for arguments, message in (
        (["--env=CartPole-v1"], "expected --checkpoint="),
        ([f"--checkpoint={trained}"], "expected --env="),
        ([f"--checkpoint={trained}", "--env=CartPole-v1", "--videos=0"], "say which one it is"),
    ):
        process = command(*arguments)
        _, errors = process.communicate()
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert process.returncode == 1 and len(lines) == 1 and message in lines[0], errors
        assert "Traceback" not in errors
    assert not np.any(list((trained).glob("rollouts/*/*/results.json")))
