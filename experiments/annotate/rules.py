"""Rules that bound many sources at a cost that grows with their number only; pure functions.

All take one value for each noise level and source, as a single policy measures them.
"""

from typing import Any

import numpy as np

from ambient_jax.annotate import thresholds


def crossing(levels: np.ndarray, curves: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the level [...] at which the increasing fit to curves [..., L] passes a threshold.

    It is ``thresholds.sigma_min`` for values of any size: 0 for a curve above the threshold at all
    levels, 1 for one that is not above it at the last.
    """
    gap = np.asarray(curves, np.float64) - threshold
    size = max(np.abs(gap).max(), 1e-300)
    return thresholds.sigma_min(levels, 0.25 + 0.2 * gap / size, tau=0.25, rule="isotonic")


def alignment(of_source: np.ndarray, of_clean: np.ndarray) -> np.ndarray:
    """Returns influence [..., L] relative to the influence [L] of other clean chunks.

    It is 1 for a source with the clean law: its gradient is the clean one. Below 0 a step on the
    source raises the clean loss. Where clean influence is not positive, noise hides the gradient
    and the result is 1: nothing speaks against the source.
    """
    clean = np.asarray(of_clean, np.float64)
    ratio = np.asarray(of_source) / np.where(clean > 0, clean, 1)
    return np.where(clean > 0, ratio, 1.0)


def nats(levels: np.ndarray, excess: np.ndarray, numbers: int) -> np.ndarray:
    """Returns 1/2 the integral [..., L] of an excess loss over snr, from 0 to that of each level.

    With the excess E_q |D_p - x0|^2 - |D_q - x0|^2 it is KL(q_sigma || p_sigma) (Verdu 2010,
    "Mismatched estimation and relative entropy"), by the trapezoidal rule.

    Args:
      levels: [L] increasing sigma in (0, 1); snr = (1 - sigma^2) / sigma^2.
      excess: [..., L] mean per number of a chunk of squared error of x0_hat.
      numbers: numbers in a chunk, H D.
    """
    levels = np.asarray(levels, np.float64)
    snr = 1 / levels**2 - 1
    excess = numbers * np.asarray(excess, np.float64)
    edges = np.append(snr, 0.0)  # the last level's excess holds down to snr 0
    excess = np.append(excess, excess[..., -1:], axis=-1)
    steps = 0.5 * (excess[..., :-1] + excess[..., 1:]) * (edges[:-1] - edges[1:])
    return 0.5 * np.cumsum(steps[..., ::-1], axis=-1)[..., ::-1]


def tau_of(gap: float, most: float = 0.25) -> float:
    """Returns the tau up to which one source pays, from what the clean data leave unknown.

    Near 1/2, P(clean) = 1/2 - KL / 4 to second order, so tau admits sources that differ by at most
    KL = 4 tau. A law of d parameters fitted to n samples is off by KL = d / (2 n) on average, half
    of the gap between its held-out and its training loss, which is d / n. To admit a source of many
    chunks trades the second for the first: it pays up to tau = gap / 8, which falls as 1 / n.

    Args:
      gap: held-out less training loss of a policy of clean data only, in nats (``nats``).
      most: largest tau.
    """
    return float(np.clip(gap / 8, 0, most))


def linear_risk(
    mean: np.ndarray, covariance: np.ndarray, levels: np.ndarray, fitted: list[Any]
) -> np.ndarray:
    """Returns E |D_hat - D|^2 [L] of Wiener filters that were fitted at each level.

    Args:
      mean, covariance: [H] and [H, H] of the clean law, whose denoiser D is linear.
      levels: [L] sigma.
      fitted: mean and covariance that the filter of each level has.
    """
    risk = []
    for sigma, (other, guess) in zip(levels, fitted, strict=True):
        alpha, noise = np.sqrt(1 - sigma**2), sigma**2 * np.eye(len(mean))
        noised = alpha**2 * covariance + noise
        best = alpha * np.linalg.solve(noised, covariance).T
        own = alpha * np.linalg.solve(alpha**2 * guess + noise, guess).T
        shift = (np.eye(len(mean)) - alpha * own) @ (other - mean)
        change = own - best
        risk.append(shift @ shift + np.sum((change @ noised) * change))
    return np.array(risk)


def least_loss(covariance: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Returns the loss [L], summed over numbers, of a law's own Wiener filter."""
    values = np.maximum(np.linalg.eigvalsh(covariance), 0)
    noise = levels[:, None] ** 2
    return np.sum(values * noise / ((1 - noise) * values + noise), axis=1)
