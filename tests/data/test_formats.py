"""A data format from outside of the package: a source of arrays, opened by its dotted name."""

import jax
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import device, pipeline, statistics
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.source import Format, Source
from ambient_jax.train import config as config_lib

LAW, VP = mixing.Ambient(), schedules.vp()


class Walks(Source):
    """Walks of ``length`` steps; the action is the next place."""

    observation = ("place",)

    def __init__(self, name, path, length):
        self.name, self.directory, self.length = name, path, length

    @property
    def fingerprint(self):
        return f"walks of {self.length}"

    def __len__(self):
        return 5

    def __getitem__(self, position):
        place = position + 0.1 * np.arange(self.length, dtype=np.float32)[:, None]
        return {"steps": {"observation": {"place": place}, "action": place + 0.1}}


class WalksFormat(Format):
    def __init__(self, config):
        assert config.history

    def open(self, name, path, fields, transform=None):
        return Walks(name, path, fields["length"])


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path))
    data = config_lib.default().data
    data.history, data.horizon, data.normalization = 2, 3, "none"
    for name, role, length in (("long", "clean", 9), ("short", "corrupt", 4)):
        source = config_lib.source("walks", role, format=f"{__name__}:WalksFormat")
        source.length, source.sigma_min = length, 0.0 if role == "clean" else 0.3
        data.sources[name] = source
    return data


def test_it_is_trained_on_like_the_formats_of_the_package(config):
    mixture = mixtures.open_mixture(config, LAW)
    assert mixture.chunks.tolist() == [45, 20] and mixture.chain.dims == {"place": 1}
    batch = jax.jit(mixture.sampler(LAW, VP))(
        device.load_device_data(mixture), jax.random.key(0), 0, np.arange(32)
    )
    stream = pipeline.stream_batches(mixture, LAW, VP, seed=0, batch_size=32)
    for each in (jax.device_get(batch), next(stream)):
        _, episode, step = each["id"].T
        place = episode + np.float32(0.1) * step
        np.testing.assert_allclose(each["observation"]["place"][:, -1, 0], place, atol=1e-5)
        np.testing.assert_allclose(each["action"][:, 0, 0], place + 0.1, atol=1e-5)
    stream.close()


def test_what_is_no_format_is_said(config):
    for name, message in (
        ("rdls", "sources.long.format is 'rdls', expected one of rlds, open_x.*did you mean"),
        ("no_such_module:Format", "format is 'no_such_module:Format', expected package.module"),
    ):
        config.sources = {"long": config_lib.source("walks", "clean", format=name)}
        with pytest.raises(ValueError, match=message):
            mixtures.open_mixture(config, LAW)
