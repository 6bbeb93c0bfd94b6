"""Bounds from labels: from the features of data sets to the batches of a training."""

import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import bounds, pipeline
from ambient_jax.data import mixture as mixtures
from experiments.annotate import __main__ as command
from experiments.annotate import config as annotate_config

NAMES = ("bridge_orig", "kuka", "jaco_play")  # kuka's episodes say whether they succeeded


@pytest.fixture
def config(tmp_path):
    config = annotate_config.get_config("labels,mixture=debug,clean=bridge_orig,label=success")
    config.data.root = str(tmp_path / "fixtures")
    for name in set(config.data.sources) - set(NAMES):
        del config.data.sources[name]
    return config


def test_what_failed_trains_high_noise_alone(config, tmp_path):
    command.run(config, str(tmp_path / "out"))
    path = tmp_path / "out" / "bounds" / "labels.parquet"
    made = bounds.read(path)
    assert sorted(made.names) == ["jaco_play", "kuka"] and made.method == "labels"
    assert set(made.sigma_min[made.rows("jaco_play")].tolist()) == {np.float32(0.2)}
    config.data.bounds, config.data.placement = str(path), "stream"
    law = mixing.Ambient()
    mixture = mixtures.open_mixture(config.data, law, observed=False)
    kuka = mixture.names.index("kuka")
    seen = set()
    stream = pipeline.stream_batches(mixture, law, schedules.vp(), seed=0, batch_size=128)
    for _ in range(4):
        batch = next(stream)
        mine = batch["source"] == kuka
        success = batch["quality"]["success"][mine]
        np.testing.assert_array_equal(
            batch["sigma_min"][mine], np.where(success >= 0.5, 0, 0.5).astype(np.float32)
        )
        assert np.all(batch["sigma"][mine] >= batch["sigma_min"][mine])
        seen |= set(success.tolist())
    stream.close()
    assert seen <= {0.0, 1.0} and seen


def test_a_label_that_no_source_has(config, tmp_path):
    config.task.label, config.data.open_x.quality = "sucess", ("sucess",)
    with pytest.raises(ValueError, match="no step of jaco_play, kuka has the label 'sucess'"):
        command.run(config, str(tmp_path / "out"))
