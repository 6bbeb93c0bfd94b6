"""Finds the tau that pays for few clean episodes, with linear denoisers of known laws.

For each number of clean episodes and each tau, a Wiener filter for each noise level is fitted to
the clean episodes and to the corrupt sources that tau admits there by their exact P(clean). What it
costs on the clean law, in nats over all levels, has a closed form.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.annotate import rules
from experiments.annotate.known import DIMS, Law


class Paid(NamedTuple):
    """What each tau costs for one number of clean episodes, in nats.

    Attributes:
      together: [tau] with all sources that tau admits.
      alone: [tau] with one source only, the mean over sources.
      rule: ``rules.tau_of`` the gap of the filters of clean data only.
    """

    together: np.ndarray
    alone: np.ndarray
    rule: float


def costs(
    laws: Mapping[str, Law],
    levels: np.ndarray,
    curves: Mapping[str, np.ndarray],
    sizes: Sequence[int],
    *,
    taus: Sequence[float],
    horizon: int,
    steps: int,
    corrupt_episodes: int,
    draws: int = 3,
    seed: int = 0,
) -> dict[int, Paid]:
    """Returns what each tau costs, by number of clean episodes.

    Args:
      laws: of "clean" and of each corrupt source, whose moments are taken as exact.
      levels, curves: sigma [L], and the exact P(clean) [L] of each corrupt source.
      sizes, taus: numbers of clean episodes, and values of tau; 0 admits nothing.
      horizon, steps: of a chunk and of an episode.
      corrupt_episodes: of each corrupt source, its weight beside the clean ones.
      draws, seed: clean data sets to average over, and their seed.
    """
    clean, names = laws["clean"], list(curves)
    law = np.full(horizon, clean.offset), clean.covariance(horizon)
    means = np.stack([np.full(horizon, laws[n].offset) for n in names])
    seconds = np.stack([laws[n].covariance(horizon) + laws[n].offset ** 2 for n in names])
    root = np.linalg.cholesky(clean.covariance(steps) + 1e-9 * np.eye(steps))
    table = np.stack([curves[n] for n in names])  # [K, L]

    def nats(excess):
        return rules.nats(levels, DIMS * excess / horizon, horizon)[0]

    def cost(first, second, size, admitted):
        """Returns the nats of filters of the clean moments and of admitted [K, L] sources."""
        fitted = []
        for used in admitted.T:
            weight = np.concatenate([[size], corrupt_episodes * used])
            weight = weight / weight.sum()
            middle = weight[0] * first + weight[1:] @ means
            whole = weight[0] * second + np.tensordot(weight[1:], seconds, 1)
            fitted.append((middle, whole - np.outer(middle, middle)))
        return nats(rules.linear_risk(*law, levels, fitted))

    found = {}
    for size in sizes:
        rng, together, alone, gaps = np.random.default_rng([seed, size]), [], [], []
        for _ in range(draws):
            episodes = clean.offset + rng.normal(size=(size, steps)) @ root.T
            chunks = np.lib.stride_tricks.sliding_window_view(episodes, horizon, 1)
            chunks = chunks.reshape(-1, horizon)
            own = chunks.mean(0), chunks.T @ chunks / len(chunks)
            admitted = [(table > 0.5 - tau) & (tau > 0) for tau in taus]
            together.append([cost(*own, size, used) for used in admitted])
            each = np.eye(len(names), dtype=bool)[:, :, None]
            alone.append([np.mean([cost(*own, size, a & k) for k in each]) for a in admitted])
            least = [rules.least_loss(c, levels) for c in (law[1], np.cov(chunks.T, bias=True))]
            # The held-out loss is the law's own least loss and the risk.
            gaps.append(together[-1][0] if taus[0] == 0 else cost(*own, size, 0 * admitted[0]))
            gaps[-1] += nats(least[0] - least[1])
        found[size] = Paid(np.mean(together, 0), np.mean(alone, 0), rules.tau_of(np.mean(gaps)))
    return found
