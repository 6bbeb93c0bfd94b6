"""Scores of the episodes of a pile: how clean they look, and how training on them moves the loss.

A score that reads the length of an episode says little about its quality, so each is also given
without what a line through the logarithm of the length explains.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.stats
import tqdm

from ambient_jax.annotate import influence as influence_lib
from ambient_jax.annotate.pile.worth import Interval, interval
from ambient_jax.data import chunk
from ambient_jax.data.source import Source
from ambient_jax.evaluate import evaluation
from ambient_jax.evaluate.evaluation import Chunks
from ambient_jax.policy.policy import Policy

SUSPECT = -3.5  # robust z-score below which an episode stands out


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of the E episodes of one data set.

    Attributes:
      episode: [E] ids.
      length: [E] steps.
      levels: [L] sigma of the classifier's curves.
      clean: [E, L] P(clean), a mean over the episode's chunks.
      influence_levels: [M] sigma of the influence.
      influence: [M, E] decrease of the clean loss by a training step on the episode, in units of
        the median size of the pile's episodes at that level.
    """

    episode: np.ndarray
    length: np.ndarray
    levels: np.ndarray
    clean: np.ndarray
    influence_levels: np.ndarray
    influence: np.ndarray

    @property
    def summary(self) -> dict[str, np.ndarray]:
        """[E] by name: each score as a mean over levels."""
        return {"p_clean": self.clean.mean(1), "influence": self.influence.mean(0)}

    def standing_out(self) -> dict[str, np.ndarray]:
        """[E] robust z-scores by name, of the scores without the length."""
        return {n: robust_z(without_length(s, self.length)) for n, s in self.summary.items()}

    def suspects(self) -> np.ndarray:
        """[E] whether a score of the episode lies far below those of its data set."""
        return np.any([z < SUSPECT for z in self.standing_out().values()], axis=0)


def robust_z(values: np.ndarray) -> np.ndarray:
    """Returns the distance from the median in units of 1.4826 median absolute deviations."""
    values = np.asarray(values, np.float64)
    centred = values - np.median(values)
    scale = 1.4826 * np.median(np.abs(centred))
    # More than half the values are one: the mean deviation still has a unit.
    scale = scale or 1.2533 * np.mean(np.abs(centred))
    return centred / scale if scale else np.zeros_like(values)


def without_length(values: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Returns values [E] minus a line through log length, at the values' own mean.

    The line is Theil's and Sen's, the median of the slopes of pairs: a broken episode, which may be
    the longest one, would bend a line of least squares towards itself.
    """
    x, y = np.log(np.asarray(length, np.float64)), np.asarray(values, np.float64)
    if np.ptp(x) == 0:
        return y.copy()
    at = np.random.default_rng(0).permutation(len(y))[:1000]  # pairs grow with the square
    slope = scipy.stats.theilslopes(y[at], x[at])[0] if np.ptp(x[at]) else 0.0
    return y - slope * (x - x.mean())


def rank_correlation(
    values: np.ndarray, length: np.ndarray, count: int = 500, seed: int = 0
) -> Interval:
    """Returns Spearman's rank correlation with an interval by bootstrap over episodes; 0 of a
    constant."""
    rng, size = np.random.default_rng(seed), len(values)
    draws = [_spearman(values, length)]
    for _ in range(count):
        at = rng.integers(0, size, size)
        draws.append(_spearman(values[at], length[at]))
    return interval(np.asarray(draws))


def _spearman(x, y):
    x, y = (scipy.stats.rankdata(v) for v in (x, y))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def sampled(
    source: Source, policy: Policy, *, padding: str, each: int = 16, progress: str = ""
) -> tuple[Chunks, np.ndarray]:
    """Reads at most ``each`` evenly spaced chunks of every episode of a source.

    Returns:
      The chunks, and the position of the episode of each, [N].
    """
    parts, positions = [], []
    numbers = tqdm.tqdm(range(len(source)), desc=progress, unit="episode", disable=not progress)
    for position in numbers:
        episode, _ = source.examined(position)
        if episode is None:
            continue
        fields = source.read(position, episode)
        length = len(fields[chunk.ACTION])
        if padding == "hold":
            rest = source.rest(fields[chunk.ACTION].shape[1])
            fields[chunk.STILL] = chunk.standing_still(fields[chunk.ACTION], rest)
        at = np.unique(np.linspace(0, length - 1, min(each, length)).round().astype(int))
        spans = np.zeros_like(at), np.full_like(at, length)
        sizes = policy.history, policy.horizon
        parts.append(chunk.gather(fields, at, *spans, *sizes, xp=np, padding=padding))
        positions.append(np.full(len(at), position))
    observation = {n: np.concatenate([p[0][n] for p in parts]) for n in parts[0][0]}
    action, mask = (np.concatenate([p[i] for p in parts]) for i in (1, 2))
    return Chunks(observation, action, mask), np.concatenate(positions)


def influences(
    folder: pathlib.Path,
    folds: Sequence[Sequence[Source]],
    piles: dict[str, Source],
    levels: np.ndarray,
    *,
    padding: str,
    each: int = 16,
    samples: int = 1024,
    draws: int = 2,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns the influence [M, E] of the episodes of each pile at M levels, in data's units.

    A policy trained without a fold judges by the clean chunks of that fold, which it has not seen.
    An episode's influence is the mean over its chunks and over the folds.

    Args:
      folder: of the policies, ``folder/<fold>``.
      folds: clean sources of each fold.
      piles: the sources that are judged, by name.
      levels: noise levels.
      padding: as in training.
      each: most chunks of an episode.
      samples: most clean chunks of a source.
      draws, seed: of the noise.
    """
    at = tuple(np.asarray(levels, float).tolist())
    loaded = [Policy.from_checkpoint(folder / str(k)) for k in range(len(folds))]
    like, slopes = loaded[0], []
    for k, policy in enumerate(loaded):
        total = None
        for source in folds[k]:
            clean = evaluation.recorded(source, like, padding=padding, samples=samples)
            how = dict(levels=at, params=policy.params, draws=draws, seed=seed)
            slope = influence_lib.gradient(like, clean, **how)
            total = _plus(total, slope)
        slopes.append(total)
    found = {}
    for name, source in piles.items():
        progress = f"episodes of {name}"
        chunks, position = sampled(source, like, padding=padding, each=each, progress=progress)
        values = np.mean(
            [
                influence_lib.along(
                    *(like, slope, chunks),
                    **dict(levels=at, params=policy.params, draws=draws, seed=seed + 1),
                )
                for policy, slope in zip(loaded, slopes, strict=True)
            ],
            axis=0,
        )
        counts = np.bincount(position, minlength=len(source))
        sums = [np.bincount(position, row, len(source)) for row in values]
        found[name] = np.stack(sums) / np.maximum(counts, 1)
    return found


def _plus(total, slope):
    import jax

    return slope if total is None else jax.tree.map(lambda a, b: a + b, total, slope)


def in_units(influences: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Divides influences [M, E] by their median size at each level over all data sets."""
    sizes = np.median(np.abs(np.concatenate(list(influences.values()), axis=1)), axis=1)
    return {n: v / np.where(sizes > 0, sizes, 1)[:, None] for n, v in influences.items()}
