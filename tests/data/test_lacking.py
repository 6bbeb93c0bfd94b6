"""Dimensions that a source lacks are 0 in normalised units wherever they are read."""

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.data import device
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.write import rlds_features, write_dataset
from ambient_jax.train import config as config_lib

SPEC = {"hz": 10, "state": "observation/state", "action": "xyz action[0:3]; rpy action[3:6]"}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An arm of 7 actions and 3 states, none of them around 0, and a probe of 6 and 2."""
    monkeypatch.setenv("AMBIENT_JAX_CACHE", str(tmp_path / "cache"))
    rng, found = np.random.default_rng(0), {}
    for name, width, states in (("arm", 7, 3), ("probe", 6, 2)):
        flags = {n: np.zeros(20, bool) for n in ("is_first", "is_last", "is_terminal")}
        flags |= {n: np.zeros(20, np.float32) for n in ("reward", "discount")}
        draw = lambda d: rng.uniform(0.5, 1, (20, d)).astype(np.float32)  # noqa: E731
        vectors = [(draw(states), draw(width)) for _ in range(4)]
        episodes = [
            {"steps": {"observation": {"state": s}, "action": a, **flags}} for s, a in vectors
        ]
        features = rlds_features({"state": vectors[0][0][0]}, vectors[0][1][0])
        found[name] = write_dataset(
            tmp_path, name=name, version="1.0.0", features=features, episodes=episodes
        )
    return found


@pytest.mark.parametrize("per", ["mixture", "source"])
@pytest.mark.parametrize("kind", ["bounds", "gaussian", "quantiles", "none"])
def test_fillers_are_zero(folders, kind, per):
    config = config_lib.default().data
    grip = {"action": SPEC["action"] + "; grip action[6]"}
    for name, more in (("arm", grip), ("probe", {})):
        config.sources[name] = config_lib.source(str(folders[name]), "clean", open_x=SPEC | more)
    config.normalization, config.normalize_per = kind, per
    config.open_x.state_width, config.horizon = 4, 4
    mixture = mixtures.open_mixture(config, mixing.get("ambient"))
    steps = device.load_device_data(mixture).steps
    action, state = steps["action"], steps["observation/state"]
    assert (action[80:, 6] == 0).all() and (action[:80, 6] != 0).any()
    assert (state[80:, 2:] == 0).all() and (state[:, 3] == 0).all()
    if (kind, per) == ("bounds", "mixture"):  # the arm's own range, as if there were no probe
        np.testing.assert_allclose([action[:80, 6].min(), action[:80, 6].max()], [-1, 1], atol=1e-5)
