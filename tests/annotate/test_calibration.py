"""Temperatures by band against logits whose scale is known."""

import numpy as np

from ambient_jax.annotate import calibration


def test_calibration_finds_the_scale_of_the_logits_in_each_band():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=40_000) * 2
    labels = rng.random(40_000) < 1 / (1 + np.exp(-logits))
    low = np.arange(40_000) < 20_000
    scale = np.where(low, 0.5, 3.0)
    x = np.where(low, -1.9, 2.3) + rng.normal(size=40_000) * 0.1
    found = calibration.temperatures(scale * logits, labels, x, np.array([-2.0, 2.0]))
    np.testing.assert_allclose(found, [[0.5, 3.0]], rtol=0.08)


def test_what_was_learnt_by_heart_is_calibrated_away():
    """Labels that the logits know nothing of: the answer is 1/2, whatever they claim."""
    rng = np.random.default_rng(0)
    logits, labels = 8 * rng.normal(size=20_000), rng.random(20_000) < 0.5
    found = calibration.temperatures(logits, labels, np.zeros(20_000), np.zeros(1))
    assert found[0, 0] > 32


def test_between_bands_the_temperature_is_interpolated():
    middles, log_temperature = np.array([-1.0, 1.0]), np.log([1.0, 4.0])
    found = calibration.temperature(np.array([-3.0, -1.0, 0.0, 5.0]), middles, log_temperature)
    np.testing.assert_allclose(found, [1.0, 1.0, 2.0, 4.0], rtol=1e-6)


def test_calibrated_rows_are_scored_at_their_temperature():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=5000)
    clean = rng.random(5000) < 1 / (1 + np.exp(-logits / 3))
    found = calibration.fit(logits, clean, np.zeros(5000), np.zeros(1))
    p = 1 / (1 + np.exp(-logits / np.exp(float(found.log_temperature[0, 0]))))
    np.testing.assert_allclose(found.probability, p, atol=1e-5)
    expected = -np.mean(np.log(np.where(clean, p, 1 - p)))
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_centred_probabilities_have_mean_one_half_over_even_classes():
    """Odds that were multiplied by a constant are found again, at each level by itself."""
    rng = np.random.default_rng(0)
    logit = rng.normal(size=(4000, 2)) * [0.5, 2.0]
    exact = 1 / (1 + np.exp(-logit))
    clean = rng.random(logit.shape) < exact
    both = [exact[~clean[:, 0]][:1900], exact[clean[:, 0]][:1900]]
    off = [1 / (1 + (1 - c) / c * np.exp([-0.7, 0.4])) for c in both]
    found, other = calibration.centred(*off), calibration.centred(*off[::-1])
    np.testing.assert_allclose(found.mean(0) + other.mean(0), 1, atol=1e-6)
    np.testing.assert_allclose(found, calibration.centred(*both), atol=1e-6)
    assert abs(off[0].mean(0) - both[0].mean(0)).min() > 0.03
    # Its mean has less noise than that of the uncentred: it knows the clean half too.
    certain = calibration.centred(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    assert np.isfinite(certain).all()
