"""Compares scores of policies that need no rollouts with the rollouts' successes.

A score orders the candidates of a point by their losses on unseen clean chunks. Its regret is the
success that picking its best loses to the most successful of the same policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from ambient_jax import estimates
from ambient_jax.annotate.candidates import Candidate, Measured
from ambient_jax.estimates import Estimate

COLUMNS = ("score", "rank correlation with success", "95%", "regret", "95%", "largest regret")

# score(losses [L, N] of a candidate, those of clean data only, measured): lower is better.
Score = Callable[[np.ndarray, np.ndarray, Measured], float]


def _mean_log(losses, clean, measured):
    return float(np.log(losses.mean(1)).mean())


def _high(losses, clean, measured):
    return float(losses[measured.levels > 0.5].mean())


def _low(losses, clean, measured):
    return float(np.log(losses[measured.levels < 0.1].mean(1)).mean())


def _likelihood(losses, clean, measured):
    """The relative entropy of sampler and data: the integral of the loss over d(snr)."""
    snr = (1 - measured.levels**2) / measured.levels**2
    return float(-np.trapezoid(losses.mean(1), snr))


def _of_chunks(losses, clean, measured):
    return float(np.log(losses).mean())


def _worst(losses, clean, measured):
    return float(np.log(np.quantile(losses, 0.95, axis=1)).mean())


def _broken(losses, clean, measured):
    return float((losses - clean > 0.2 * measured.variance).mean(1).max())


SCORES: dict[str, Score] = {
    "log of the mean loss, all levels": _mean_log,
    "the same, levels below 0.1": _low,
    "mean loss, levels above 0.5": _high,
    "likelihood weighting": _likelihood,
    "log loss of each chunk": _of_chunks,
    "log of the 95th percentile": _worst,
    "decisions broken": _broken,
}
SAMPLED = {"error of sampled chunks": "error", "energy score of sampled chunks": "energy"}


class Scored(NamedTuple):
    """A point: losses, scores of samples (``samples.scored``), success of the candidates that were
    rolled out, and of the rule's policy."""

    measured: Measured
    sampled: Mapping[Candidate, Mapping[str, float]]
    success: Mapping[Candidate, float]
    chosen: float

    def values(self, name: str) -> list[float]:
        """Returns a score of each candidate that was rolled out."""
        if name in SAMPLED:
            return [self.sampled[c][SAMPLED[name]] for c in self.success]
        losses = {c: self.measured.of(c).mean(0) for c in (*self.success, Candidate(1.0))}
        clean = losses[Candidate(1.0)]
        return [SCORES[name](losses[c], clean, self.measured) for c in self.success]


def compare(points: Sequence[Scored]) -> list[list[str]]:
    """Returns the table's lines, see ``COLUMNS``."""
    lines = []
    for name in (*SCORES, *SAMPLED):
        ranks, regrets = [], []
        for point in points:
            values, reached = point.values(name), list(point.success.values())
            alike = len(set(values)) == 1 or len(set(reached)) == 1
            rank = np.nan if alike else scipy.stats.spearmanr(np.negative(values), reached)[0]
            ranks.append(rank)
            regrets.append(max(reached) - reached[int(np.argmin(values))])
        lines.append([name, *_cells(ranks, 2), *_cells(100 * np.array(regrets), 1, " points")])
    rule = [max(point.success.values()) - point.chosen for point in points]
    lines.append(["the rule", "", "", *_cells(100 * np.array(rule), 1, " points")])
    return [[*line, ""][: len(COLUMNS)] for line in lines]


def _cells(values, digits, unit=""):
    values = np.asarray(values, float)
    known = values[np.isfinite(values)]
    if not known.size:
        return ["", ""]
    mean: Estimate = estimates.mean(known)
    cells = [f"{mean.value:.{digits}f}{unit}", f"{mean.low:.{digits}f} to {mean.high:.{digits}f}"]
    return cells + ([f"{known.max():.{digits}f}{unit}"] if unit else [])
