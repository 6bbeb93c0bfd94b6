"""Metrics of bin sorting, as in the talk (section 5.3 of the method).

A block is *placed* when it rests in a bin at the end, see ``BinSortingEnv.placements``, and *placed
right* when that bin is the one of the correct rule. Over all episodes of a policy,

    completion     placed blocks / all blocks            motion level
    correct logic  blocks placed right / placed blocks   task level
    score          blocks placed right / all blocks      both; the product of the other two

with bootstrap intervals over episodes, as the blocks of one are not independent. ``all_placed`` and
``all_right`` are shares of episodes in which every block is, with Wilson's intervals.
"""

import dataclasses
import math

import numpy as np

from ambient_jax.estimates import Estimate, bootstrap, wilson
from experiments.bin_sorting.scene import LEFT, NOWHERE, RED, RIGHT


@dataclasses.dataclass(frozen=True)
class Summary:
    """The metrics of one policy, see the module; the first three count blocks."""

    completion: Estimate
    logic: Estimate
    score: Estimate
    all_placed: Estimate
    all_right: Estimate


def summarise(placements: np.ndarray, colours: tuple[int, ...]) -> Summary:
    """Computes the metrics of placements [N, K]; raises ValueError for a wrong shape."""
    placements = np.asarray(placements)
    if placements.ndim != 2 or not len(placements) or placements.shape[1] != len(colours):
        raise ValueError(
            f"placements have shape {placements.shape}, expected [N, {len(colours)}], at least "
            "one episode"
        )
    placed = placements != NOWHERE
    right = placements == np.where(np.asarray(colours) == RED, LEFT, RIGHT)
    every = np.full(len(placements), placements.shape[1])
    episodes = len(placements)
    return Summary(
        completion=ratio(placed.sum(1), every),
        logic=ratio(right.sum(1), placed.sum(1)),
        score=ratio(right.sum(1), every),
        all_placed=wilson(int(placed.all(1).sum()), episodes),
        all_right=wilson(int(right.all(1).sum()), episodes),
    )


def ratio(
    numerators: np.ndarray, denominators: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Returns sum of numerators [N] / sum of denominators [N] with a bootstrap interval over N.

    It is NaN if all denominators are 0; draws in which they are do not count. The interval of a
    ratio of exactly 0 or 1, which has no spread, is Wilson's with an episode as one trial.
    """
    numerators, denominators = np.asarray(numerators, float), np.asarray(denominators, float)
    total = denominators.sum()
    if total == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value, used = float(numerators.sum() / total), int((denominators > 0).sum())
    if value in (0.0, 1.0):
        return dataclasses.replace(wilson(int(value) * used, used), count=int(total))
    low, high = bootstrap(_ratio, numerators, denominators, resamples=resamples, seed=seed)
    return Estimate(value, low, high, int(total))


def _ratio(numerators, denominators, axis):
    with np.errstate(invalid="ignore"):
        return numerators.sum(axis) / denominators.sum(axis)
