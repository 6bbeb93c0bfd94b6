"""Units: what a mixing law draws from. A source is one unit, or one for each pair of bounds.

A bounds file gives every step of a source its own (sigma_min, sigma_max). Steps of one pair are
alike to a law, so they are a unit, whose weight is their share of the source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ambient_jax import mixing
from ambient_jax.data import bounds

# P(source | sigma) is worked out for every row of a batch: that is rows x units numbers.
MAX_UNITS = 1024


class Measured(Protocol):
    """What ``mixture.Mixture`` offers here."""

    names: tuple[str, ...]
    datasets: Mapping[str, Any]
    statistics: Mapping[str, Any]
    sources: mixing.Sources
    bounds: Mapping[str, bounds.BoundsTable]


class Units(NamedTuple):
    """U units of K sources.

    Attributes:
      sources: weights, bounds and roles; to a law each unit is a source.
      owner: [U] int32, the source of each.
      within: [U] int32, its number inside its source.
      of_step: by source, [N] int32 number inside the source of each of its steps, in the order of
        the data; None where the source is one unit.
    """

    sources: mixing.Sources
    owner: np.ndarray
    within: np.ndarray
    of_step: tuple[np.ndarray | None, ...]


def cut(mixture: Measured) -> Units:
    """The units of sources.

    Raises:
      ValueError: a bounds file of other data, or with too many different bounds.
    """
    columns, owner, of_step = [], [], []
    given = [np.asarray(column) for column in mixture.sources]
    for k, name in enumerate(mixture.names):
        weight, low, high, clean = (column[k] for column in given)
        pairs, unit = np.array([[low, high]], np.float32), None
        shares = np.array([weight])
        if name in mixture.bounds:
            pairs, unit = _pairs(mixture, name)
            counts = np.bincount(unit, minlength=len(pairs))
            shares = weight * counts / len(unit)
        columns.append([shares, *pairs.T, np.full(len(pairs), clean)])
        owner.append(np.full(len(pairs), k, np.int32))
        of_step.append(unit)
    sources = mixing.Sources(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    return Units(
        sources._replace(weight=sources.weight.astype(np.float32)),
        np.concatenate(owner),
        np.concatenate([np.arange(len(o), dtype=np.int32) for o in owner]),
        tuple(of_step),
    )


def _pairs(mixture, name):
    """The different pairs of bounds [P, 2] of a source, and which of them each step has."""
    dataset, lengths = mixture.datasets[name], mixture.statistics[name].lengths
    episode = np.repeat(dataset.episode_ids, lengths)
    step = np.arange(len(episode)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found = bounds.lookup(mixture.bounds[name], name, episode, step, dataset.fingerprint)
    pairs, unit = np.unique(np.stack(found, 1), axis=0, return_inverse=True)
    if len(pairs) > MAX_UNITS:
        raise ValueError(
            f"the bounds file of source {name!r} has {len(pairs)} different pairs of bounds, "
            f"expected at most {MAX_UNITS}: round them to a grid (thresholds.round_up)"
        )
    return pairs, unit.ravel().astype(np.int32)
