"""What evidence is gathered of: the sources' steps, the levels, and chunks that stand still."""

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.annotate import evidence as evidence_lib
from ambient_jax.annotate.options import Options
from ambient_jax.data import mixture as mixtures
from tests.annotate.made import evidence

SOURCES = {"a": ((5, 4), "clean", {}), "b": ((6, 3), "corrupt", {"sigma_min": 0.0})}


@pytest.fixture
def config(make_config):
    config = make_config(SOURCES)
    config.sources.b.sigma_min = 0.0
    return config


def test_levels_are_equidistant_in_the_logarithm_of_sigma_over_alpha():
    levels = evidence_lib.grid(7)
    ratio = levels / np.sqrt(1 - levels**2)
    np.testing.assert_allclose(ratio[[0, -1]], [0.004, 16])
    np.testing.assert_allclose(ratio[1:] / ratio[:-1], 4000 ** (1 / 6))


def test_roles_and_steps_of_sources():
    walk = lambda n: np.zeros((n, 2))  # noqa: E731
    sources = {"b": (False, [walk(3)]), "a": (True, [walk(5), walk(2)]), "c": (False, [walk(4)])}
    made = evidence(sources, horizon=6)
    assert made.clean == ["a"] and made.corrupt == ["b", "c"] and made.horizon == 6
    assert made.steps("b").tolist() == [0, 1, 2] and made.steps("a").tolist() == [*range(3, 10)]
    assert made.steps("c").tolist() == [10, 11, 12, 13]


def test_sigma_min_has_the_options_of_the_annotation():
    curve = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    found = [
        evidence({"a": (True, [np.zeros((1, 1))])}, tau=t).sigma_min(curve) for t in (0.05, 0.2)
    ]
    np.testing.assert_allclose(found, [0.8, 0.5])


def test_the_classifier_of_crops_sees_fewer_actions_and_no_observations():
    options = Options(observed=True, steps=7, crop_steps=3, features=(8,), blur=0.5)
    whole, crop = (evidence_lib.classifier_options(options, 2, 16, c) for c in (0, 4))
    assert (whole.length, whole.observed, whole.steps) == (16, True, 7)
    assert (crop.length, crop.observed, crop.steps) == (4, False, 3)
    assert crop.features == (8,) and crop.blur == 0.5 and crop.history == 2


def test_data_are_opened_to_stand_still_past_the_end(config, caplog):
    config.delta = (0,)
    opened = evidence_lib.open_standing_still(config, observed=True)
    assert opened.config.padding == "hold" and opened.config.delta == (0,)
    assert opened.names == ("a", "b") and config.padding == "mask"
    assert "displacements" not in caplog.text


def test_without_delta_a_warning_says_what_is_repeated(config, caplog):
    opened = evidence_lib.open_standing_still(config, observed=True)
    assert opened.config.delta == () and config.get("delta") is None
    assert "name them in config.data.delta" in caplog.text


def test_an_open_mixture_is_not_opened_again(config):
    mixture = mixtures.open_mixture(config, mixing.CoTraining())
    found = evidence_lib.open_standing_still(mixture, observed=True)
    assert found.datasets is mixture.datasets and found.statistics is mixture.statistics
    assert (found.config.padding, mixture.config.padding) == ("hold", "mask")


@pytest.mark.parametrize("place", ["source", "all"])
def test_sources_that_have_bounds_are_refused(config, place):
    if place == "source":
        config.sources.b.bounds = "b.parquet"
    else:
        config.bounds = "all.parquet"
    with pytest.raises(ValueError, match="source '[ab]' has a bounds file, expected none"):
        evidence_lib.open_standing_still(config, observed=True)
