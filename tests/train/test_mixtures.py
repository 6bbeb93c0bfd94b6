"""Data sections of the Open-X mixtures."""

import pytest

from ambient_jax.open_x import registry
from ambient_jax.train import config as train_config
from ambient_jax.train import mixtures
from experiments.open_x import config as experiment


@pytest.mark.parametrize("name", registry.MIXTURES)
def test_a_mixture_is_that_of_the_experiment(name):
    """So that statistics prepared for a mixture are found by its trainings."""
    data = train_config.default().data
    mixtures.fill(data, name)
    theirs = experiment.get_config(name).data
    assert data.sources.to_dict() == theirs.sources.to_dict()
    assert data.open_x.to_dict() == theirs.open_x.to_dict()
    assert set(data.sources) == set(registry.mixture(name))


def test_clean_and_corrupt_data_sets():
    names = list(registry.mixture("rtx"))
    data = train_config.default().data
    mixtures.fill(data, "rtx", names[:1], 0.3)
    assert data.sources[names[0]].role == "clean"
    assert data.sources[names[1]].role == "corrupt" and data.sources[names[1]].sigma_min == 0.3
    with pytest.raises(ValueError, match="clean is 'brigde'"):
        mixtures.fill(train_config.default().data, "rtx", ["brigde"])
    with pytest.raises(ValueError, match="mixture is 'rtz'"):
        mixtures.fill(train_config.default().data, "rtz")
