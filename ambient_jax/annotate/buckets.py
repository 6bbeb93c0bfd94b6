"""Groups datapoints into units that share one bound: data set, episode, bucket or datapoint.

A classifier's output on one noised chunk depends on where that chunk lies; it does not show whether
the two distributions differ there. Bounds per datapoint therefore *select*: at low noise levels
they keep the corrupt samples that look most clean, and the trained law drifts towards those
(``analysis.assignment`` has the smallest example). A bound for the whole set, or for random
buckets, treats all samples alike.

==============  ==================================  =============================================
granularity     units                               bias and noise
==============  ==================================  =============================================
dataset         one                                 no bias; good samples wait for bad ones
random          buckets of datapoints               no bias; classifier noise falls as 1/sqrt(size)
random_episode  buckets of whole episodes           as random; noise falls with the number of
                                                    episodes, as the steps of one are correlated
episode         one per episode                     favours episodes that look clean
ordered         consecutive in order of score       averages noise, but selects by score, and in
                                                    the example above drifts as datapoint does
datapoint       one per datapoint                   least waste, most bias, most noise
rejection       one per datapoint, with a lot each  the admitted data have the law min(p, q): see
                                                    below
==============  ==================================  =============================================

Rejection is the granularity "datapoint" with a random threshold for each (``lots``,
``thresholds.rejection_tau``): at each level the share min(1, p/q) of the corrupt samples is used,
not all or none. What is used has a density proportional to min(p, q). That removes what clean data
lack and does not supply what corrupt data lack, so its bias is at most the total variation of p and
q at that level, and 0 only where p/q is one constant wherever p has mass and is at least 1.

Units belong to one source, as two sources may use the same episode ids.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks

GRANULARITIES = (
    *("dataset", "episode", "datapoint", "random", "random_episode", "ordered", "rejection"),
)


def assign(
    granularity: str, episode, *, size: int | None = None, seed: int = 0, scores=None
) -> np.ndarray:
    """Returns the unit of every datapoint of one source.

    There are U = max(1, N // size) buckets, so a bucket holds ``size`` datapoints or more. Buckets
    of "random" and "ordered" differ by at most one datapoint. Buckets of "random_episode" differ
    from N / U by at most the longest episode; an episode that fills several buckets leaves fewer of
    them. "ordered" breaks ties at random.

    Args:
      granularity: see the module.
      episode: [N] integer id of the episode of each datapoint.
      size: datapoints per bucket, for "random", "random_episode" and "ordered".
      seed: seed of the shuffle.
      scores: [N] for "ordered", such as the sigma_min of each datapoint.

    Returns:
      [N] int64 in 0..U-1; no unit is empty. "episode" numbers them in order of the id, "ordered"
      in order of score.

    Raises:
      ValueError: unknown granularity, no datapoints, size missing or below 1, scores missing, of
        another length or NaN.
    """
    _checks.one_of("granularity", granularity, GRANULARITIES)
    episode = _integers("episode", episode, "ids, one per datapoint")
    count = episode.size
    if granularity == "dataset":
        return np.zeros(count, np.int64)
    if granularity in ("datapoint", "rejection"):
        return np.arange(count)
    if granularity == "episode":
        return np.unique(episode, return_inverse=True)[1]
    if size is None:
        raise ValueError(
            f"granularity is {granularity!r}, which needs size: datapoints per bucket, such as 1000"
        )
    _checks.number("size", size, 1, whole=True)
    number, rng = max(1, count // size), np.random.default_rng(seed)
    if granularity == "random_episode":
        return _whole_episodes(episode, number, rng)
    order = rng.permutation(count)
    if granularity == "ordered":
        scores = np.asarray(() if scores is None else scores)
        if scores.shape != (count,) or np.isnan(scores).any():
            raise ValueError(
                f"scores has shape {scores.shape} and {np.isnan(scores).sum()} NaN, expected "
                f"({count},) without NaN: 'ordered' needs one per datapoint, such as sigma_min"
            )
        order = order[np.argsort(scores[order], kind="stable")]
    unit = np.empty(count, np.int64)
    unit[order] = np.arange(count) * number // count
    return unit


def lots(source: str, episode, step, seed: int = 0) -> np.ndarray:
    """Returns a lot u in (0, 1] for every datapoint, uniform and independent, [N] float32.

    It is a function of the datapoint's id (the name of its source, its episode and step, [N]
    integers each) and the seed: neither other datapoints nor their order change it.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(source.encode()))

    @jax.vmap
    def draw(episode, step):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, episode), step))

    numbers = (jnp.asarray(np.asarray(v, np.int64).astype(np.uint32)) for v in (episode, step))
    return 1 - np.asarray(jax.jit(draw)(*numbers), np.float32)


def average(values, units) -> np.ndarray:
    """Returns the mean of values [N, ...] over each unit, [U, ...] float64. Raises ValueError if
    there are not as many values as units, or a unit number is negative or skipped."""
    values, units = np.asarray(values), _integers("units", units, "from assign")
    _check_rows(values, units.size, "datapoint")
    sizes = np.bincount(units)
    if not sizes.all():
        raise ValueError(
            f"unit {np.argmin(sizes != 0)} of {sizes.size} has no datapoint: number units "
            "without gaps, as np.unique(units, return_inverse=True)[1] does"
        )
    columns = values.reshape(units.size, -1).T
    mean = np.array([np.bincount(units, column) / sizes for column in columns])
    return mean.T.reshape(sizes.size, *values.shape[1:])


def spread(values, units) -> np.ndarray:
    """Returns the value of each datapoint's unit: values [U, ...], units [N] -> [N, ...]."""
    values, units = np.asarray(values), _integers("units", units, "from assign")
    _check_rows(values, units.max() + 1, "unit")
    return values[units]


def _whole_episodes(episode, number, rng):
    index, lengths = np.unique(episode, return_inverse=True, return_counts=True)[1:]
    order = rng.permutation(lengths.size)
    ends = np.cumsum(lengths[order])
    # Twice the midpoint, so that it is an integer.
    bucket = (2 * ends - lengths[order]) * number // (2 * episode.size)
    bucket_of_episode = np.empty(lengths.size, np.int64)
    # An episode longer than a bucket can leave its neighbours without a midpoint: close the gaps.
    bucket_of_episode[order] = np.unique(bucket, return_inverse=True)[1]
    return bucket_of_episode[index]


def _check_rows(values, count, row):
    if not values.ndim or len(values) != count:
        raise ValueError(
            f"values has shape {values.shape}, expected [{count}, ...]: one row per {row}"
        )


def _integers(name, values, content):
    values = np.asarray(values)
    if values.ndim != 1 or not values.size or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"{name} has shape {values.shape} and type {values.dtype}, expected [N] integers "
            f"{content}, N >= 1"
        )
    if name == "units" and values.min() < 0:
        raise ValueError(f"units holds {values.min()}, expected numbers from 0 up, as from assign")
    return values
