"""Compares scores of policies that need no rollouts with the rollouts' successes.

A score orders the candidates of a point by their losses on unseen clean chunks. Its regret is the
success that picking its best loses to the most successful of the same policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def compare(
    points: Sequence[tuple[Measured, Mapping[Candidate, float], float]],
) -> list[list[str]]:
    """Returns the table's lines, see ``COLUMNS``.

    A point is (losses, success of the candidates that were judged, success of the rule's policy).
    """
    lines = []
    for name, score in SCORES.items():
        ranks, regrets = [], []
        for measured, success, _ in points:
            clean = measured.of(Candidate(1.0)).mean(0)
            values = [score(measured.of(c).mean(0), clean, measured) for c in success]
            reached = list(success.values())
            alike = len(set(values)) == 1 or len(set(reached)) == 1
            rank = np.nan if alike else scipy.stats.spearmanr(np.negative(values), reached)[0]
            ranks.append(rank)
            regrets.append(max(reached) - reached[int(np.argmin(values))])
        lines.append([name, *_cells(ranks, 2), *_cells(100 * np.array(regrets), 1, " points")])
    rule = [max(success.values()) - chosen for _, success, chosen in points]
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
