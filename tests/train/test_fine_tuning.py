"""Maps to unit size of runs that go on, without training."""

import dataclasses

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import normalizer
from ambient_jax.train import config as config_lib
from ambient_jax.train import fine_tuning


@pytest.fixture
def start(toy_data, tmp_path, monkeypatch):
    """``start(shrink, init_maps)``: (base maps, those of the new run, its own); the base's data
    had ``shrink`` times the range."""
    monkeypatch.setenv("AMBIENT_JAX_CACHE", str(tmp_path))

    def make(shrink, init_maps):
        config = config_lib.default()
        config.data.sources.good = config_lib.source(toy_data["good"], "clean")
        config.data.horizon = config.policy.execute = 4
        config.train.init_from, config.train.init_maps = "somewhere", init_maps
        mixture = mixtures.open_mixture(config.data, mixing.get("ambient"))
        own = mixture.normalizer
        scale = {n: v * np.float32(shrink) for n, v in own.scale.items()}
        base = dataclasses.replace(own, scale=scale)
        assets = {"statistics": base.to_json(), "config": config.to_dict()}
        monkeypatch.setattr(fine_tuning.checkpoint, "load_assets", lambda path: assets)
        monkeypatch.setattr(fine_tuning.loading, "load", lambda path: assets)
        resumed = fine_tuning.resumed(mixture, "own").normalizer
        assert resumed.to_json() == base.to_json()
        return base, fine_tuning.with_maps(config, mixture).normalizer, own

    return make


def test_the_base_maps_are_taken_and_the_range_is_told(start, caplog):
    base, found, own = start(0.25, "base")
    assert found.to_json() == base.to_json() != own.to_json()
    # Ends of the data are 1 in their own maps, and 1 / 0.25 in the base's.
    assert "beyond its range" in caplog.text and "action[0] -4 to 4" in caplog.text


def test_a_wider_base_has_nothing_to_tell(start, caplog):
    base, found, _ = start(2, "base")
    assert found.to_json() == base.to_json()
    assert "beyond" not in caplog.text


def test_new_maps_by_option(start):
    base, found, own = start(2, "data")
    assert found.to_json() == own.to_json() != base.to_json()


def test_a_normaliser_of_before_still_loads():
    text = '{"kind": "gaussian", "sources": [], "shift": {"action": [1]}, "scale": {"action": [2]}}'
    assert normalizer.Normalizer.from_json(text).normalize("action", np.float32([3])) == 1
