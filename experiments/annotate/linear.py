"""The rules with a linear denoiser for each noise level, whose fit and gradients have closed forms.

x0_hat = A z with z = (x_t, 1), from the second moments of a source's chunks. A policy of several
sources is the least squares of their weighted moments. No training, so no error of training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special


class Moments(NamedTuple):
    """E z z^T [..., L, F + 1, F + 1], E x0 z^T [..., L, F, F + 1], E |x0|^2 [...] of sources."""

    inputs: np.ndarray
    cross: np.ndarray
    square: np.ndarray


def moments(x0: np.ndarray, levels: np.ndarray) -> Moments:
    """Returns the moments of chunks x0 [N, F] noised to each level [L]; the noise's are exact."""
    x0 = np.asarray(x0, np.float64)
    size, alpha = x0.shape[1], np.sqrt(1 - levels**2)[:, None, None]
    mean, second = x0.mean(0), x0.T @ x0 / len(x0)
    inputs = np.ones((len(levels), size + 1, size + 1))
    inputs[:, :size, :size] = alpha**2 * second + levels[:, None, None] ** 2 * np.eye(size)
    inputs[:, :size, size] = inputs[:, size, :size] = alpha[:, 0] * mean
    cross = np.concatenate([alpha * second, np.tile(mean[:, None], (len(levels), 1, 1))], -1)
    return Moments(inputs, cross, np.trace(second))


def stack(sources: Sequence[Moments]) -> Moments:
    """Returns the moments of K sources with a leading axis [K]."""
    return Moments(*(np.stack(fields) for fields in zip(*sources, strict=True)))


def fit(of: Moments, weight: np.ndarray) -> np.ndarray:
    """Returns A [L, F, F + 1], the least squares of K sources with weights [K] or [L, K]."""
    weight = np.broadcast_to(weight, (of.inputs.shape[1], len(of.inputs)))
    inputs, cross = (np.einsum("lk,klij->lij", weight, m) for m in (of.inputs, of.cross))
    return np.linalg.solve(inputs, np.swapaxes(cross, -1, -2)).swapaxes(-1, -2)


def losses(of: Moments, policy: np.ndarray) -> np.ndarray:
    """Returns E |x0_hat - x0|^2 per number [K, L] of a policy A [..., L, F, F + 1] on K sources."""
    quadratic = np.einsum("...lfi,...lij,...lfj->...l", policy, of.inputs, policy, optimize=True)
    linear = np.einsum("...lfi,...lfi->...l", policy, of.cross)
    return (quadratic - 2 * linear + of.square[..., None]) / policy.shape[-2]


def gradients(of: Moments, policy: np.ndarray) -> np.ndarray:
    """Returns the gradients [K, L, F, F + 1] of ``losses`` in A."""
    return 2 * (policy @ of.inputs - of.cross) / policy.shape[-2]


def influence(of: Moments, clean: Moments, other: Moments, policy: np.ndarray) -> np.ndarray:
    """Returns inner products [K + 1, L] of gradients with that of ``clean``: of K sources, and last
    of ``other``, clean chunks that ``clean`` does not have."""
    slope = gradients(clean, policy)
    each = np.concatenate([gradients(of, policy), gradients(other, policy)[None]])
    return np.sum(each * slope, (-2, -1))


def group_dro(
    of: Moments, reference: np.ndarray, rate: float, updates: int, scale: np.ndarray
) -> np.ndarray:
    """Returns weights [L, K] of exponentiated gradient on the excess loss of the weighted policy.

    One update multiplies each weight by exp(rate * excess) (Sagawa et al. 2020, arXiv:1911.08731,
    algorithm 1; with a reference DoReMi, arXiv:2305.10429, and Re-Mix, arXiv:2408.14037, which also
    average over updates). Each update fits the policy to the new weights.

    Args:
      of: moments of K sources.
      reference: losses [K, L] of the reference; 0 for none.
      rate: step size of the logarithm of the weights.
      updates: number of updates, over which weights are averaged.
      scale: [L] that the excess is divided by.
    """
    count = len(of.inputs)
    log_weight = np.full((reference.shape[1], count), -np.log(count))
    total = np.zeros_like(log_weight)
    for _ in range(updates):
        weight = scipy.special.softmax(log_weight, axis=-1)
        total += weight
        excess = (losses(of, fit(of, weight)) - reference) / scale
        log_weight = np.log(weight + 1e-12) + rate * excess.T
    return total / updates


def excess_over_own(halves: tuple[Moments, Moments], clean: Moments) -> np.ndarray:
    """Returns the loss [K, L] of the clean policy on each source less that of the source's own.

    An own policy fitted to n chunks is too good on them by as much as it is too bad on others, to
    first order. So it is fitted to one half of the episodes and measured on both.
    """
    reference = fit(stack([clean]), np.ones(1))
    found = []
    for fitted in halves:
        own = np.stack(
            [
                fit(Moments(*(m[k : k + 1] for m in fitted)), np.ones(1))
                for k in range(len(fitted.inputs))
            ]
        )
        found += [losses(judged, reference) - losses(judged, own) for judged in halves]
    return np.mean(found, 0)


def excess_of_pair(halves: tuple[Moments, Moments], clean: tuple[Moments, Moments]) -> np.ndarray:
    """Returns the mean loss [K, L] of a policy of clean data and one source, in equal parts, less
    that of the two own policies; ``nats`` of it is about their Jensen-Shannon divergence.

    The own policies are fitted to one half of the episodes and measured on both, as above.
    """
    found = []
    for fitted, first in zip(halves, clean, strict=True):
        ours = fit(stack([first]), np.ones(1))
        for k in range(len(fitted.inputs)):
            one = Moments(*(m[k] for m in fitted))
            both, own = fit(stack([first, one]), np.full(2, 0.5)), fit(stack([one]), np.ones(1))
            excess = []
            for judged, other in zip(halves, clean, strict=True):
                source = Moments(*(m[k] for m in judged))
                excess.append(losses(source, both) - losses(source, own))
                excess.append(losses(other, both) - losses(other, ours))
            found.append(np.mean(excess, 0))
    return np.mean(np.reshape(found, (2, len(halves[0].inputs), -1)), 0)
