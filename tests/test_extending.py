"""The recipes of CONTRIBUTING.md: one law, schedule, denoiser, format and task of a user's own.

All of them lie in a package outside of this repository and are named in a config alone.
"""

import json
import sys

import jax
import numpy as np
import pytest

from ambient_jax.cli import launch
from ambient_jax.policy.policy import Policy
from ambient_jax.train import config as config_lib
from ambient_jax.train import trainer

LEARNING = """
import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from ambient_jax import mixing, schedules


@dataclasses.dataclass(frozen=True)
class Ramp(mixing.Law):
    share: float = 0.5  # of clean data at sigma = 1

    def probabilities(self, sigma, weight, clean):
        own, other = jnp.where(clean, weight, 0), jnp.where(clean, 0, weight)
        alpha = jnp.where(other.sum() > 0, 1 - (1 - self.share) * sigma, 1)
        normalised = lambda w: w / jnp.maximum(w.sum(), 1e-9)
        return alpha * normalised(own) + (1 - alpha) * normalised(other)


@dataclasses.dataclass(frozen=True)
class Early(schedules.Schedule):
    power: float = 2.0

    @property
    def name(self):
        return "early"

    def sigma(self, t):
        return jnp.asarray(t) ** self.power

    def time(self, sigma):
        return jnp.asarray(sigma) ** (1 / self.power)


class Mlp(nn.Module):
    width: int = 16

    @nn.compact
    def __call__(self, x_t, sigma, condition):
        rows = len(x_t)
        h = jnp.concatenate([x_t.reshape(rows, -1), sigma[:, None], condition], axis=-1)
        h = nn.gelu(nn.Dense(self.width)(h))
        return nn.Dense(x_t[0].size)(h).reshape(x_t.shape)
"""
DATA = """
import hashlib
import json
import pathlib

import numpy as np

from ambient_jax.data.source import Format, Source


class NpzFormat(Format):
    def __init__(self, config):
        self.observation = tuple(config.observation)

    def open(self, name, path, fields, transform=None):
        return NpzSource(name, path, self.observation)


class NpzSource(Source):
    def __init__(self, name, path, observation):
        self.name, self.directory, self.observation = name, path, observation
        self.files = sorted(pathlib.Path(path).glob("*.npz"))

    @property
    def fingerprint(self):
        return hashlib.sha256(b"".join(f.read_bytes() for f in self.files)).hexdigest()

    def __len__(self):
        return len(self.files)

    def __getitem__(self, position):
        arrays = dict(np.load(self.files[position]))
        return {"steps": {"action": arrays.pop("action"), "observation": arrays}}
"""
TASK = """
import json
import pathlib

import numpy as np


def build(config):
    rng = np.random.default_rng(config.task.seed)
    for name, source in config.data.sources.items():
        folder = pathlib.Path(config.data.root, source.path)
        if folder.exists():
            continue
        folder.mkdir(parents=True)
        for episode in range(4):
            path = rng.normal(size=(9, 2)).astype(np.float32)
            np.savez(folder / f"{episode}.npz", state=path[:-1], action=path[1:])


def evaluate(config, workdir):
    pathlib.Path(workdir, "evaluated.json").write_text(json.dumps(config.task.to_dict()))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts the package ``mine`` on the path."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in (("learning", LEARNING), ("data", DATA), ("task", TASK)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "mine"
    for name in [n for n in sys.modules if n.split(".")[0] == "mine"]:
        del sys.modules[name]


def small():
    config = config_lib.default()
    config.data.observation = ("state",)
    config.data.history, config.data.horizon, config.policy.execute = 1, 4, 2
    config.model.update({"features": (8,), "groups": 2, "blocks": 1})
    config.train.update(dict(steps=4, warmup=1, batch_size=8, log_every=2, checkpoint_every=2))
    return config


def acts(workdir):
    policy = Policy.from_checkpoint(workdir)
    chunk = np.asarray(policy({"state": np.zeros((3, 1, 2), np.float32)}, jax.random.key(0)))
    assert chunk.shape == (3, 4, 2) and np.isfinite(chunk).all()
    return policy


def test_a_law_a_schedule_and_a_denoiser_of_ones_own(package, toy_data, tmp_path):
    config = small()
    config.data.sources.good = config_lib.source(toy_data["good"], "clean")
    config.data.sources.bad = config_lib.source(toy_data["bad"], "corrupt", sigma_min=0.3)
    config.law = {"name": "mine.learning:Ramp", "share": 0.25}
    config.schedule = {"name": "mine.learning:Early", "power": 3.0}
    config.model = {"name": "mine.learning:Mlp", "width": 8}
    assert trainer.train(config, tmp_path / "run").step == 4
    policy = acts(tmp_path / "run")
    assert policy.schedule.power == 3.0
    assert trainer.train(config, tmp_path / "run").step == 4  # the same config: complete
    # Options are checked as those of the library's own.
    for section, options, message in (
        ("law", {"name": "mine.learning:Ramp", "shaer": 0.1}, "'shaer'.*did you mean 'share'"),
        ("schedule", {"name": "mine.learning:Erly"}, "mine.learning:Erly.*has no attribute 'Erly'"),
        ("model", {"name": "mine.lerning:Mlp"}, "mine.lerning:Mlp.*No module named 'mine.lerning'"),
    ):
        wrong = config.copy_and_resolve_references()
        wrong[section] = options
        with pytest.raises(ValueError, match=message):
            trainer.train(wrong, tmp_path / "wrong")


@pytest.mark.parametrize("placement", [pytest.param("device", marks=pytest.mark.slow), "stream"])
def test_a_format_and_a_task_of_ones_own(package, tmp_path, placement):
    config = small()
    config.data.root, config.data.placement = str(tmp_path / "data"), placement
    for role in ("clean", "corrupt"):
        source = config_lib.source(role, role, sigma_min=0.3 * (role == "corrupt"))
        source.format = "mine.data:NpzFormat"
        config.data.sources[role] = source
    config.task = {"name": "mine.task", "seed": 3}
    launch.trains()(config, str(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "evaluated.json").read_text())["seed"] == 3
    acts(tmp_path / "run")
    config.task.name = "mine.tsak"
    with pytest.raises(ValueError, match="'mine.tsak', which cannot be imported"):
        launch.trains()(config, str(tmp_path / "run"))
