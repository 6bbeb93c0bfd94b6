"""What the library advises about each kind, from losses on held-out clean plans."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.annotate import candidates, choice
from ambient_jax.annotate.candidates import Candidate, Measured
from ambient_jax.estimates import Estimate
from experiments.defects.kinds import KINDS

# Parts of the noise levels over which gains are averaged, by their ends.
PARTS = {"low": (0.0, 0.1), "middle": (0.1, 0.7), "high": (0.7, 1.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
    """The advice about one kind.

    A gain is by how much the held-out loss falls, as a share of that of clean plans alone, in the
    mean of the logarithm over noise levels; intervals are 95%, over clean plans.

    Attributes:
      kind: of defect.
      choice: what ``annotate.choice`` says; its ratio is that of the kind at all noise levels.
      bounds: (sigma_min, sigma_max) of the kind's plans.
      exact: whether they say the choice; if not, it is a band, and they are its nearer end.
      gain: used as advised, with what the other levels gain by clean plans alone, nothing.
      everywhere: used at all noise levels.
      parts: the same in each of ``PARTS``.
    """

    kind: str
    choice: choice.Choice
    bounds: tuple[float, float]
    exact: bool
    gain: Estimate
    everywhere: Estimate
    parts: dict[str, Estimate]

    @property
    def trains(self) -> bool:
        """Whether the kind's plans train any level."""
        return self.bounds != (1.0, 0.0)

    @property
    def words(self) -> str:
        """Says the bounds in a few words."""
        low, high = self.bounds
        if not self.trains:
            return "nowhere"
        if low == 0 or high >= 1:
            return "everywhere"
        text = f"below {high:.2g}" if low >= 1 else f"above {low:.2g}"
        return text if self.exact else f"{text} (nearest to a band)"


def tried(task: ml_collections.ConfigDict) -> list[Candidate]:
    """Returns clean plans alone, and each kind with them, at all levels and above some."""
    levels = (0.0, *task.sigma_min)
    return [
        Candidate(1.0),
        *(Candidate(task.share, level, corrupt=(kind,)) for kind in KINDS for level in levels),
    ]


def advise(config: ml_collections.ConfigDict, folder: pathlib.Path) -> list[Advice]:
    """Trains and measures the candidates in ``folder``; returns the advice about each kind.

    The most helpful kind comes first; of those that train nowhere, the least harmful. With
    ``task.report_only`` it only reads: [] where no current measurement is there.

    Raises:
      candidates.Interrupted: a signal ended the training.
    """
    task = config.task
    options = candidates.Options(**task.candidates)
    find = candidates.read if task.report_only else candidates.measure
    measured = find(config, tried(task), options, folder)
    if measured is None:
        return []
    given = [_of_kind(measured, kind, task.rule.to_dict()) for kind in KINDS]
    return sorted(given, key=lambda one: (-one.gain.value, -one.everywhere.value))


def _of_kind(measured: Measured, kind: str, rule: dict[str, Any]) -> Advice:
    chosen = choice.choose(measured, corrupt=(kind,), **rule)
    bounds, exact = nearest_bounds(chosen)
    # At all levels, as the choice's ratio; and as chosen, of which a candidate was trained.
    shares = [c for c in measured.candidates if c.corrupt == (kind,) and not c.sigma_min]
    whole = log_ratios(measured, shares[0])
    used = shares[0] if chosen.clean_only else chosen.candidate
    low, high = bounds
    admitted = (chosen.levels > low) | (chosen.levels < high)
    gains = {
        part: _gain(whole[:, (chosen.levels > ends[0]) & (chosen.levels <= ends[1])])
        for part, ends in PARTS.items()
    }
    gain = _gain(log_ratios(measured, used) * admitted)
    return Advice(kind, chosen, bounds, exact, gain, _gain(whole), gains)


def nearest_bounds(chosen: choice.Choice) -> tuple[tuple[float, float], bool]:
    """Returns bounds of a choice, and whether they say it.

    Of a band, which a pair of bounds cannot say, they keep the end that shuts out more levels.
    """
    if chosen.bounds is not None:
        return chosen.bounds, True
    low, high = chosen.candidate.sigma_min, chosen.sigma_max
    below, above = (chosen.levels <= low).sum(), (chosen.levels >= high).sum()
    return ((low, 0.0) if below >= above else (1.0, high)), False


def log_ratios(
    measured: Measured, candidate: Candidate, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Returns the log of a candidate's held-out loss less that of clean plans alone.

    [1 + R, L]: of all clean plans, and of R resamples of them with replacement.
    """
    count = int(measured.episode.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    weights = np.concatenate([np.ones((1, count)), draws])

    def log_loss(one):
        chunks = measured.of(one).mean(0)  # [L, N]
        sums = np.stack([np.bincount(measured.episode, row, count) for row in chunks])
        return np.log(weights @ sums.T)

    return log_loss(candidate) - log_loss(Candidate(1.0))


def _gain(ratios: np.ndarray) -> Estimate:
    """Returns the gain of log ratios [1 + R, L]; NaN where there is no level."""
    if not ratios.shape[1]:
        return Estimate(np.nan, np.nan, np.nan, 0)
    gains = 1 - np.exp(ratios.mean(1))
    low, high = np.quantile(gains[1:], (0.025, 0.975))
    return Estimate(float(gains[0]), float(low), float(high), len(gains) - 1)
