"""Which datapoints share a bound: sizes, determinism, whole episodes, means, and selection."""

import numpy as np
import pytest
import scipy.stats

from ambient_jax.annotate import buckets as units
from ambient_jax.annotate import thresholds

EPISODE = np.repeat([7, 3, 900, 11, 12], [10, 1, 25, 30, 37])  # 103 datapoints
SCORES = np.random.default_rng(0).random(EPISODE.size)


def assign(granularity, **settings):
    return units.assign(granularity, EPISODE, **{"size": 20, "scores": SCORES} | settings)


@pytest.mark.parametrize("granularity", units.GRANULARITIES)
def test_units_are_numbered_without_gaps_and_follow_the_seed(granularity):
    unit = assign(granularity)
    assert unit.shape == EPISODE.shape and unit.dtype == np.int64
    np.testing.assert_array_equal(np.unique(unit), np.arange(unit.max() + 1))
    np.testing.assert_array_equal(unit, assign(granularity))
    another = assign(granularity, seed=1)
    assert np.array_equal(unit, another) != granularity.startswith("random")


def test_plain_granularities():
    assert not assign("dataset").any()
    for one_each in ("datapoint", "rejection"):
        np.testing.assert_array_equal(assign(one_each), np.arange(103))
    np.testing.assert_array_equal(
        assign("episode"), np.repeat([1, 0, 4, 2, 3], [10, 1, 25, 30, 37])
    )


@pytest.mark.parametrize("granularity", ["random", "ordered"])
@pytest.mark.parametrize("size", [1, 2, 7, 20, 52, 103, 500])
def test_bucket_sizes(granularity, size):
    sizes = np.bincount(assign(granularity, size=np.int64(size)))
    assert len(sizes) == max(1, 103 // size)
    assert sizes.max() - sizes.min() <= 1 and sizes.min() >= min(size, 103)


def test_random_buckets_mix_the_data():
    unit = units.assign("random", np.zeros(20000, int), size=1000)
    place = units.average(np.arange(20000), unit)
    # Mean of 1000 of 0..19999: standard deviation 180.
    assert np.abs(place - 9999.5).max() < 5 * 180 and place.std() > 50


def test_ordered_buckets_are_consecutive_in_score():
    unit = assign("ordered")
    for low, high in zip(range(4), range(1, 5), strict=True):
        assert SCORES[unit == low].max() <= SCORES[unit == high].min()


def test_ordered_breaks_ties_at_random():
    unit = units.assign("ordered", np.zeros(4000, int), size=2000, scores=np.zeros(4000))
    assert 800 < (unit[:2000] == 0).sum() < 1200


@pytest.mark.parametrize("size", [1, 5, 20, 50, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_random_episode_keeps_episodes_whole_and_sizes_near(size, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, 60)
    episode = rng.permutation(np.repeat(rng.permutation(1000)[:60], lengths))
    unit = units.assign("random_episode", episode, size=size, seed=seed)
    for number in np.unique(episode):
        assert len(np.unique(unit[episode == number])) == 1
    sizes = np.bincount(unit)
    assert sizes.all() and len(sizes) <= max(1, episode.size // size)
    aim = episode.size / max(1, episode.size // size)
    assert np.abs(sizes - aim).max() <= lengths.max()


def test_lots_are_uniform_and_belong_to_the_id():
    episode, step = np.divmod(np.arange(20_000), 50)
    lot = units.lots("rrt", episode, step, seed=3)
    assert lot.shape == (20_000,) and lot.min() > 0 and lot.max() <= 1
    assert scipy.stats.kstest(lot, "uniform").pvalue > 1e-3
    # Neither along an episode nor from one to the next.
    table = lot.reshape(400, 50)
    for axis in (0, 1):
        ends = np.take(table, range(1, table.shape[axis]), axis), np.delete(table, -1, axis)
        assert abs(np.corrcoef(*map(np.ravel, ends))[0, 1]) < 4 / np.sqrt(20_000)
    some = np.random.default_rng(0).permutation(20_000)[:300]
    np.testing.assert_array_equal(units.lots("rrt", episode[some], step[some], seed=3), lot[some])
    for other in (units.lots("gcs", episode, step, 3), units.lots("rrt", episode, step, 4)):
        assert abs(np.corrcoef(other, lot)[0, 1]) < 4 / np.sqrt(20_000)


def test_average_and_spread():
    values = np.random.default_rng(0).random((103, 6)).astype(np.float32)
    unit = assign("random_episode")
    mean = units.average(values, unit)
    for u in range(unit.max() + 1):
        np.testing.assert_allclose(mean[u], values[unit == u].mean(axis=0), rtol=1e-5)
    assert mean.shape == (unit.max() + 1, 6) and mean.dtype == np.float64
    np.testing.assert_allclose(units.average(values[:, 0], unit), mean[:, 0])
    np.testing.assert_array_equal(units.spread(mean, unit), mean[unit])
    np.testing.assert_array_equal(units.spread(mean[:, 0], unit), mean[unit, 0])
    np.testing.assert_allclose(units.average(values, assign("datapoint")), values)
    assert units.average(np.zeros((103, 2, 3)), unit).shape == (len(mean), 2, 3)


@pytest.mark.parametrize(
    "granularity, selects",
    [("dataset", False), ("random", False), ("ordered", True), ("datapoint", True)],
)
def test_only_units_that_look_at_the_value_select(granularity, selects):
    """Clean data uniform on {0, 1}, corrupt on {-1, 0}: who trains low noise levels?

    At low noise c is 1/2 on a corrupt 0 and 0 on a -1; both approach 1/2 as sigma grows.
    """
    rng = np.random.default_rng(0)
    x = -rng.integers(0, 2, 2000)
    levels = np.linspace(0.05, 0.95, 19)
    curve = np.where(x[:, None] == 0, 0.5, 0.5 * levels**2)
    alone = thresholds.sigma_min(levels, curve)
    unit = units.assign(granularity, np.arange(2000), size=200, scores=alone)
    bound = units.spread(thresholds.sigma_min(levels, units.average(curve, unit)), unit)
    # At sigma = 0.5 the admitted corrupt samples are all zeros, or none is admitted.
    assert (x[bound < 0.5] == 0).all()
    assert ((bound < 0.5).sum() >= 800) == selects
    # Where a bound is shared, zeros are admitted at about the rate of the others.
    shares = [(bound[x == v] < 0.93).mean() for v in (0, -1)]
    assert (abs(shares[0] - shares[1]) > 0.5) == selects


@pytest.mark.parametrize(
    "change, message",
    [
        ({"granularity": "datapont"}, "granularity is 'datapont'.*did you mean 'datapoint'"),
        ({"episode": []}, r"episode has shape \(0,\)"),
        ({"episode": [[1, 2]]}, r"episode has shape \(1, 2\)"),
        ({"episode": [1.0, 2.0]}, "type float64, expected .N. integers ids"),
        ({"size": None}, "granularity is 'ordered', which needs size"),
        ({"size": 0}, "size is 0, expected at least 1"),
        ({"size": 2.5}, "size is 2.5, expected a whole number"),
        ({"scores": None}, "needs one per datapoint"),
        ({"scores": [0.5]}, r"scores has shape \(1,\) .* expected \(3,\)"),
        ({"scores": [0.5, np.nan, np.nan]}, "2 NaN"),
    ],
)
def test_assign_refuses(change, message):
    given = {"granularity": "ordered", "episode": [1, 1, 2], "size": 1, "scores": [0.1, 0.2, 0.3]}
    given |= change
    with pytest.raises(ValueError, match=message):
        units.assign(given.pop("granularity"), given.pop("episode"), **given)


def test_average_and_spread_refuse():
    with pytest.raises(ValueError, match=r"values has shape \(2, 4\), expected \[3, ...\]"):
        units.average(np.zeros((2, 4)), [0, 0, 1])
    with pytest.raises(ValueError, match="unit 1 of 3 has no datapoint"):
        units.average(np.zeros((3, 4)), [0, 0, 2])
    with pytest.raises(ValueError, match="units holds -1"):
        units.average(np.zeros((3, 4)), [0, -1, 2])
    with pytest.raises(ValueError, match="type float64, expected .N. integers"):
        units.average(np.zeros((3, 4)), [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"values has shape \(3,\), expected \[2, ...\]"):
        units.spread(np.zeros(3), [0, 0, 1])
