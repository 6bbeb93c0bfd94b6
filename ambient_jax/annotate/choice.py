"""Decides from held-out losses which noise levels corrupt data train, and how much they count.

Two questions, asked of policies that have not seen the episodes they are judged on:

* How large a share, and from which level on? The loss, averaged over levels on a log scale, is
  nearly flat around its least value. Of the candidates that ``keep`` most of the gain over clean
  data only, or differ by less than the error of the difference, the one that relies most on clean
  data is taken: the largest sigma_min, then the largest share. Clean data only are taken if the
  gain is below ``least``. A fold trains on a part of the clean episodes, so losses favour corrupt
  data.
* Up to which level? A mean forgives rare large mistakes, a rollout does not: what brings the block
  to the wrong bin in one chunk of forty costs little loss. So chunks are counted that a policy of
  clean data gets right and the mixture gets wrong by more than ``wrong`` of the actions' variance.
  Corrupt data train the levels at which an episode has fewer than ``broken`` such decisions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ambient_jax.annotate import thresholds
from ambient_jax.annotate.candidates import Candidate, Measured


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The noise levels at which corrupt data help.

    Attributes:
      candidate: the chosen share and sigma_min; ``Candidate(1.0)`` for clean data only.
      sigma_max: corrupt data train below it; 1 if nothing speaks against high noise levels.
      levels: [L] sigma.
      ratio, low, high: [L] log ratio of the mixture's held-out loss to that of clean data only,
        with its 95% interval over clean episodes; the mixture has no bounds.
      broken: [L] decisions of an episode that this mixture breaks.
      scores: by candidate's name, the mean log loss relative to the least.
      natural: share of clean data by number of samples.
    """

    candidate: Candidate
    sigma_max: float
    levels: np.ndarray
    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray
    broken: np.ndarray
    scores: dict[str, float]
    natural: float

    @property
    def clean_only(self) -> bool:
        """Whether corrupt data train no level."""
        return self.candidate.alpha == 1 or self.sigma_max <= self.candidate.sigma_min

    @property
    def bounds(self) -> tuple[float, float] | None:
        """(sigma_min, sigma_max) of the corrupt data; None for a band, which bounds cannot say."""
        if self.clean_only:
            return 1.0, 0.0
        if self.sigma_max >= 1:
            return self.candidate.sigma_min, 0.0 if self.candidate.sigma_min else 1.0
        return (1.0, self.sigma_max) if self.candidate.sigma_min == 0 else None

    def changes(self, corrupt: list[str]) -> dict[str, Any]:
        """Returns config fields of the law, and of the bounds of the sources named ``corrupt``."""
        if self.clean_only:
            return {"law.name": "filtering"}
        alpha = self.candidate.alpha
        if self.bounds is None:
            share = self.natural if alpha is None else alpha
            low, high = self.candidate.sigma_min, self.sigma_max
            after = lambda level: float(np.nextafter(np.float32(level), np.float32(1)))  # noqa: E731
            ends = (0.0, low, after(low), high, after(high), 1.0)
            alphas = (1.0, 1.0, share, share, 1.0, 1.0)
            return {"law.name": "soft", "law.sigmas": ends, "law.alphas": alphas}
        law = {"law.name": "ambient"} | ({} if alpha is None else {"law.alpha": alpha})
        low, high = self.bounds
        for name in corrupt:
            law |= {f"data.sources.{name}.sigma_min": low, f"data.sources.{name}.sigma_max": high}
        return law


def choose(
    measured: Measured,
    *,
    corrupt: tuple[str, ...] | None = None,
    least: float = 0.05,
    keep: float = 0.95,
    wrong: float = 0.2,
    broken: float = 0.3,
    resamples: int = 1000,
    seed: int = 0,
) -> Choice:
    """Chooses the share, sigma_min and sigma_max of corrupt data, see the module.

    Args:
      measured: losses of ``Candidate(1.0)``, of shares without bounds, and of shares with some
        sigma_min.
      corrupt: choose for the candidates that use just these sources; None for those that use all.
      least: gain in mean log loss over clean data only below which no corrupt data are used.
      keep: least part of this gain.
      wrong: share of the variance of clean actions.
      broken: decisions of an episode.
      resamples, seed: of the bootstrap over clean episodes.

    Raises:
      ValueError: there is no candidate of clean data only, or none without bounds of some share.
    """
    clean = Candidate(1.0)
    mixed = [c for c in measured.candidates if c.alpha != 1 and c.corrupt == corrupt]
    shares = [c for c in mixed if c.sigma_min == c.sigma_max == 0]
    if clean not in measured.candidates or not shares:
        names = ", ".join(c.name for c in measured.candidates)
        raise ValueError(
            f"candidates are {names}: expected clean data only, Candidate(1.0), and a share "
            "without bounds, such as Candidate(0.5)"
        )
    for c in mixed:
        if c.sigma_max == 0 and c._replace(sigma_min=0.0) not in shares:
            raise ValueError(
                f"candidate {c.name} has no counterpart without bounds, expected "
                f"{c._replace(sigma_min=0.0)!r} too: it tells which high noise levels break"
            )
    weights = _resampled(measured.episode, resamples, seed)
    log_loss = {c: _log_means(measured.of(c).mean(0), weights) for c in (clean, *mixed)}
    options = [clean, *shares, *(c for c in mixed if c.sigma_min > 0 == c.sigma_max)]
    options.sort(key=lambda c: (c.sigma_min, _share(c, measured)) if c != clean else (1.0, 1.0))
    # First with the share of the least loss, as high levels count only where they are not broken.
    base = min(shares, key=lambda c: log_loss[c][0].mean())
    below = measured.levels < _crossing(measured, base, wrong, broken)[0]
    score = {c: log_loss[c][:, below].mean(1) for c in options} if below.any() else {}
    chosen = clean
    if score:
        best = min(options, key=lambda c: score[c][0])
        gain = score[clean][0] - score[best][0]
        for c in options if gain >= least else ():
            excess = score[c] - score[best]
            if excess[0] <= max((1 - keep) * gain, excess[1:].std()):
                chosen = c
    if chosen != clean:
        base = chosen._replace(sigma_min=0.0)
    sigma_max, rate = _crossing(measured, base, wrong, broken)
    ratio = log_loss[base] - log_loss[clean]
    low, high = np.quantile(ratio[1:], (0.025, 0.975), axis=0)
    least = min((s[0] for s in score.values()), default=0.0)
    scores = {c.name: float(s[0] - least) for c, s in score.items()}
    curves = measured.levels, ratio[0], low, high, rate
    return Choice(chosen, sigma_max, *curves, scores, measured.natural)


def _share(candidate, measured):
    return measured.natural if candidate.alpha is None else candidate.alpha


def _resampled(episode, resamples, seed):
    """Returns weights [1 + resamples, E] of episodes: 1 each, and counts of draws with replacement,
    and the episode of each chunk."""
    count = int(episode.max()) + 1
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), draws]), episode


def _log_means(losses, weights):
    """Returns the log of mean losses [1 + resamples, L] of chunks [L, N]."""
    weights, episode = weights
    count = weights.shape[1]
    sums = np.stack([np.bincount(episode, row, count) for row in losses])  # [L, E]
    return np.log(weights @ sums.T / (weights @ np.bincount(episode, minlength=count))[:, None])


def _crossing(measured, share, wrong, limit):
    """Returns the level at which a share without bounds begins to break more decisions than the
    limit (1 if it never does), by interpolation, and the decisions that it breaks [L]."""
    gap = measured.of(share).mean(0) - measured.of(Candidate(1.0)).mean(0)
    rate = (gap > wrong * measured.variance).mean(1) * measured.decisions
    rising, levels = thresholds.isotonic(rate), measured.levels
    over = np.flatnonzero(rising > limit)
    if not over.size:
        return 1.0, rising
    first = over[0]
    if not first:
        return 0.0, rising
    part = (limit - rising[first - 1]) / (rising[first] - rising[first - 1])
    return float(levels[first - 1] + part * (levels[first] - levels[first - 1])), rising
