"""What a point of the study gives: a choice without rollouts, and its policies' successes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ambient_jax import estimates
from ambient_jax.annotate import candidates, choice
from ambient_jax.annotate.candidates import Candidate
from ambient_jax.estimates import Estimate
from experiments.which_data.points import Point

CLEAN, NATURAL, CHOSEN, BEST = "clean", "natural", "chosen", "best"


class Judged(NamedTuple):
    """A point: what was measured and chosen without rollouts, success [N] of each policy by episode
    (mean over its seeds), and the mean squared jerk of the maze's successful paths."""

    point: Point
    measured: candidates.Measured
    sampled: Mapping[Candidate, Mapping[str, float]]  # see ``samples.scored``
    choice: choice.Choice
    success: dict[str, np.ndarray]
    jerk: dict[str, Estimate]

    def of_candidates(self) -> dict[candidates.Candidate, float]:
        """Returns the mean success of the policies that are candidates without bounds."""
        by_name = {CLEAN: Candidate(1.0), NATURAL: Candidate(None)}
        by_name |= {
            share_name(c.alpha): c
            for c in self.measured.candidates
            if c.alpha not in (None, 1) and c.sigma_min == 0
        }
        return {by_name[n]: float(v.mean()) for n, v in self.success.items() if n in by_name}

    def gain(self) -> Estimate | None:
        """Returns the chosen policy's success less that of the better of the others, paired."""
        others = {n: v for n, v in self.success.items() if n not in (CHOSEN, BEST)}
        if not others:
            return None
        better = max(others.values(), key=np.mean)
        return estimates.mean(self.success[CHOSEN] - better)


def share_name(share: float) -> str:
    """Returns the name of co-training with a share of clean data, 0 by number of samples."""
    return f"alpha_{share:g}" if share else NATURAL


def describe(chosen: choice.Choice) -> str:
    """Says a choice in a few words."""
    if chosen.clean_only:
        return "clean only"
    alpha, low, high = chosen.candidate.alpha, chosen.candidate.sigma_min, chosen.sigma_max
    share = "by number" if alpha is None else f"alpha {alpha:g}"
    band = f"above {low:g}" if low else "everywhere" if high >= 1 else ""
    band += ("" if high >= 1 else f" below {high:.2f}") if band or high < 1 else ""
    return f"{share}, {band.strip()}"
