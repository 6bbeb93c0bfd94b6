"""What a policy refuses of a checkpoint's config, statistics and sources."""

import ml_collections
import numpy as np
import pytest

from ambient_jax.policy import checkpoint
from ambient_jax.train import config as config_lib
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer


@pytest.fixture
def config():
    config = config_lib.default()
    config.data.sources.a = config_lib.source("/a", "clean")
    config.data.sources.b = config_lib.source("/b", "corrupt", sigma_min=0.2)
    return config


def test_the_clean_source_is_found_and_must_be_the_only_one(config):
    assert checkpoint.clean_source(config, "runs/x") == "a"
    config.data.sources.b.role = "clean"
    with pytest.raises(ValueError, match=r"runs/x .* has 2 clean ones: give source=, one of a, b"):
        checkpoint.clean_source(config, "runs/x")


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("policy.steps", 0, r"policy.steps = 0, expected at least 1"),
        ("policy.steps", True, r"policy.steps = True, expected int"),
        ("data.horizon", None, r"data.horizon = None, expected int"),
        ("objective.prediction", "epsilon", r"epsilon.*mean 'eps'"),
    ],
)
def test_a_field_that_makes_no_policy_is_named(config, field, value, said):
    checkpoint.check_config(config, "config.json")
    section, name = field.split(".")
    changed = ml_collections.ConfigDict(config.to_dict())
    with changed[section].ignore_type():
        changed[section][name] = value
    with pytest.raises(ValueError, match=rf"config.json makes no policy: .*{said}"):
        with checkpoint.named("config.json"):
            checkpoint.check_config(changed, "config.json")


def test_statistics_need_the_action_and_every_observation(config):
    config.data.observation = ("state",)
    maps = {"action": np.zeros(1), "observation/state": np.zeros(2)}

    def chain(names):
        shift = {name: maps[name] for name in names}
        scale = {name: 1 + maps[name] for name in names}
        stored = Chain(Normalizer("gaussian", shift, scale)).to_json()
        return checkpoint.chain({"config": config, "statistics": stored})

    assert chain(maps).action_dim == 1
    with pytest.raises(ValueError, match="its statistics have no 'observation/state'"):
        chain(("action",))
