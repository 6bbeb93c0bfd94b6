import functools
import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from ambient_jax import mixing, schedules
from ambient_jax.data import noise_first

VP = schedules.vp()
# Bounds at tenths, so that P(source | sigma) is constant inside each bin of a tenth.
SOURCES = mixing.make_sources([1, 3, 6], [True, False, False], [0, 0.4, 0.7], [1, 0, 0.2])


def bins_of_ambient():
    """P(bin of sigma, source) of the ambient law with SOURCES, from its definition."""
    table = np.zeros((10, 3))
    for i in range(10):
        middle = (i + 0.5) / 10
        mass = np.array([1, 3 * (middle > 0.4), 6 * (middle > 0.7 or middle < 0.2)])
        table[i] = 0.1 * mass / mass.sum()
    return table


def chi_square_p(sigma, source, expected):
    counts = np.zeros_like(expected)
    np.add.at(counts, (np.minimum((sigma * 10).astype(int), 9), source), 1)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    return stats.chisquare(counts[possible], expected[possible] * len(sigma)).pvalue


def test_streams_of_a_run_are_distinct():
    key = jax.random.key(3)
    fixed, fresh = noise_first.noise_keys(key)
    choice = noise_first.stream_key(key, "choice")
    rows = [noise_first.row_key(k, 0, 0) for k in (key, fixed, fresh, choice)]
    data = [tuple(jax.random.key_data(k).tolist()) for k in (key, fixed, fresh, choice, *rows)]
    assert len(set(data)) == len(data)


def test_rows_have_distinct_keys_whatever_the_split():
    key = jax.random.key(0)
    rows = np.arange(64)
    whole = [jax.random.key_data(noise_first.row_keys(key, s, rows)) for s in range(8)]
    assert len({tuple(k) for k in np.concatenate(whole).tolist()}) == 8 * 64
    parts = [noise_first.row_keys(key, 5, part) for part in np.split(rows, 4)]
    np.testing.assert_array_equal(np.concatenate([jax.random.key_data(p) for p in parts]), whole[5])
    one = jax.random.key_data(noise_first.row_key(key, 5, 17))
    np.testing.assert_array_equal(one, whole[5][17])


def host_draws(rows, law=None, key=0):
    law = law or mixing.Ambient()
    return noise_first.HostDraws(jax.random.key(key), rows, law, SOURCES, VP)


def test_host_draws_are_the_draws_of_each_row():
    draws = host_draws(np.arange(5))
    choice = noise_first.stream_key(jax.random.key(0), "choice")
    draw = jax.jit(functools.partial(noise_first.draw, law=mixing.Ambient(), schedule=VP))
    for step, row in itertools.product((0, 1, 4000), range(5)):
        sigma, source, _ = draw(noise_first.row_key(choice, step, row), sources=SOURCES)
        assert draws(step)[0][row] == sigma
        assert draws(step)[1][row] == source


def test_host_draws_do_not_depend_on_the_first_step_or_the_hosts():
    whole = host_draws(np.arange(8))
    hosts = [host_draws(part) for part in np.split(np.arange(8), 2)]
    for step in (5000, 2, 2047, 2048, 5000):  # blocks are 2048 steps of 8 rows
        for k in (0, 1):
            joined = np.concatenate([h(step)[k] for h in hosts])
            np.testing.assert_array_equal(whole(step)[k], joined)


def test_another_seed_draws_otherwise():
    rows = np.arange(100)
    assert np.all(host_draws(rows, key=0)(0)[0] != host_draws(rows, key=1)(0)[0])


def test_a_million_draws_follow_the_law():
    draws = host_draws(np.arange(1000))
    drawn = [draws(step) for step in range(1000)]
    sigma, source = (np.concatenate(d) for d in zip(*drawn, strict=True))
    assert sigma.size == 10**6
    assert chi_square_p(sigma, source, bins_of_ambient()) > 1e-3


def test_the_law_test_can_fail():
    """A law 2% off is found out by the same test."""
    rng = np.random.default_rng(0)
    wrong = bins_of_ambient()
    wrong[:, 0] *= 1.02
    flat = rng.choice(30, size=10**6, p=wrong.ravel() / wrong.sum())
    sigma, source = (flat // 3 + 0.5) / 10, flat % 3
    assert chi_square_p(sigma, source, bins_of_ambient()) < 1e-3


def test_data_first_draws_by_weight_and_weighs_by_the_law():
    keys = jax.random.split(jax.random.key(0), 50_000)
    draw = functools.partial(
        noise_first.draw_data_first, law=mixing.Ambient(), sources=SOURCES, schedule=VP
    )
    sigma, source, _, weight = jax.jit(jax.vmap(draw))(keys)
    sigma, source, weight = map(np.asarray, (sigma, source, weight))
    assert stats.chisquare(np.bincount(source), np.array([0.1, 0.3, 0.6]) * len(keys)).pvalue > 1e-3
    # Weighted, both orders have one law; 4 standard errors of the weighted counts.
    table, squares = np.zeros((10, 3)), np.zeros((10, 3))
    cells = (np.minimum((sigma * 10).astype(int), 9), source)
    np.add.at(table, cells, weight)
    np.add.at(squares, cells, weight**2)
    error = np.abs(table - bins_of_ambient() * len(keys))
    assert np.all(error <= 4 * np.sqrt(squares))


def test_index_is_uniform():
    keys = jax.random.split(jax.random.key(0), 20_000)
    index = np.asarray(jax.vmap(noise_first.index, in_axes=(0, None))(keys, 7))
    assert stats.chisquare(np.bincount(index, minlength=7)).pvalue > 1e-3
    assert np.bincount(index).size == 7
    assert int(noise_first.index(keys[0], 1)) == 0


@pytest.mark.parametrize("size", [3 * 2**24, 2**31 - 1])
def test_index_reaches_every_sample_of_a_large_source(size):
    """floor(u * size) of a float32 u could not: it skips two of three samples of 3 * 2**24."""
    keys = jax.random.split(jax.random.key(1), 30_000)
    index = np.asarray(jax.vmap(noise_first.index, in_axes=(0, None))(keys, size))
    assert np.all((index >= 0) & (index < size))
    assert stats.chisquare(np.bincount(index % 3, minlength=3)).pvalue > 1e-3
    assert stats.kstest(index / size, "uniform").pvalue > 1e-3
