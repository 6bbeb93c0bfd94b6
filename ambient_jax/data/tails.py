"""A field's outermost values with their places, and a sample of its rows: what moments lack.

Both are kept in one pass and merged without loss: neither the order of the episodes nor how they
were dealt changes them.

An outlier is a value farther than ``REACH`` times the range of the rest away from the rest, which
is all but the few outermost values on either side (as many as ``_SHARE`` of the rows, at most
``_ENDS`` - 1). It is a lone glitch unless another such value is near to it (within a tenth of its
distance, as a repeated motion or a code would be) or in the step beside it (as a motion would be),
or the dimension has more than two outliers.
Where the rest is constant, as of a gripper, nothing is one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

REACH = 10.0
_ENDS, _SHARE = 5, 0.02
_GLITCHES = 2  # of a dimension; more are what it does now and then
_LEAST = 1e-4  # no rest is taken to be narrower than that
# Rows of the sample. Quantiles of more rows have an error in rank of sqrt(q (1 - q) / SAMPLE), one
# standard deviation: for q = 1 % it is 0.16 %.
SAMPLE = 4096


@dataclasses.dataclass(frozen=True)
class Tails:
    """Of rows [N, d] of a field.

    Attributes:
      ends: [2, n, d], per dimension the n least values and the n largest ones, outermost first.
      at: [2, n, d, 2], episode and step of each.
      keys: [k] uint64, hashes of (episode, step): the sample is the rows of the least ones.
      rows: [k, d], of the sample; all rows where there are at most ``SAMPLE``.
    """

    ends: np.ndarray
    at: np.ndarray
    keys: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, episode: int = 0) -> Tails:
        """Of the values [N, d] of one episode."""
        step = np.arange(len(values))
        order = np.argsort(values, axis=0, kind="stable")
        outer = np.stack([order[:_ENDS], order[::-1][:_ENDS]])
        ends = np.take_along_axis(values[None], outer, axis=1)
        at = np.stack([np.full_like(outer, episode), outer], axis=-1)
        return cls(ends, at, *_least(_hash(episode, step), values))

    def merge(self, other: Tails) -> Tails:
        """Of the rows of both."""
        ends = np.concatenate([self.ends, other.ends], axis=1)
        at = np.concatenate([self.at, other.at], axis=1)
        ranked = ends * np.array([1, -1])[:, None, None]
        outer = np.argsort(ranked, axis=1, kind="stable")[:, :_ENDS]
        ends, at = np.take_along_axis(ends, outer, 1), np.take_along_axis(at, outer[..., None], 1)
        new = slice(None)
        if len(self.keys) == SAMPLE:  # sorted: most rows of a large source end here
            new = other.keys < self.keys[-1]
        keys = np.concatenate([self.keys, other.keys[new]])
        if len(keys) == len(self.keys):
            return Tails(ends, at, self.keys, self.rows)
        return Tails(ends, at, *_least(keys, np.concatenate([self.rows, other.rows[new]])))

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name).tolist() for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Tails:
        types = {"ends": np.float64, "at": np.int64, "keys": np.uint64, "rows": np.float64}
        return cls(**{name: np.asarray(fields[name], type_) for name, type_ in types.items()})


def _hash(episode, step):
    """SplitMix64 of (episode, step): uniform, the same on every machine."""
    x = (np.uint64(episode) << np.uint64(32)) + step.astype(np.uint64)
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _least(keys, rows):
    order = np.argsort(keys, kind="stable")[:SAMPLE]
    return keys[order], rows[order]


def quantiles(parts: list[tuple[np.ndarray, float]], levels: tuple[float, ...]) -> np.ndarray:
    """Quantiles [levels, d] of weighted samples: (rows [k, d], weight of a row) of each source.

    Linear between rows, as NumPy's where all weigh the same.
    """
    rows = np.concatenate([r for r, _ in parts])
    weight = np.concatenate([np.full(len(r), w) for r, w in parts])
    out = np.empty((len(levels), rows.shape[1]))
    for i, column in enumerate(rows.T):
        order = np.argsort(column, kind="stable")
        w = weight[order]
        place = np.cumsum(w) - w / 2
        place = (place - place[0]) / max(place[-1] - place[0], np.finfo(float).tiny)
        out[:, i] = np.interp(levels, place, column[order])
    return out


class Outlier(NamedTuple):
    """A value [dim] at an episode's step, the range of the rest, whether it is a lone glitch."""

    dim: int
    value: float
    episode: int
    step: int
    rest: tuple[float, float]
    lone: bool


def outliers(moments: Any) -> list[Outlier]:
    """Outliers of a field's rows (``statistics.Moments``), see the module."""
    tails: Tails | None = moments.tails
    found: list[Outlier] = []
    count = min(_ENDS - 1, int(moments.count * _SHARE))
    if tails is None or not count or tails.ends.shape[1] <= count:
        return found
    rest = tails.ends[:, count]
    width = rest[1] - rest[0]
    varies = width > moments.rounding * np.abs(rest).max(axis=0)
    reach = REACH * np.maximum(width, _LEAST)
    distance = np.array([-1, 1])[:, None, None] * (tails.ends[:, :count] - rest[:, None])
    beyond = varies & (distance > reach)
    for side, dim in np.argwhere(beyond.any(axis=1)):
        far, few = np.flatnonzero(beyond[side, :, dim]), beyond[..., dim].sum() <= _GLITCHES
        value, at = tails.ends[side, far, dim], tails.at[side, far, dim]
        near = np.abs(value[:, None] - value) <= distance[side, far, dim][:, None] / 10
        near |= (at[:, None, 0] == at[:, 0]) & (np.abs(at[:, None, 1] - at[:, 1]) <= 1)
        for i in range(len(far)):
            of_rest = float(rest[0, dim]), float(rest[1, dim])
            place = int(dim), float(value[i]), int(at[i, 0]), int(at[i, 1])
            found.append(Outlier(*place, of_rest, bool(few and near[i].sum() == 1)))
    return found


def without(moments: Any, left_out: list[Outlier]) -> Any:
    """The moments without some outliers.

    Subtracting a huge value's square would leave nothing but rounding: mean and deviation of these
    dimensions are those of the sample.
    """
    fields = {n: getattr(moments, n).copy() for n in ("mean", "m2", "min", "max")}
    for dim in {each.dim for each in left_out}:
        values = [each.value for each in left_out if each.dim == dim]
        low, high = (e[~np.isin(e, values)][0] for e in moments.tails.ends[:, :, dim])
        column = moments.tails.rows[:, dim]
        column = column[~np.isin(column, values)]
        fields["min"][dim], fields["max"][dim] = low, high
        fields["mean"][dim], fields["m2"][dim] = column.mean(), column.var() * moments.count
    return dataclasses.replace(moments, **fields)
