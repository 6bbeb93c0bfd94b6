import functools
import io

import numpy as np
import PIL.Image
import pytest

from ambient_jax.data import statistics, write
from ambient_jax.data.open_x import fixtures, registry
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
            stored = dict(file_format=file_format, shards=min(shards, len(episodes)))
            write_source(name, episodes, overwrite=True, **stored)
            config.sources[name] = train_config.source(name, role, **options)
        for name, value in fields.items():
            config[name] = value
        return config

    return make


@pytest.fixture
def make_common(tmp_path, monkeypatch):
    """``make_common({name: (folder, open_x, options)}, form, **fields)``: a data section of sources
    in the common form; ``form`` are fields of ``config.data.open_x``."""
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))

    def make(sources, form, **fields):
        config = train_config.default().data
        config.placement, config.normalization = "stream", "none"
        config.history, config.horizon, config.prefetch = 2, 3, 0
        for name, (path, open_x, options) in sources.items():
            role = "corrupt" if "sigma_min" in options else "clean"
            options = {"last_step": "keep"} | options  # fixtures have actions in every step
            config.sources[name] = train_config.source(str(path), role, open_x=open_x, **options)
        section = {"image_size": (8, 8), "workers": 0, "action_width": 8, "state_width": 9} | form
        config.open_x.on_problem.update(section.pop("on_problem", {}))
        for name, value in section.items():
            config.open_x[name] = value
        for name, value in fields.items():
            config[name] = value
        return config

    return make


def small_images(name, episode, number):
    """Replaces the camera images of an episode of a registry row by 8x8 ones that differ: their
    colours tell the episode's number, the step and the camera."""
    for field, (kind, _) in fixtures.schema(name).items():
        if kind == "jpeg":
            steps = episode["steps"]["observation"]
            steps[field.removeprefix("steps/observation/")] = [
                solid_jpeg(10 + 60 * (number % 4), 5 + 12 * t, 40 + 9 * (len(field) % 20))
                for t in range(len(episode["steps"]["is_first"]))
            ]
    return episode


@functools.cache
def solid_jpeg(red, green, blue):
    pixels = np.full((8, 8, 3), (red, green, blue), np.uint8)
    pixels[2:4, 1:5] = 255 - pixels[2:4, 1:5]
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


@pytest.fixture
def write_row(tmp_path):
    """``write_row(row, lengths, **options) -> path``: a fixture of a registry row whose images are
    small and differ; ``change(number, episode)`` makes it different still."""

    def make(row, lengths, folder=None, change=None, version=None, **options):
        episodes = [fixtures.episode(row, n, i) for i, n in enumerate(lengths)]
        for i, episode in enumerate(episodes):
            small_images(row, episode, i)
            if change:
                change(i, episode)
        return write.write_dataset(
            tmp_path / "data",
            name=folder or fixtures.folder(row),
            version=version or registry.get(row).version or "0.1.0",
            features=fixtures.features(row),
            episodes=episodes,
            **options,
        )

    return make
