"""The results of a report about a pile, as one value that page, tables and files are made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ambient_jax.annotate.candidates import Candidate, Measured
from ambient_jax.annotate.episodes import Scores, rank_correlation, without_length
from ambient_jax.annotate.worth import Curve, Gain, Interval, gain

ALPHA = 0.5  # share of clean data of the candidates
CLEAN = Candidate(1.0)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Where a data set trains: above ``sigma_min`` and below ``sigma_max``; 1 and 0 for nowhere,
    0 and 1 for everywhere. ``alpha`` is the share of clean data there."""

    sigma_min: float
    sigma_max: float
    alpha: float

    @property
    def nowhere(self) -> bool:
        return self.sigma_min >= 1 and self.sigma_max <= 0

    def admits(self, levels: np.ndarray) -> np.ndarray:
        """Returns [L] bool, whether the data train at the levels."""
        return (levels > self.sigma_min) | (levels < self.sigma_max)


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """What was found about a data set of the pile.

    Attributes:
      name, directory, format: of the data set.
      gain: by level, see ``worth.Gain``.
      choice: where it trains.
      worth: clean episodes that are worth as much; None without a learning curve.
      scores: of its episodes.
      correlations: by score, the rank correlation with the length, of the score and of the score
        without the length.
    """

    name: str
    directory: str
    format: str
    gain: Gain
    choice: Choice
    worth: Interval | None
    scores: Scores
    correlations: dict[str, tuple[Interval, Interval]]


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """All results.

    Attributes:
      clean: clean data sets, {name: (folder, episodes, steps)}.
      findings: of each data set of the pile.
      everything: gain of the whole pile; None if it is one data set.
      curve: learning curve of clean data; None if there are too few episodes.
      settings: of the run, by name.
    """

    clean: dict[str, tuple[str, int, int]]
    findings: tuple[Finding, ...]
    everything: Gain | None
    curve: Curve | None
    settings: dict[str, Any]


def decide(measured: Measured, name: str, times: np.ndarray) -> Choice:
    """Returns where a data set trains: where the mean log ratio of the losses is surely below 0.

    The levels above a bound are taken as a whole, from the top down: the bound is the one with the
    lowest sum of log ratios, if the interval of their mean lies below 0.
    """
    gained = gain(measured, Candidate(ALPHA, corrupt=(name,)), CLEAN, times)
    levels, draws = gained.levels, gained.draws
    low, high = 1.0, 0.0
    sums = np.cumsum(draws[:, ::-1], axis=1)[:, ::-1]  # of each level and those above
    first = int(np.argmin(sums[0]))
    if _end(sums[:, first]) < 0:
        low = 0.0 if first == 0 else _between(levels, first)
    if 0 < first:
        below = np.cumsum(draws[:, :first], axis=1)
        last = int(np.argmin(below[0]))
        if _end(below[:, last]) < 0:
            high = _between(levels, last + 1)
    return Choice(0.0, 1.0, ALPHA) if low == 0 else Choice(low, min(high, low), ALPHA)


def _end(draws):
    return np.percentile(draws[1:], 97.5)


def _between(levels, index):
    """The bound between a level and the one below it, at the middle of log(sigma / alpha)."""
    s = levels / np.sqrt(1 - levels**2)
    middle = np.sqrt(s[index] * s[min(index, len(s)) - 1])
    return float(round(middle / np.hypot(1, middle), 4))


def find(
    measured: Measured,
    curve: Curve | None,
    times: np.ndarray,
    scores: Scores,
    **about: str,
) -> Finding:
    """Returns the finding of the data set ``name``; ``about`` has name, directory and format."""
    name = about["name"]
    choice = _decide(measured, name, times)
    gained = gain(measured, Candidate(ALPHA, corrupt=(name,)), CLEAN, times)
    worth = None
    if curve is not None:
        worth = curve.worth(np.where(choice.admits(gained.levels), gained.draws, 0).mean(1))
    correlations = {
        n: tuple(
            rank_correlation(v, scores.length)
            for v in (values, without_length(values, scores.length))
        )
        for n, values in scores.summary.items()
    }
    how = dict(gain=gained, choice=choice, worth=worth, scores=scores, correlations=correlations)
    return Finding(**about, **how)


def _decide(measured: Measured, name: str, times: np.ndarray) -> Choice:
    return decide(measured, name, times)


def verdict(finding: Finding) -> str:
    """One phrase that says what to do with a data set."""
    choice = finding.choice
    if choice.nowhere:
        harms = finding.gain.harms()
        return "leave it out: it harms" if harms else "leave it out: no gain is certain"
    if choice.sigma_min <= 0:
        return "use it at every noise level, like clean data"
    parts = [f"above sigma {choice.sigma_min:.2g}"] if choice.sigma_min < 1 else []
    parts += [f"below sigma {choice.sigma_max:.2g}"] if choice.sigma_max > 0 else []
    return f"use it {' and '.join(parts)}"


def percent(log_ratio: float) -> float:
    """A log ratio of losses as a change in percent."""
    return 100 * float(np.expm1(log_ratio))


def change(value: Interval) -> str:
    """Such as "-12% (-15 to -9)": the change of the loss."""
    return f"{percent(value.value):+.1f}% ({percent(value.low):+.1f} to {percent(value.high):+.1f})"


def episodes(value: Interval | None, farthest: float) -> str:
    """Such as "12 (5 to 20)" clean episodes, "more than 60" beyond the reach of the curve."""
    if value is None:
        return "unknown: too few clean episodes"
    most = f"more than {farthest:.0f}"

    def one(x):
        return most if np.isinf(x) else f"{x:.1f}" if abs(x) < 9.95 else f"{x:.0f}"

    if np.isinf(value.low):
        return most
    return f"{one(value.value)} ({one(value.low)} to {one(value.high)})"
