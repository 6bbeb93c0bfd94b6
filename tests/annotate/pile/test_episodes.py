"""Scores of episodes: what stands out, and what only reads the length."""

import types

import numpy as np
import pytest

from ambient_jax.annotate.pile import episodes
from ambient_jax.data import storage
from ambient_jax.data.rlds_source import RldsSource
from tests.annotate.pile import piles
from tests.data.look import folders

SIZES = types.SimpleNamespace(history=2, horizon=3)  # of a policy


def test_robust_z_of_a_normal_sample_and_of_an_outlier():
    values = np.random.default_rng(0).normal(3, 2, 2000)
    z = episodes.robust_z(values)
    assert abs(z.std() - 1) < 0.1 and abs(np.median(z)) < 1e-9
    assert episodes.robust_z([0.0, 1.0, 2.0, 3.0, -50.0])[-1] < -20
    assert np.all(episodes.robust_z([2.0, 2.0, 2.0]) == 0)
    assert episodes.robust_z([2.0, 2.0, 2.0, 2.0, 0.0])[-1] < -3  # the deviation is 0


def test_the_length_is_taken_out_and_a_broken_episode_does_not_bend_the_line():
    rng = np.random.default_rng(1)
    length = rng.integers(20, 400, 200)
    noise = 0.1 * rng.normal(size=200)
    values = 2 * np.log(length) + noise
    longest = np.argmax(length)
    values[longest] -= 30
    rest = episodes.without_length(values, length)
    others = np.arange(200) != longest
    assert abs(np.corrcoef(rest[others], np.log(length[others]))[0, 1]) < 0.2
    assert episodes.robust_z(rest)[longest] < -50
    same = np.full(200, 30)
    np.testing.assert_array_equal(episodes.without_length(values, same), values)


def test_rank_correlation_and_its_interval():
    rng = np.random.default_rng(2)
    length = rng.integers(10, 1000, 80)
    value, low, high = episodes.rank_correlation(-(length**2.0), length)
    assert (value, low, high) == pytest.approx((-1, -1, -1))
    value, low, high = episodes.rank_correlation(rng.normal(size=80), length)
    assert low < 0 < high and low < value < high and high - low < 0.7
    assert episodes.rank_correlation(np.ones(80), length) == (0, 0, 0)


def test_suspects_are_the_broken_episodes():
    scores = piles.scores(broken=(3, 20), count=60)
    assert {3, 20} <= set(np.flatnonzero(scores.suspects()))
    assert scores.suspects().sum() <= 4
    assert set(scores.summary) == set(scores.standing_out()) == {"p_clean", "influence"}


def test_chunks_are_spread_over_every_episode(tmp_path):
    data = folders.episodes(lengths=(20, 3, 30))
    source = RldsSource(
        storage.open_dataset(folders.write(tmp_path / "s", data)), observation=("state",)
    )
    chunks, position = episodes.sampled(source, SIZES, padding="mask", each=4)
    assert np.bincount(position).tolist() == [4, 3, 4]
    np.testing.assert_array_equal(chunks.action[0], data[0][1][:3])  # the first chunk
    assert chunks.mask[3].tolist() == [True, False, False]  # the last
    np.testing.assert_array_equal(chunks.observation["state"][3], data[0][0][18:20])
    held, _ = episodes.sampled(source, SIZES, padding="hold", each=4)
    assert held.mask.all() and np.all(held.action[3] == data[0][1][19])


def test_influences_share_a_unit():
    found = episodes.in_units(
        {"a": np.asarray([[1.0, -2.0], [0, 0]]), "b": np.asarray([[9.0], [0]])}
    )
    np.testing.assert_allclose(found["a"], [[0.5, -1], [0, 0]])
    np.testing.assert_allclose(found["b"], [[4.5], [0]])
