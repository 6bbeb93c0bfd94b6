"""Groups: what a mixing law draws from. A source is one group, or one for each pair of bounds.

A bounds file gives every step of a source its own (sigma_min, sigma_max). Steps of one pair are
alike to a law, so they are a group, whose weight is their share of the source's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ambient_jax import mixing
from ambient_jax.data import bounds

# P(source | sigma) is worked out for every row of a batch: that is rows x groups numbers.
MAX_GROUPS = 1024


class Groups(NamedTuple):
    """G groups of K sources.

    Attributes:
      sources: weights, bounds and roles; to a law each group is a source.
      owner: [G] int32, the source of each.
      within: [G] int32, its number inside its source.
      of_step: by source, [N] int32 number inside the source of each of its steps, in the order of
        the data; None where the source is one group.
    """

    sources: mixing.Sources
    owner: np.ndarray
    within: np.ndarray
    of_step: tuple[np.ndarray | None, ...]


def cut(
    names: Sequence[str],
    sources: mixing.Sources,
    datasets: Mapping[str, Any],
    statistics: Mapping[str, Any],
    files: Mapping[str, bounds.BoundsTable],
) -> Groups:
    """The groups of sources.

    Args:
      names, sources, datasets, statistics: of the K sources, see ``mixture.Mixture``.
      files: bounds of sources whose steps have their own, by name.

    Raises:
      ValueError: a bounds file of other data, or with too many different bounds.
    """
    columns: list[list[Any]] = []
    owner, of_step = [], []
    given = [np.asarray(column) for column in sources]
    for k, name in enumerate(names):
        weight, low, high, clean = (column[k] for column in given)
        pairs, group = np.array([[low, high]], np.float32), None
        shares = np.array([weight])
        if name in files:
            pairs, group = _pairs(name, datasets[name], statistics[name].lengths, files[name])
            counts = np.bincount(group, minlength=len(pairs))
            shares = weight * counts / len(group)
        columns.append([shares, *pairs.T, np.full(len(pairs), clean)])
        owner.append(np.full(len(pairs), k, np.int32))
        of_step.append(group)
    joined: list[Any] = [np.concatenate(column) for column in zip(*columns, strict=True)]
    cut = mixing.Sources(*joined)
    return Groups(
        cut._replace(weight=cut.weight.astype(np.float32)),
        np.concatenate(owner),
        np.concatenate([np.arange(len(o), dtype=np.int32) for o in owner]),
        tuple(of_step),
    )


def _pairs(name, dataset, lengths, file):
    """The different pairs of bounds [P, 2] of a source, and which of them each step has."""
    episode = np.repeat(dataset.episode_ids, lengths)
    step = np.arange(len(episode)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = bounds.lookup(file, name, episode, step, dataset.fingerprint)
    pairs, group = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)
    if len(pairs) > MAX_GROUPS:
        raise ValueError(
            f"the bounds file of source {name!r} has {len(pairs)} different pairs of bounds, "
            f"expected at most {MAX_GROUPS}: round them to a grid (thresholds.round_up)"
        )
    return pairs, group.ravel().astype(np.int32)
