"""Finds the tau that pays for few clean episodes, with linear denoisers of known laws.

For each number of clean episodes and each tau, a Wiener filter for each noise level is fitted to
the clean episodes and to all corrupt sources that tau admits there by their exact P(clean). What it
costs on the clean law, in nats over all levels, has a closed form.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.annotate import rules
from experiments.annotate.known import DIMS, Law


def best(
    laws: Mapping[str, Law],
    levels: np.ndarray,
    curves: Mapping[str, np.ndarray],
    sizes: Sequence[int],
    *,
    taus: Sequence[float],
    horizon: int,
    steps: int,
    corrupt_episodes: int,
    draws: int = 8,
    seed: int = 0,
) -> dict[int, dict[str, object]]:
    """Returns by number of clean episodes: mean nats of each tau, the best one and the rule's.

    Args:
      laws: of "clean" and of each corrupt source, whose episodes are plenty: their moments are
        taken as exact.
      levels, curves: sigma [L], and the exact P(clean) [L] of each corrupt source.
      sizes, taus: numbers of clean episodes, and values of tau; 0 admits nothing.
      horizon, steps: of a chunk and of an episode.
      corrupt_episodes: of each corrupt source, its weight beside the clean ones.
      draws, seed: data sets to average over, and their seed.
    """
    clean = laws["clean"]
    names = list(curves)
    covariance, mean = clean.covariance(horizon), np.full(horizon, clean.offset)
    seconds = {n: laws[n].covariance(horizon) + laws[n].offset ** 2 for n in names}
    root = np.linalg.cholesky(clean.covariance(steps) + 1e-9 * np.eye(steps))
    parameters = DIMS * horizon + DIMS * horizon * (horizon + 1) // 2
    found: dict[int, dict[str, object]] = {}
    for size in sizes:
        rng, cost = np.random.default_rng([seed, size]), np.zeros((draws, len(taus)))
        for draw in range(draws):
            episodes = clean.offset + rng.normal(size=(size, steps)) @ root.T
            chunks = np.lib.stride_tricks.sliding_window_view(episodes, horizon, 1)
            chunks = chunks.reshape(-1, horizon)
            first, second = chunks.mean(0), chunks.T @ chunks / len(chunks)
            for t, tau in enumerate(taus):
                fitted = []
                for k in range(len(levels)):
                    used = [n for n in names if tau and curves[n][k] > 0.5 - tau]
                    weight = np.array([size] + [corrupt_episodes] * len(used), float)
                    weight /= weight.sum()
                    means = np.stack([first, *(np.full(horizon, laws[n].offset) for n in used)])
                    middle = weight @ means
                    squares = np.stack([second, *(seconds[n] for n in used)])
                    whole = np.tensordot(weight, squares, 1) - np.outer(middle, middle)
                    fitted.append((middle, whole))
                risk = DIMS * rules.linear_risk(mean, covariance, levels, fitted)
                cost[draw, t] = rules.nats(levels, risk / (horizon * DIMS), horizon * DIMS)[0]
        costs = cost.mean(0)
        rule = rules.tau_of(size * steps / horizon, parameters)
        found[size] = {"nats": costs, "best": taus[int(np.argmin(costs))], "rule": rule}
        found[size]["nats_of_rule"] = float(np.interp(rule, taus, costs))
    return found
