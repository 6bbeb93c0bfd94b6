"""Gain and worth against losses and curves whose numbers are known."""

import numpy as np
import pytest

from ambient_jax.annotate.candidates import Candidate, Measured
from ambient_jax.annotate.pile import worth
from ambient_jax.annotate.pile.results import CLEAN

DATA = Candidate(0.5, corrupt=("d",))


def measured(losses, episode, fold):
    """Losses [A][L, N] of clean data only and of ``DATA``, with two equal draws."""
    losses = np.repeat(np.asarray(losses, np.float32)[:, None], 2, axis=1)
    levels = np.linspace(0.1, 0.9, losses.shape[2])
    rest = dict(variance=1.0, decisions=4.0, natural=0.5)
    return Measured((CLEAN, DATA), levels, losses, np.asarray(episode), np.asarray(fold), **rest)


def test_resampling_keeps_folds():
    made = measured(np.ones((2, 1, 8)), [0, 0, 1, 2, 3, 3, 4, 4], [0, 0, 0, 0, 1, 1, 1, 1])
    times = worth.resampled(made, 50)
    assert times.shape == (51, 5) and np.all(times[0] == 1)
    assert np.all(times[:, :3].sum(1) == 3) and np.all(times[:, 3:].sum(1) == 2)
    assert len(np.unique(times[1:], axis=0)) > 10


def test_mean_loss_weighs_chunks_by_how_often_their_episode_counts():
    losses, episode = np.asarray([[[1.0, 2.0, 10.0]], [[3.0, 4.0, 10.0]]]), np.asarray([7, 7, 9])
    times = np.asarray([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    means = worth.mean_losses(losses, episode, times)  # of the draws: 2, 3, 10
    np.testing.assert_allclose(means[:, 0], [5, 2.5, 10])


def test_gain_is_the_log_ratio_of_means_and_its_interval_covers_the_truth():
    rng, episode = np.random.default_rng(0), np.repeat(np.arange(40), 5)
    shared = np.exp(rng.normal(size=40))[episode]
    losses = np.stack([np.stack([shared, shared]), np.stack([shared * 0.8, shared * 1.0])])
    losses[1] *= np.exp(0.1 * rng.normal(size=losses[1].shape))
    made = measured(losses, episode, episode // 20)
    gained = worth.gain(made, DATA, CLEAN, worth.resampled(made))
    low, high = gained.ends
    assert np.all(low < np.log([0.8, 1.0])) and np.all(np.log([0.8, 1.0]) < high)
    assert np.all(high - low < 0.15)  # the episodes' own spread, which both share, cancels
    assert gained.helps() == [(pytest.approx(0.1), pytest.approx(0.1))] and gained.harms() == []
    assert gained.mean(np.asarray([True, False])).value == pytest.approx(gained.ratio[0] / 2)


def test_ranges_of_levels():
    levels = np.arange(6) / 10
    draws = np.tile([-1.0, -1.0, 1.0, -1.0, 0.0, -1.0], (5, 1))
    gained = worth.Gain(levels, draws)
    assert gained.helps() == [(0.0, 0.1), (pytest.approx(0.3), pytest.approx(0.3)), (0.5, 0.5)]
    assert gained.harms() == [(0.2, 0.2)]


def test_worth_inverts_a_power_law():
    n = np.asarray([2.0, 4.0, 8.0])
    draws = np.tile(1 - 0.5 * np.log(n), (41, 1))
    curve = worth.Curve(n, draws)
    np.testing.assert_allclose(curve.fits, np.tile([1, -0.5], (41, 1)))
    # The loss of 8 episodes times 1/sqrt(2): that of 16, 8 more.
    gained = np.full(41, -0.5 * np.log(2))
    assert curve.worth(gained) == pytest.approx((8, 8, 8))
    assert curve.worth(-gained) == pytest.approx((-4, -4, -4))
    assert curve.worth(np.zeros(41)) == pytest.approx((0, 0, 0))


def test_worth_says_more_than_where_the_curve_ends():
    n = np.asarray([2.0, 4.0, 8.0])
    draws = np.tile(1 - 0.5 * np.log(n), (41, 1))
    curve = worth.Curve(n, draws)
    far = curve.worth(np.concatenate([[-0.2], np.linspace(-0.1, -2, 40)]))
    assert far.low < far.value < np.inf and far.high == np.inf and curve.farthest == 32
    flat = worth.Curve(n, np.ones((41, 3)))  # more episodes do not help: no number is enough
    assert flat.worth(np.full(41, -0.1)).low == np.inf
