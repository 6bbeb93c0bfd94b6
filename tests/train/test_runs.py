import json

import pytest

from ambient_jax.train import config as config_lib
from ambient_jax.train import runs


@pytest.fixture
def config():
    config = config_lib.default()
    config.data.sources.good = config_lib.source("here", "clean")
    return config


def test_the_config_is_written_whole_and_reads_back(config, tmp_path):
    runs.write_config(config, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]
    saved = json.loads((tmp_path / "new" / "config.json").read_text())
    assert runs.differences(saved, config.to_dict()) == {}


def test_only_what_touches_the_training_differs(config):
    other = config_lib.default()
    other.data.sources.good = config_lib.source("there", "clean", sigma_min=0.1)
    other.name, other.policy.steps, other.train.steps = "other", 7, 9
    assert runs.differences(config.to_dict(), other.to_dict()) == {
        "data.sources.good.sigma_min": (0.0, 0.1),
        "train.steps": (20_000, 9),
    }


def test_an_option_that_an_older_run_did_not_have_differs_only_when_it_is_used(config):
    old = config.to_dict()
    del old["data"]["sources"]["good"]["bounds"]
    assert runs.differences(old, config.to_dict()) == {}
    config.data.sources.good.bounds = "file.parquet"
    assert runs.differences(old, config.to_dict()) == {
        "data.sources.good.bounds": (None, "file.parquet")
    }
    # Zero is a value like any other.
    del old["data"]["sources"]["good"]["sigma_min"]
    assert "data.sources.good.sigma_min" in runs.differences(old, config.to_dict())
