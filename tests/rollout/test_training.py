"""Rollouts at the checkpoints of a training, beside which the training is what it was."""

import importlib.util
import json
import logging
import pathlib

import numpy as np
import PIL.Image
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.rollout import rollout, training
from ambient_jax.rollout.environment import MakeEnv, Outcome
from ambient_jax.rollout.episodes import gathered
from ambient_jax.train import checkpoint, metrics, trainer
from tests.rollout import envs

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parents[1] / "train" / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)


def config_for(data, env=f"tests.rollout.envs:{envs.ENV}"):
    config = worker_module.config_for({"data": data})
    config.model = {"name": "tests.rollout.envs:Mlp"}
    config.policy.update({"steps": 2, "clip": 1.0})
    config.train.update({"steps": 20, "keep": 5})
    config.rollouts.update({"env": env, "episodes": 4, "seed": 3})
    config.rollouts.env_kwargs = '{"ends": false}'
    return config


def test_every_checkpoint_is_rolled_out_and_the_best_is_recorded(toy_data, tmp_path):
    trainer.train(config_for(toy_data), tmp_path / "with")
    trainer.train(config_for(toy_data, env=""), tmp_path / "without")
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
    assert files[0] == files[1] and not (tmp_path / "without" / "pictures").exists()
    rows = metrics.read(tmp_path / "with" / "rollouts.jsonl")
    expected = {}
    for step in (10, 20):
        policy = Policy.from_checkpoint(tmp_path / "with" / "checkpoints" / str(step))
        env = MakeEnv(envs.ENV, kwargs={"ends": False})
        found = rollout(policy, env, episodes=4, execute=4, seed=3, progress=False)
        expected[step] = found.success.mean(), found.returns.mean()
    assert [row["step"] for row in rows] == [10, 20]
    for row in rows:
        assert (row["success"], row["return"]) == pytest.approx(expected[row["step"]], rel=1e-5)
    best = max(expected, key=expected.get)
    assert checkpoint.best_step(tmp_path / "with") == best
    folder = tmp_path / "with" / "pictures" / "rollouts"
    names = [
        f"{step:08d}{end}"
        for step in (10, 20)
        for end in (".png", *(f"_{e}.mp4" for e in range(3)))
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    [events] = (tmp_path / "with" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert content.count(b"rollouts/success") == content.count(b"rollouts/return") == 2
    strip = np.asarray(PIL.Image.open(folder / "00000020.png"))
    assert strip.shape == (3 * 124, 8 * 154, 3)  # three episodes of eight frames of 8 x 10


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("env", "Nowhere-v0", "env is 'Nowhere-v0', expected an id"),
        ("env", "CartPole-v1", "does not take the arguments"),
        ("env_kwargs", "limit=3", "config.rollouts.env_kwargs is 'limit=3', expected JSON"),
        ("env_kwargs", "[3]", "config.rollouts.env_kwargs is"),
        ("observation", "state=eyes", "'eyes', which it does not have"),
        ("episodes", 0, "config.rollouts.episodes is 0, expected .*at least 1"),
    ],
)
def test_what_cannot_work_is_said_before_the_training(toy_data, tmp_path, field, value, message):
    config = config_for(toy_data)
    config.rollouts[field] = value
    with pytest.raises(ValueError, match=message):
        trainer.train(config, tmp_path)
    assert not list(tmp_path.rglob("metrics.jsonl")) or not metrics.read(tmp_path / "metrics.jsonl")


def found(share, reward=1.0):
    flags = [{"success": k < 10 * share} for k in range(10)]
    outcomes = {k: Outcome(reward, reward, 3, True, 0, f, {}) for k, f in enumerate(flags)}
    return gathered(outcomes, seed=0)


def test_the_best_step_is_the_most_successful_then_the_one_of_most_reward(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    best = []
    for step, episodes in ((1, found(0.5)), (2, found(0.4, 9.0)), (3, found(0.5, 2.0))):
        training.record(tmp_path, step, episodes)
        best.append(json.loads((tmp_path / "best.json").read_text())["step"])
    training.record(tmp_path, 4, found(0.5, 2.0))
    assert [*best, checkpoint.best_step(tmp_path)] == [1, 1, 3, 4]  # of equal ones the newest
    training.record(tmp_path, 2, found(0.9))  # resumed: later steps are made again
    assert [row["step"] for row in metrics.read(tmp_path / "rollouts.jsonl")] == [1, 2]
    record = json.loads((tmp_path / "best.json").read_text())
    assert (record["step"], record["success"], record["episodes"]) == (2, 0.9, 10)
    assert record["seed"] == 0
    (tmp_path / "checkpoints" / "9" / "assets").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        training.record(tmp_path, 7, found(1.0))
    assert "its checkpoint is gone" in caplog.text and checkpoint.best_step(tmp_path) == 2
