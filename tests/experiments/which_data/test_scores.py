"""Scores are compared by rank correlation with success and by regret."""

import numpy as np

from ambient_jax.annotate import evidence
from ambient_jax.annotate.candidates import Candidate, Measured
from experiments.which_data import scores
from experiments.which_data.samples import distances

CLEAN, NATURAL, HALF = Candidate(1.0), Candidate(None), Candidate(0.5)


def _measured(factors):
    levels = evidence.grid(8)
    losses = levels[:, None] ** 2 * np.exp(0.1 * np.random.default_rng(0).normal(size=(8, 200)))
    losses = np.stack([np.stack([factor * losses] * 2) for factor in factors.values()])
    parts = dict(episode=np.arange(200) // 10, fold=np.arange(200) // 100)
    return Measured(
        tuple(factors), levels, losses, **parts, variance=1.0, decisions=9.0, natural=0.1
    )


def test_a_score_that_orders_rightly_has_no_regret_and_the_reverse_has_all():
    measured = _measured({CLEAN: 3.0, NATURAL: 1.0, HALF: 2.0})
    sampled = {
        c: {"error": 1.0, "energy": e} for c, e in ((CLEAN, 1.0), (NATURAL, 3.0), (HALF, 2.0))
    }
    right = scores.Scored(measured, sampled, {CLEAN: 0.2, NATURAL: 0.9, HALF: 0.5}, 0.9)
    wrong = scores.Scored(measured, sampled, {CLEAN: 0.9, NATURAL: 0.2, HALF: 0.5}, 0.8)
    [name, rank, _, regret, _, largest], *_ = scores.compare([right, right])
    assert (name, rank, regret, largest) == (
        *("log of the mean loss, all levels", "1.00", "0.0 points", "0.0 points"),
    )
    lines = scores.compare([right, wrong])
    assert lines[0][1:4] == ["0.00", "-1.00 to 1.00", "35.0 points"]
    assert lines[0][-1] == "70.0 points"
    assert lines[-2][0] == "energy score of sampled chunks" and lines[-2][3] == "35.0 points"
    assert lines[-3][1] == ""  # all errors are equal: there is no order
    assert lines[-1][0] == "the rule" and lines[-1][3] == "5.0 points"


def test_likelihood_weighting_is_the_integral_over_snr():
    # The loss of a Gaussian with unit variance, 1 / (1 + snr): the integral is log(1 + snr).
    levels = np.sqrt(1 / (1 + np.geomspace(1e-3, 1e3, 4001)))[::-1]
    snr = (1 - levels**2) / levels**2
    losses = (1 / (1 + snr))[:, None]
    measured = Measured((), levels, losses, levels, levels, 1.0, 1.0, 1.0)
    expected = np.log((1 + 1e3) / (1 + 1e-3))
    np.testing.assert_allclose(scores._likelihood(losses, None, measured), expected, rtol=1e-4)


def test_the_energy_score_is_least_for_samples_of_the_law_itself():
    rng = np.random.default_rng(0)
    x0, samples = rng.normal(size=(4000, 1, 1)), rng.normal(size=(4, 4000, 1, 1))
    error, energy = distances(samples, x0)
    # E|X - Y| = 2 / sqrt(pi) of two standard normal numbers.
    np.testing.assert_allclose([error, energy], [2 / np.sqrt(np.pi), 1 / np.sqrt(np.pi)], rtol=0.03)
    for wrong in (0.5 * samples, 2 * samples, samples + 0.5):
        assert distances(wrong, x0)[1] > energy
    assert distances(0.5 * samples, x0)[0] < error  # the error alone prefers too little spread
