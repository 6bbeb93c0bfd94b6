"""The border of admissible pairs of levels, and a classifier of actions that follow them."""

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.annotate import classifier, plane
from ambient_jax.data import device

RHOS, SIGMAS = np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.5, 0.9])


def test_border_is_where_the_curve_passes_the_threshold_and_falls_with_sigma():
    # P(clean) at rho 0, 0.5, 1, for each sigma: it passes 0.45 at 0.75, 0.5 and at once.
    probability = np.array([[0.3, 0.35, 0.46], [0.4, 0.45, 0.48], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(plane.border(RHOS, probability), [0.75, 0.5, 0.0])
    # A border that rises is evened out to the nearest one that does not.
    np.testing.assert_allclose(plane.border(RHOS, probability[:, ::-1]), [1.25 / 3] * 3)
    assert plane.sigma_min(SIGMAS, probability[0]) == pytest.approx(0.5 + 0.4 * 10 / 11)


def shifted(rng, n=3000):
    """Episodes of one step: A = O. The corrupt ones report O + 1."""
    o = rng.normal(size=(2 * n, 1)).astype(np.float32)
    at = np.arange(2 * n, dtype=np.int32)
    steps = {"action": o, "observation/state": o + np.float32(at >= n)[:, None]}
    sizes = np.array([n, n], np.int32)
    offset = np.array([0, n], np.int32)
    sources = mixing.make_sources(sizes, [True, False])
    return device.DeviceData(steps, at, at + 1, at, offset, sizes, sources)


@pytest.mark.slow
def test_pairs_are_told_apart_as_they_are_and_not_without_observation():
    data = shifted(np.random.default_rng(0))
    options = dict(history=1, horizon=1, observed=True, noised=("state",), encoder=(0, 32, 1))
    options |= dict(features=(16,), dropout=0, steps=400, evaluate_every=200, learning_rate=5e-3)
    fitted = classifier.fit(data, classifier.Options(**options), progress=False)
    chunks = 3000 + np.arange(1000)
    found = plane.probabilities(fitted, data, chunks, SIGMAS, RHOS, batch_size=1000).mean(0)
    assert found.shape == (3, 3)
    assert found[0, 0] < 0.1  # A is 1 below the reported O
    assert found[2] == pytest.approx(0.5, abs=0.03)
    assert (np.diff(found, axis=0)[:, 0] > 0.02).all()
    assert found[0, 2] > found[0, 0] + 0.1  # noise on the action hides it, too


def test_a_classifier_without_noised_observations_is_refused():
    data = shifted(np.random.default_rng(0), 4)
    fitted = classifier.Fitted(classifier.Options(observed=True), *[None] * 4)
    with pytest.raises(ValueError, match="noised"):
        plane.probabilities(fitted, data, np.arange(4), SIGMAS, RHOS)
