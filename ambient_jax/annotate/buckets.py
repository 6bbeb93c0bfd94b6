"""Which datapoints share one bound: data set, episode, datapoint, or buckets of some size.

"You can't do statistics with n = 1." A classifier's output on one noised chunk says where that
chunk lies, not whether its distribution differs from the clean one there. Bounds chosen one by
one therefore *select*: at low noise levels they keep the corrupt samples that look most clean,
and the trained law drifts towards those. The smallest case has X in {-1, 0, 1}, clean data uniform
on {0, 1} and corrupt data uniform on {-1, 0}. Each corrupt 0 is perfectly clean and each -1 never
is, so that per datapoint all zeros of the corrupt set train every level, and the share of 0 goes
to 1 as that set grows, where 1/2 is right. A bound for the whole set, or for random buckets,
treats 0 and -1 alike and keeps 1/2.

==============  ==================================  =============================================
granularity     units                               what it costs
==============  ==================================  =============================================
dataset         one                                 no bias; good samples wait for bad ones
random          buckets of datapoints               no bias; classifier noise falls as 1/sqrt(size)
random_episode  buckets of whole episodes           as random; noise falls with the number of
                                                    episodes, as the steps of one are correlated
episode         one per episode                     favours episodes that look clean
ordered         consecutive in order of score       averages noise, but selects by score, and in
                                                    the example above drifts as datapoint does
datapoint       one per datapoint                   least waste, most bias, most noise
==============  ==================================  =============================================

Units are those of one source: episode ids of two sources may coincide.
"""

from __future__ import annotations

import operator

import numpy as np

from ambient_jax import _checks

GRANULARITIES = ("dataset", "episode", "datapoint", "random", "random_episode", "ordered")


def assign(
    granularity: str, episode, *, size: int | None = None, seed: int = 0, scores=None
) -> np.ndarray:
    """The unit of every datapoint of one source.

    There are U = max(1, N // size) buckets: a bucket holds ``size`` datapoints or more, as the
    size is what the statistics rest on, and the remainder is spread over all. Of "random" and
    "ordered" any two buckets differ by at most one datapoint. Of "random_episode", whose shuffled
    episodes are laid end to end and cut at their midpoints, a bucket differs from N / U by at most
    the length of the longest episode, and there are fewer where an episode fills several. "ordered"
    breaks ties at random, not by place in the data.

    Args:
      granularity: see the module.
      episode: [N] the integer id of the episode of each datapoint.
      size: datapoints per bucket, for "random", "random_episode" and "ordered".
      seed: of the shuffle; same seed, same units.
      scores: [N] for "ordered", such as the sigma_min of each datapoint.

    Returns:
      [N] int64 in 0..U-1, every unit taken. "episode" numbers them in order of the id, "ordered"
      in order of score.

    Raises:
      ValueError: unknown granularity, no datapoints, no or a bad size, missing scores, scores of
        another length or NaN.
    """
    _checks.one_of("granularity", granularity, GRANULARITIES)
    episode = np.asarray(episode)
    if episode.ndim != 1 or not episode.size or not np.issubdtype(episode.dtype, np.integer):
        raise ValueError(
            f"episode has shape {episode.shape} and type {episode.dtype}, expected [N] integer "
            "ids, one per datapoint, N >= 1"
        )
    count = episode.size
    if granularity == "dataset":
        return np.zeros(count, np.int64)
    if granularity == "datapoint":
        return np.arange(count)
    if granularity == "episode":
        return np.unique(episode, return_inverse=True)[1]
    buckets = max(1, count // _size(granularity, size))
    rng = np.random.default_rng(seed)
    if granularity == "random_episode":
        return _whole_episodes(episode, buckets, rng)
    order = rng.permutation(count)
    if granularity == "ordered":
        order = order[np.argsort(_scores(scores, count)[order], kind="stable")]
    unit = np.empty(count, np.int64)
    unit[order] = np.arange(count) * buckets // count
    return unit


def average(values, units) -> np.ndarray:
    """Mean of values [N, ...] over each unit, [U, ...] float64.

    Raises:
      ValueError: another number of values than units, or a unit number that is negative or
        skipped.
    """
    values, units = np.asarray(values), _units(units)
    if not values.ndim or len(values) != units.size:
        raise ValueError(
            f"values has shape {values.shape}, expected [{units.size}, ...]: one row per datapoint"
        )
    sizes = np.bincount(units)
    if not sizes.all():
        raise ValueError(
            f"unit {np.argmin(sizes != 0)} of {sizes.size} has no datapoint: number units "
            "without gaps, as np.unique(units, return_inverse=True)[1] does"
        )
    flat = values.reshape(units.size, -1)
    mean = np.empty((sizes.size, flat.shape[1]))
    for column in range(flat.shape[1]):
        mean[:, column] = np.bincount(units, flat[:, column]) / sizes
    return mean.reshape(sizes.size, *values.shape[1:])


def spread(values, units) -> np.ndarray:
    """Gives every datapoint the value of its unit: values [U, ...], units [N] -> [N, ...].

    Raises:
      ValueError: another number of values than units has numbers.
    """
    values, units = np.asarray(values), _units(units)
    if not values.ndim or len(values) != units.max() + 1:
        raise ValueError(
            f"values has shape {values.shape}, expected [{units.max() + 1}, ...]: one row per unit"
        )
    return values[units]


def _whole_episodes(episode, buckets, rng):
    number, lengths = np.unique(episode, return_inverse=True, return_counts=True)[1:]
    order = rng.permutation(lengths.size)
    ends = np.cumsum(lengths[order])
    # Twice the midpoint, so that it is an integer.
    bucket = (2 * ends - lengths[order]) * buckets // (2 * episode.size)
    bucket_of = np.empty(lengths.size, np.int64)
    # An episode longer than a bucket can leave its neighbours without a midpoint: close the gaps.
    bucket_of[order] = np.unique(bucket, return_inverse=True)[1]
    return bucket_of[number]


def _size(granularity, size):
    if size is None:
        raise ValueError(
            f"granularity is {granularity!r}, which needs size: datapoints per bucket, such as 1000"
        )
    try:
        number = operator.index(size)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"size is {size!r}, expected an integer >= 1: datapoints per bucket")
    return number


def _scores(scores, count):
    if scores is None:
        raise ValueError(
            "granularity is 'ordered', which needs scores: one per datapoint, such as sigma_min"
        )
    scores = np.asarray(scores)
    if scores.shape != (count,):
        raise ValueError(f"scores has shape {scores.shape}, expected ({count},) as episode")
    missing = np.flatnonzero(np.isnan(scores))
    if missing.size:
        raise ValueError(f"{missing.size} of {count} scores are NaN, the first at {missing[0]}")
    return scores


def _units(units):
    units = np.asarray(units)
    if units.ndim != 1 or not units.size or not np.issubdtype(units.dtype, np.integer):
        raise ValueError(
            f"units has shape {units.shape} and type {units.dtype}, expected [N] integers from "
            "assign, N >= 1"
        )
    if units.min() < 0:
        raise ValueError(f"units holds {units.min()}, expected numbers from 0 up, as from assign")
    return units
