"""Splits a mixture into pairs: a corrupt source and all clean ones, on their shared dimensions.

sigma_min of a source depends only on that source and the clean ones, so K corrupt sources make K
pairs, each with as many clean rows as corrupt ones.

A pair is compared on the dimensions of the action that its source and every clean source have. All
other dimensions are set to 0 on both sides, after the noise. Where one source has joints in the
dimensions of another's positions, they are compared as training sees them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import mixing, schedules
from ambient_jax.data import device

Array = jax.Array
_BALANCED = mixing.Reweighted(0.5)
_STREAM = 0x7061  # random stream of the pairs, distinct from those of data and noise


class Pairs(NamedTuple):
    """K pairs of S sources."""

    of_source: Array | np.ndarray  # [S] int32, the pair of each corrupt source; 0 for clean ones
    # [K, D] float32, 1 where the source of the pair and all clean ones have the dimension.
    mask: Array | np.ndarray
    # [K, orders] mean squares of differences, see ``ChunkClassifier``; ones until ``measured``.
    moments: Array | np.ndarray
    head_start: Any = None  # ``gaussian.HeadStart`` of one member, whose logit is added


def make(data: device.DeviceData, names: Sequence[str] = ()) -> Pairs:
    """Returns the pairs of all corrupt sources, in order; messages use ``names`` of the sources.

    Raises ValueError if a corrupt source shares no dimension with the clean ones.
    """
    clean = np.asarray(data.sources.clean)
    width = data.steps["action"].shape[1]
    dims = np.asarray(data.constants.get("dims", np.ones((len(clean), width), bool)), bool)
    shared = dims[~clean] & dims[clean].all(0)
    if not shared.any(1).all():
        alone = [names[k] if names else str(k) for k in np.flatnonzero(~clean)[~shared.any(1)]]
        raise ValueError(
            f"source {', '.join(alone)} shares no dimension of the action with all the clean "
            "sources, expected at least one: leave it out, or bound it by hand (sigma_min)"
        )
    of_source = np.where(clean, 0, np.cumsum(~clean) - 1).astype(np.int32)
    return Pairs(of_source, shared.astype(np.float32), np.ones((len(shared), 1), np.float32))


def deal(
    data: device.DeviceData, folds: int, seed: int = 0, names: Sequence[str] = ()
) -> np.ndarray:
    """Returns the fold of every step, [N] int32; each source's episodes are dealt at random.

    Raises ValueError if the clean sources, or any corrupt one, have fewer episodes than folds.
    """
    rng = np.random.default_rng(seed)
    fold = np.empty(len(data.start), np.int32)
    clean = np.asarray(data.sources.clean)
    counts = np.zeros(len(clean), int)
    for k, (offset, size) in enumerate(zip(data.offset, data.size, strict=True)):
        starts, index = np.unique(data.start[offset : offset + size], return_inverse=True)
        fold[offset : offset + size] = rng.permutation(len(starts))[index] % folds
        counts[k] = len(starts)
    # Clean sources are pooled; each corrupt one is compared on its own.
    sides = {"clean sources have": counts[clean].sum()}
    corrupt = np.flatnonzero(~clean).tolist()
    if len(corrupt) < 2:
        sides["corrupt sources have"] = counts[corrupt].sum()
    else:
        sides |= {f"corrupt source {names[k] if names else k} has": counts[k] for k in corrupt}
    for side, count in sides.items():
        if count < folds:
            raise ValueError(
                f"the {side} {count} episodes, expected at least {folds}, one for each fold: a "
                "classifier needs both roles in training and held out"
            )
    return fold


def split(data: device.DeviceData, fold: np.ndarray, folds: int) -> list[dict[str, Any]]:
    """Returns [training, held out] parts: fields of ``DeviceData`` with a leading axis of folds.

    Every corrupt source gets the same weight; clean sources keep theirs.
    """
    parts = [_split(data, fold == k) for k in range(folds)]
    order = np.stack([p[0].pop("order") for p in parts])  # large, so both parts share it
    stacked = [jax.tree.map(lambda *x: np.stack(x), *(p[i] for p in parts)) for i in (0, 1)]
    return [part | {"order": order} for part in stacked]


def _split(data, out):
    """Returns the parts where ``out`` is False and where it is True; the first has the order."""
    order, sizes = [], []
    for offset, size in zip(data.offset, data.size, strict=True):
        rows = np.arange(offset, offset + size, dtype=np.int32)
        held_out = out[offset : offset + size]
        order += [rows[~held_out], rows[held_out]]
        sizes.append([(~held_out).sum(), held_out.sum()])
    sizes = np.array(sizes, np.int32).reshape(-1, 2)
    order = np.concatenate(order)
    first = (np.cumsum(data.size) - data.size).astype(np.int32)
    clean = np.asarray(data.sources.clean)
    per_step = np.asarray(data.sources.weight) / np.maximum(data.size, 1)
    parts = []
    for i, offset in enumerate((first, first + sizes[:, 0])):
        weight = np.where(clean, per_step * sizes[:, i], 1.0).astype(np.float32)
        sources = jax.tree.map(np.asarray, data.sources._replace(weight=weight))
        # Sources without a step in this part have weight 0; index() still needs a size.
        size = np.maximum(sizes[:, i], 1)
        parts.append({"offset": offset, "size": size, "sources": sources})
    parts[0]["order"] = order
    return parts


def evenly(offset: Any, size: Any, weight: Any, count: int) -> np.ndarray:
    """Returns ``count`` places of sources [S] with such offsets, sizes and weights, in order and
    evenly spread: each source has its weight's share, and its places are equally far apart."""
    ends = np.cumsum(weight, dtype=np.float64) / np.sum(weight, dtype=np.float64)
    at = (np.arange(count) + 0.5) / count
    of = np.minimum(np.searchsorted(ends, at, side="right"), len(ends) - 1)
    share = (at - (ends - np.diff(ends, prepend=0))[of]) / np.diff(ends, prepend=0)[of]
    size = np.asarray(size)[of]
    return np.asarray(offset)[of] + np.minimum((share * size).astype(int), size - 1)


def draw(
    data: device.DeviceData,
    part: dict[str, Any],
    pairs: Pairs,
    key: Array,
    step: Array,
    rows: Array,
    *,
    schedule: schedules.Schedule,
    history: int,
    horizon: int,
) -> dict[str, Any]:
    """Draws a balanced batch of one fold's part: half of the rows are clean in expectation.

    Adds ``clean`` [B] and ``pair`` [B] to the batch of ``device.sample_batch``. A corrupt row has
    the pair of its source, a clean row a random pair.
    """
    data = data._replace(**part)
    how: Any = dict(law=_BALANCED, schedule=schedule, history=history, horizon=horizon)
    batch = device.sample_batch(data, key, step, rows, padding="hold", **how)
    clean = part["sources"].clean[batch["source"]]
    keys = jax.random.fold_in(jax.random.fold_in(key, _STREAM), step)
    any_pair = jax.vmap(
        lambda row: jax.random.randint(jax.random.fold_in(keys, row), (), 0, len(pairs.mask))
    )(rows)
    pair = jnp.where(clean, any_pair, pairs.of_source[batch["source"]])
    return batch | {"clean": clean, "pair": pair}
