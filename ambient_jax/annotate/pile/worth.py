"""What data are worth: the gain by noise level, and in clean episodes, each with an interval.

All numbers come from losses on clean episodes that a policy has not seen. Intervals are those of a
bootstrap over these episodes, within their folds: chunks of one episode go together.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
import tqdm

from ambient_jax import mixing
from ambient_jax.annotate import candidates as candidates_lib
from ambient_jax.annotate import evidence
from ambient_jax.annotate.candidates import Candidate, Measured, Options
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.files import read_arrays
from ambient_jax.data.paths import expanded, replacing
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import sweep

INTERVAL = 2.5, 97.5  # percent
_BEYOND = 4.0  # times the most episodes that a clean policy was trained on: no farther is guessed


def resampled(measured: Measured, count: int = 1000, seed: int = 0) -> np.ndarray:
    """Returns how often each of the E episodes counts, [1 + count, E]; once each in the first row.

    Each row draws as many episodes of a fold as it has, with replacement.
    """
    rng = np.random.default_rng(seed)
    episodes, first = np.unique(measured.episode, return_index=True)
    fold = measured.fold[first]
    times = np.ones((1 + count, len(episodes)))
    for k in np.unique(fold):
        own = np.flatnonzero(fold == k)
        times[1:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), count)
    return times


def mean_losses(losses: np.ndarray, episode: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns the mean loss [R, L] of losses [draws, L, N], with the episodes' counts [R, E]."""
    rows = np.asarray(losses, np.float64).mean(0)
    _, number = np.unique(episode, return_inverse=True)
    sums = np.stack([np.bincount(number, row, times.shape[1]) for row in rows])
    return times @ sums.T / (times @ np.bincount(number))[:, None]


class Interval(NamedTuple):
    """A value, and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def interval(draws: np.ndarray) -> Interval:
    """The first of the draws [R] and the interval of the others."""
    low, high = _percentiles(draws[1:])
    return Interval(float(draws[0]), float(low), float(high))


def _percentiles(draws):
    draws = np.sort(draws, axis=0)  # infinite ones cannot be interpolated
    at = [round(p / 100 * (len(draws) - 1)) for p in INTERVAL]
    return draws[at]


@dataclasses.dataclass(frozen=True, eq=False)
class Gain:
    """The log of the loss with data over that without, by level; below 0 they help.

    Attributes:
      levels: [L] sigma.
      draws: [R, L] log ratios, the first of all episodes and the others of the bootstrap.
    """

    levels: np.ndarray
    draws: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        return self.draws[0]

    @property
    def ends(self) -> np.ndarray:
        """Ends of the interval of each level, [2, L]."""
        return _percentiles(self.draws[1:])

    def mean(self, at: np.ndarray | None = None) -> Interval:
        """The mean over all levels of the log ratio, taken as 0 where ``at`` [L] is False."""
        at = np.ones(len(self.levels), bool) if at is None else at
        return interval(np.where(at, self.draws, 0).mean(1))

    def helps(self) -> list[tuple[float, float]]:
        """Ranges of levels at which the whole interval is below 0."""
        return _ranges(self.levels, self.ends[1] < 0)

    def harms(self) -> list[tuple[float, float]]:
        """Ranges of levels at which the whole interval is above 0."""
        return _ranges(self.levels, self.ends[0] > 0)


def _ranges(levels, where):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(int), [0]])))
    pairs = zip(edges[::2], edges[1::2] - 1, strict=True)
    return [(float(levels[a]), float(levels[b])) for a, b in pairs]


def gain(measured: Measured, candidate: Candidate, without: Candidate, times: np.ndarray) -> Gain:
    """Returns the gain of a candidate over one without its data, see ``resampled``."""
    with_, base = (
        mean_losses(measured.of(c), measured.episode, times) for c in (candidate, without)
    )
    return Gain(measured.levels, np.log(with_) - np.log(base))


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The clean loss of policies trained on fewer and fewer clean episodes.

    Attributes:
      episodes: [P] increasing, a mean over the folds; the last is all but the fold left out.
      losses: [R, P] log losses, a mean over levels; rows as in ``resampled``.
    """

    episodes: np.ndarray
    losses: np.ndarray

    @property
    def fits(self) -> np.ndarray:
        """[R, 2] a and b of ``log loss = a + b log n``, by least squares."""
        x = np.stack([np.ones(len(self.episodes)), np.log(self.episodes)], 1)
        return self.losses @ np.linalg.pinv(x).T

    @property
    def farthest(self) -> float:
        """The most episodes that the curve is used for."""
        return _BEYOND * float(self.episodes[-1])

    def worth(self, gained: np.ndarray) -> Interval:
        """Clean episodes beyond those at hand that lower the loss as much as data do.

        Args:
          gained: [R] mean log ratio of the loss with the data to that without.

        Returns:
          Numbers of episodes, negative where the data harm; inf for more than ``farthest``.
        """
        slope, most = self.fits[:, 1], self.episodes[-1]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            times = np.exp(np.where(slope < 0, gained / slope, np.where(gained < 0, np.inf, 0)))
        extra = np.where(times * most > self.farthest, np.inf, (times - 1) * most)
        return interval(extra)


def learning_curve(
    config: ml_collections.ConfigDict,
    measured: Measured,
    options: Options,
    workdir: str | os.PathLike[str],
    times: np.ndarray,
    most_parts: int = 4,
) -> Curve | None:
    """Trains clean policies on a part of the episodes of ``measure`` and measures them alike.

    Args:
      config, options: those of ``candidates.measure``.
      measured: what it returned, with the candidate of clean data only.
      workdir: folder of the policies and of ``curve.npz``; the same arguments carry on.
      times: see ``resampled``.
      most_parts: the smallest part is one of so many, if there are as many episodes.

    Returns:
      None if the folds have fewer than two episodes.

    Raises:
      Interrupted: a signal ended the training.
    """
    workdir = pathlib.Path(expanded(workdir))
    config = ml_collections.ConfigDict(config.to_dict())
    config.train.steps = options.steps or config.train.steps
    config.train.batch_size = options.batch_size or config.train.batch_size
    # The pile does not train, but the maps to unit size are those of all data, as in ``measure``.
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    clean = [n for n, s in config.data.sources.items() if s.role == "clean"]
    sizes = [len(mixture.datasets[name]) for name in clean]
    fewest = min(sizes) // options.folds
    parts = max(p for p in (1, 2, 4, 8, 16) if p <= min(fewest, most_parts) or p == 1)
    if parts < 2:
        return None
    whole, folds = candidates_lib.folded(config, mixture, options.folds)
    counts = [2**i for i in range(parts) if 2**i < parts]
    about = repr((mixture.fingerprints, config.to_json_best_effort(), options, counts))
    losses = _stored(workdir / "curve.npz", about)
    if losses is None:
        config, names = candidates_lib.folded(config, mixture, options.folds * parts)
        by_part = np.asarray(names).reshape(options.folds, parts, -1)
        if stopped := sweep.train(_policies(config, by_part, counts), workdir).signal:
            raise candidates_lib.Interrupted(stopped)
        losses = _measured(whole, folds, counts, options, workdir)
        with replacing(workdir / "curve.npz") as file:
            np.savez_compressed(file, about=about, losses=losses)
    total = sum(sizes) * (1 - 1 / options.folds)
    with_all = [*losses, measured.of(Candidate(1.0))]
    means = [mean_losses(one, measured.episode, times) for one in with_all]
    at = np.asarray([*(total * c / parts for c in counts), total])
    return Curve(at, np.stack([np.log(m).mean(1) for m in means], axis=1))


def _policies(config, by_part, counts):
    """Returns a config for each count of parts and fold left out."""
    configs = {}
    for count in counts:
        for k in range(len(by_part)):
            one = ml_collections.ConfigDict(config.to_dict())
            one.name, one.law = f"parts_{count}_{k}", ml_collections.ConfigDict({"name": "ambient"})
            used = {n for i, fold in enumerate(by_part) if i != k for n in fold[:count].ravel()}
            for name, section in one.data.sources.items():
                section.weight = 1.0 if name in used else 0.0
            configs[f"parts_{count}/{k}"] = one
    return configs


def _measured(config, folds: Sequence[Sequence[str]], counts, options: Options, workdir):
    """Returns losses [counts, draws, L, N] on the chunks, in the order of ``measure``."""
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    levels = tuple(evidence.grid(options.levels).tolist())
    parts = []
    for k, names in enumerate(folds):
        loaded = [Policy.from_checkpoint(workdir / f"parts_{c}" / str(k)) for c in counts]
        for name in names:
            how = dict(padding=config.data.padding, samples=options.chunks)
            chunks = evaluation.recorded(mixture.datasets[name], loaded[0], **how)
            bar = tqdm.tqdm(loaded, desc=f"learning curve, fold {k + 1}", unit="policy")
            parts.append(
                [
                    [
                        evaluation.row_losses(
                            *(loaded[0], chunks),
                            **dict(target="x0", levels=levels, seed=s, params=policy.params),
                        )
                        for s in range(options.draws)
                    ]
                    for policy in bar
                ]
            )
    return np.concatenate([np.asarray(p, np.float32) for p in parts], axis=-1)


def _stored(path, about):
    try:
        stored = read_arrays(path)
        return stored["losses"] if str(stored["about"]) == about else None
    except (OSError, ValueError, KeyError):
        return None
