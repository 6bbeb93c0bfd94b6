"""How the actions of a data set move: jerk, and the share of steps at which nothing changes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

STILL = 1e-3  # of a dimension's range: a smaller change is none
_KEPT = 1 << 22  # numbers of the differences that are kept


@dataclasses.dataclass(frozen=True)
class Motion:
    """Attributes of the actions of all episodes.

    Attributes:
      jerk: mean squared jerk: the squared norm of third differences over (1 / hz)^3, averaged over
        each episode and then over episodes; where the rate is unknown, per step. NaN if no episode
        has four steps.
      median_jerk: the same, of the middle episode.
      repeated: share of steps whose action equals the one before.
      idle: share of steps whose action differs from the one before by less than ``STILL`` of its
        range in every dimension.
      sampled: share of the steps that ``idle`` looked at.
    """

    jerk: float
    median_jerk: float
    repeated: float
    idle: float
    sampled: float


class MotionMeter:
    """Measures actions [T, D] episode by episode.

    Differences are kept for ``idle``, as ranges are known at the end only: all of them up to 32
    MiB, then every second one, every fourth, and so on.
    """

    def __init__(self, hz: float | None):
        self._hz = hz or 1.0
        self._jerks: list[float] = []
        self._equal = self._count = 0
        self._kept: list[np.ndarray] = []
        self._rows, self._stride = 0, 1

    def add(self, actions: np.ndarray) -> None:
        """Takes one episode; steps whose numbers are not finite count as no change."""
        differences = np.abs(np.diff(actions, axis=0))
        self._equal += int((differences == 0).all(axis=1).sum())
        jerk = np.nan
        if len(actions) > 3 and np.isfinite(actions).all():
            third = (np.diff(actions, 3, axis=0) ** 2).sum(axis=1)
            jerk = float(third.mean() * self._hz**6)
        self._jerks.append(jerk)
        first = -self._count % self._stride
        # Copied, as a slice would keep all of the array.
        self._keep(differences[first :: self._stride].copy())
        self._count += len(differences)

    def _keep(self, rows):
        self._kept.append(rows)
        self._rows += len(rows)
        if self._rows * rows.shape[1] > _KEPT:
            kept = np.concatenate(self._kept)[::2].copy()
            self._kept, self._rows = [kept], len(kept)
            self._stride *= 2

    def result(self, width: np.ndarray) -> Motion | None:
        """The figures, for actions that range over ``width`` [D]; None without two steps."""
        if not self._count:
            return None
        rows = np.concatenate(self._kept)
        jerks = [j for j in self._jerks if not math.isnan(j)]
        return Motion(
            jerk=float(np.mean(jerks)) if jerks else math.nan,
            median_jerk=float(np.median(jerks)) if jerks else math.nan,
            repeated=self._equal / self._count,
            idle=float((rows <= STILL * width).all(axis=1).mean()),
            sampled=len(rows) / self._count,
        )


def repeats(fields: list[np.ndarray]) -> np.ndarray:
    """Whether all fields [T, ...] of a step equal those of the step before, [T - 1] bool."""
    same = [(f[1:] == f[:-1]).all(axis=tuple(range(1, f.ndim))) for f in fields]
    return np.logical_and.reduce(same)


def repeated(what: str, unit: str, same: np.ndarray) -> str:
    """A line about steps that equal the one before, [T - 1] bool with at least one True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    first, last = int(starts[longest]) + 1, int(starts[longest] + lengths[longest])
    where = (
        f"the first at step {first}" if first == last else f"longest run: steps {first} to {last}"
    )
    return f"{what}: {int(same.sum())} of {len(same) + 1} {unit} equal the one before ({where})"
