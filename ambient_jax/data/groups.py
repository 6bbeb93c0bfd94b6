"""Groups of steps, which a mixing law draws from.

A source is one group. A bounds file gives each step its own (sigma_min, sigma_max): the steps of
each pair are then a group, with their share of the source's weight.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ambient_jax import mixing
from ambient_jax.data import bounds

MAX_GROUPS = 1024  # a batch has rows x groups numbers P(source | sigma)


class Groups(NamedTuple):
    """G groups of K sources.

    Attributes:
      sources: weights, bounds and roles of the groups, which are the sources of a law.
      owner, within: [G] int32, the source of each group, and its number inside that source.
      of_step: by source, [N] int32, ``within`` of each step in the order of the data; None if the
        source is one group.
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
    """Returns the groups of K sources, see ``mixture.Mixture``; ``files`` are bounds by source.

    Raises:
      ValueError: a bounds file was made on other data, or has too many different bounds.
    """
    rows: list[list[Any]] = []
    of_step = []
    arrays = [np.asarray(column) for column in sources]
    for k, name in enumerate(names):
        weight, low, high, clean = (column[k] for column in arrays)
        pairs, group = np.array([[low, high]], np.float32), None
        shares = np.array([weight])
        if name in files:
            pairs, group = _pairs(name, datasets[name], statistics[name].lengths, files[name])
            shares = weight * np.bincount(group, minlength=len(pairs)) / len(group)
        count = len(pairs)
        numbers = np.full(count, k, np.int32), np.arange(count, dtype=np.int32)
        rows.append([shares, *pairs.T, np.full(count, clean), *numbers])
        of_step.append(group)
    columns: list[Any] = [np.concatenate(column) for column in zip(*rows, strict=True)]
    *fields, owner, within = columns
    cut = mixing.Sources(fields[0].astype(np.float32), *fields[1:])
    return Groups(cut, owner, within, tuple(of_step))


def _pairs(name, dataset, lengths, file):
    """Returns the distinct pairs of bounds [P, 2] of a source, and the pair of each step."""
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
