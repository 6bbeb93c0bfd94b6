"""Moments of a field's rows, their outermost values and a sample: merged, they are those of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

ENDS = 5  # outermost values kept on each side
# Rows of the sample. Quantiles of more rows have an error in rank of sqrt(q (1 - q) / SAMPLE), one
# standard deviation: for q = 1 % it is 0.16 %.
SAMPLE = 4096


@dataclasses.dataclass(frozen=True)
class Tails:
    """A field's outermost values and a sample; the order of the episodes does not matter.

    Attributes:
      ends: [2, n, d], per dimension the n least values and the n largest ones, outermost first.
      at: [2, n, d, 2], episode and step of each.
      keys: [k] uint64, hashes of (episode, step); the sample has the rows with the least hashes.
      rows: [k, d], the sample; all rows if there are at most ``SAMPLE``.
    """

    ends: np.ndarray
    at: np.ndarray
    keys: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, episode: int = 0) -> Tails:
        """Returns the tails of one episode's values [N, d]."""
        step = np.arange(len(values))
        order = np.argsort(values, axis=0, kind="stable")
        outer = np.stack([order[:ENDS], order[::-1][:ENDS]])
        ends = np.take_along_axis(values[None], outer, axis=1)
        at = np.stack([np.full_like(outer, episode), outer], axis=-1)
        return cls(ends, at, *_least(_hash(episode, step), values))

    def merge(self, other: Tails) -> Tails:
        """Returns the tails of the rows of both."""
        ends = np.concatenate([self.ends, other.ends], axis=1)
        at = np.concatenate([self.at, other.at], axis=1)
        ranked = ends * np.array([1, -1])[:, None, None]
        outer = np.argsort(ranked, axis=1, kind="stable")[:, :ENDS]
        ends, at = np.take_along_axis(ends, outer, 1), np.take_along_axis(at, outer[..., None], 1)
        new = np.ones(len(other.keys), bool)
        if len(self.keys) == SAMPLE:  # sorted: most rows of a large source end here
            new = other.keys < self.keys[-1]
        if not new.any():
            return Tails(ends, at, self.keys, self.rows)
        keys = np.concatenate([self.keys, other.keys[new]])
        return Tails(ends, at, *_least(keys, np.concatenate([self.rows, other.rows[new]])))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Tails:
        types = {"ends": np.float64, "at": np.int64, "keys": np.uint64, "rows": np.float64}
        return cls(**{name: np.asarray(fields[name], type_) for name, type_ in types.items()})


def _hash(episode, step):
    """Returns SplitMix64 of (episode, step): uniform, the same on every machine."""
    x = (np.uint64(episode) << np.uint64(32)) + step.astype(np.uint64)
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _least(keys, rows):
    order = np.argsort(keys, kind="stable")[:SAMPLE]
    return keys[order], rows[order]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of a field's rows: their count, and arrays [d] of float64 by dimension."""

    count: int
    mean: np.ndarray
    m2: np.ndarray  # sum of squared deviations from the mean
    min: np.ndarray
    max: np.ndarray
    # Share of the magnitude: a smaller range is rounding of float32 or float64.
    rounding: np.ndarray | float = 1e-6
    tails: Tails | None = None

    @classmethod
    def of(cls, values: np.ndarray, episode: int = 0) -> Moments:
        """Returns the moments of an episode's values [N, d], N >= 1."""
        values = np.asarray(values, np.float64)
        mean = values.mean(axis=0)
        m2 = ((values - mean) ** 2).sum(axis=0)
        with np.errstate(over="ignore"):
            rounded = (values == values.astype(np.float32)).all(axis=0)
        return cls(
            *(len(values), mean, m2, values.min(axis=0), values.max(axis=0)),
            *(np.where(rounded, 1e-6, 1e-13), Tails.of(values, episode)),
        )

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.m2 / self.count)

    def merge(self, other: Moments) -> Moments:
        """Returns the moments of both sets of rows without cancellation (Chan et al. 1979)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        tails = self.tails.merge(other.tails) if self.tails and other.tails else None
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
            np.minimum(self.min, other.min),
            np.maximum(self.max, other.max),
            np.minimum(self.rounding, other.rounding),
            tails,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Moments:
        """Makes moments from ``dataclasses.asdict``, whose arrays may be lists."""
        names = ("mean", "m2", "min", "max", "rounding")
        arrays = {n: np.asarray(fields[n], np.float64) for n in names}
        if len({a.shape for a in arrays.values()}) != 1:
            raise ValueError("arrays of differing shapes")
        stored = fields["tails"] and Tails.from_dict(fields["tails"])
        return cls(int(fields["count"]), **arrays, tails=stored)
