"""The results of a report about a pile, as one value that page, tables and files are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ambient_jax.annotate import choice
from ambient_jax.annotate.candidates import Candidate, Measured
from ambient_jax.annotate.pile.episodes import Scores, rank_correlation, without_length
from ambient_jax.annotate.pile.worth import Curve, Gain, Interval, gain

ALPHA = 0.5  # share of clean data of the candidates
CLEAN = Candidate(1.0)
SIGMA_MIN, SIGMA_MIN_QUICK = (0.1, 0.3, 0.6), (0.3,)


def candidates(piles: Sequence[str], quick: bool) -> list[Candidate]:
    """Returns what is trained: clean data only, each data set from some levels on, and all."""
    above = (0.0, *(SIGMA_MIN_QUICK if quick else SIGMA_MIN))
    each = [Candidate(ALPHA, low, corrupt=(name,)) for name in piles for low in above]
    return [CLEAN, *each, *([Candidate(ALPHA)] if len(piles) > 1 else [])]


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """What was found about a data set of the pile.

    Attributes:
      name, directory, format: of the data set.
      gain: by level, see ``worth.Gain``.
      choice: where it trains.
      chosen: [R] the mean over levels of the log ratio with this choice; 0 if it trains nowhere.
      worth: clean episodes that are worth as much; None without a learning curve.
      scores: of its episodes.
      correlations: by score, the rank correlation with the length, of the score and of the score
        without the length.
    """

    name: str
    directory: str
    format: str
    gain: Gain
    choice: choice.Choice
    chosen: np.ndarray
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


def find(
    measured: Measured,
    curve: Curve | None,
    times: np.ndarray,
    scores: Scores,
    *,
    name: str,
    directory: str,
    format: str,
) -> Finding:
    """Returns the finding of the data set ``name``."""
    decided = _decide(measured, name)
    gained = gain(measured, Candidate(ALPHA, corrupt=(name,)), CLEAN, times)
    own = gain(measured, decided.candidate, CLEAN, times)
    chosen = np.where(own.levels < decided.sigma_max, own.draws, 0).mean(1)
    worth = curve.worth(chosen) if curve is not None else None
    length = scores.length
    correlations = {
        n: (rank_correlation(v, length), rank_correlation(without_length(v, length), length))
        for n, v in scores.summary.items()
    }
    decision: dict[str, Any] = dict(gain=gained, choice=decided, chosen=chosen, worth=worth)
    about = name, directory, format
    return Finding(*about, **decision, scores=scores, correlations=correlations)


def _decide(measured: Measured, name: str) -> choice.Choice:
    return choice.choose(measured, corrupt=(name,))


def verdict(finding: Finding) -> str:
    """One phrase that says what to do with a data set."""
    chosen = finding.choice
    if chosen.clean_only:
        harms = finding.gain.mean().low > 0
        return "leave it out: it harms" if harms else "leave it out: too little gain"
    low, high = chosen.candidate.sigma_min, chosen.sigma_max
    if low <= 0 and high >= 1:
        return "use it at every noise level"
    if high >= 1:
        return f"use it above sigma {low:.2g}"
    return (
        f"use it between sigma {low:.2g} and {high:.2g}"
        if low
        else f"use it below sigma {high:.2g}"
    )


def bounds(finding: Finding) -> tuple[float, float]:
    """(sigma_min, sigma_max) of the data set; nowhere for a band, which bounds cannot say."""
    return finding.choice.bounds or (1.0, 0.0)


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
