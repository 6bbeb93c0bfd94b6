"""Losses and action errors of a policy over training seeds and held-out episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ambient_jax.estimates import Estimate
from ambient_jax.evaluate import evaluation

if TYPE_CHECKING:
    from experiments.humanoid.corruptions import Motion
    from experiments.humanoid.task import Measures

# Noise levels whose mean loss a table shows.
BANDS = {"loss": (0.0, 1.0), "low": (0.0, 0.1), "middle": (0.1, 0.7), "high": (0.7, 1.0)}
_RESAMPLES = 2000
_LEVELS = np.array(evaluation.LEVELS)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a policy reached with each of S training seeds on each of E held-out episodes."""

    seeds: tuple[int, ...]
    loss: np.ndarray  # [S, E, L] of x0_hat in normalised units
    square: np.ndarray  # [S, E] squared action error, in squared standard deviations of a joint
    raw: np.ndarray  # [S, E] the same in squared units of the data

    def values(self, metric: str) -> np.ndarray:
        """The values [S, E] of a band of noise levels, or of "error" or "raw", squared."""
        if metric in BANDS:
            low, high = BANDS[metric]
            return self.loss[..., (_LEVELS > low) & (_LEVELS <= high)].mean(-1)
        return {"error": self.square, "raw": self.raw}[metric]

    def estimate(self, metric: str) -> Estimate:
        """The mean of a band's loss, or the root mean squared action error."""
        root = metric not in BANDS
        return crossed(np.sqrt if root else np.positive, self.values(metric))

    def of_seed(self, metric: str) -> np.ndarray:
        """The metric of each seed, [S]."""
        means = self.values(metric).mean(1)
        return means if metric in BANDS else np.sqrt(means)


def scores(by_seed: Mapping[int, Measures], scale: np.ndarray) -> Scores:
    """Scores of one policy; ``scale`` [D] is the standard deviation of each joint's actions."""
    seeds = tuple(sorted(by_seed))
    each = [by_seed[seed] for seed in seeds]
    averaged = lambda values: np.stack([by_episode(v, m.episode) for v, m in zip(values, each)])  # noqa: B905, E731
    moves = scale > 0
    return Scores(
        seeds,
        averaged([m.loss for m in each]),
        averaged([np.mean(m.square[:, moves] / scale[moves] ** 2, 1) for m in each]),
        averaged([m.square.mean(1) for m in each]),
    )


def standing_still(motions: Sequence[Motion], scale: np.ndarray, horizon: int) -> float:
    """Returns the action error of chunks that repeat the present state, in ``scale`` [D].

    Over all frames, with as much weight for each episode; past its end the last action is held.
    """
    moves, errors = scale > 0, []
    for motion in motions:
        count = len(motion.action)
        ahead = np.minimum(np.arange(count)[:, None] + np.arange(horizon), count - 1)
        gap = (motion.action[ahead] - motion.state[:, None])[..., moves] / scale[moves]
        errors.append(np.mean(gap**2))
    return float(np.sqrt(np.mean(errors)))


def by_episode(values: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Means of rows [N, ...] over each episode, in order of its number, [E, ...]."""
    return np.stack([values[episode == one].mean(0) for one in np.unique(episode)])


def crossed(statistic: Callable[..., np.ndarray], *values: np.ndarray) -> Estimate:
    """``statistic`` of the means of values [S, E], with its 95% interval over seeds and episodes.

    Percentile bootstrap: seeds and episodes are drawn independently of each other, and the same
    ones for all values.
    """
    rng = np.random.default_rng(0)
    seeds, episodes = values[0].shape
    rows = rng.integers(seeds, size=(_RESAMPLES, seeds))
    columns = rng.integers(episodes, size=(_RESAMPLES, episodes))
    drawn = [v[rows[:, :, None], columns[:, None, :]].mean((1, 2)) for v in values]
    low, high = np.quantile(statistic(*drawn), [0.025, 0.975])
    value = statistic(*(v.mean() for v in values))
    return Estimate(float(value), float(low), float(high), seeds * episodes)


def change(policy: Scores, reference: Scores, metric: str) -> Estimate:
    """By how much the metric of a policy is above that of another, as a share of the latter, on the
    seeds that both have."""
    both = [seed for seed in policy.seeds if seed in reference.seeds]
    mine, other = (
        one.values(metric)[[one.seeds.index(seed) for seed in both]] for one in (policy, reference)
    )
    power = 1.0 if metric in BANDS else 0.5
    return crossed(lambda a, b: (a / b) ** power - 1, mine, other)
