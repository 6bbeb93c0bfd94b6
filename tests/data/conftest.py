import numpy as np
import pytest

from ambient_jax.data import statistics, write
from ambient_jax.train import config as train_config


def numbered_episode(number, length):
    """Every value tells where it comes from: state and action are (episode, step)."""
    where = np.stack([np.full(length, number), np.arange(length)], -1).astype(np.float32)
    flags = {n: np.zeros(length, bool) for n in ("is_first", "is_last", "is_terminal")}
    rewards = {n: np.zeros(length, np.float32) for n in ("reward", "discount")}
    observation = {"state": where, "goal": where[:, :1] + 0.5}
    return {"steps": {"observation": observation, "action": where + 0.25, **flags, **rewards}}


@pytest.fixture
def write_source(tmp_path):
    """``write_source(name, episodes or lengths) -> path`` of a data set of its own."""

    def write_one(name, episodes, **options):
        episodes = [
            numbered_episode(i, e) if isinstance(e, int) else e for i, e in enumerate(episodes)
        ]
        steps = episodes[0]["steps"]
        features = write.rlds_features(
            {n: v[0] for n, v in steps["observation"].items()}, steps["action"][0]
        )
        return str(
            write.write_dataset(
                tmp_path / "data",
                name=name,
                version="1.0.0",
                features=features,
                episodes=episodes,
                **options,
            )
        )

    return write_one


@pytest.fixture
def make_config(write_source, tmp_path, monkeypatch):
    """``make_config({name: (lengths, role, options)}, **fields)``: a data section and its data."""
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))

    def make(sources, file_format="array_record", shards=2, **fields):
        config = train_config.default().data
        config.root = str(tmp_path / "data")
        config.observation = ("state", "goal")
        config.history, config.horizon, config.normalization = 2, 4, "none"
        for name, (episodes, role, options) in sources.items():
            write_source(name, episodes, file_format=file_format, shards=shards)
            config.sources[name] = train_config.source(name, role, **options)
        for name, value in fields.items():
            config[name] = value
        return config

    return make
