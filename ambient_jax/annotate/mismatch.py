"""Measures at which noise levels a corrupt source's denoiser fails on clean chunks.

A corrupt source may train a level where the best denoiser of its law q agrees with that of the
clean law p on noised chunks of p. Its cost there is the excess loss

    e(sigma) = E_p ||x0 - D_q(x_t, O)||^2 - E_p ||x0 - D_p(x_t, O)||^2 = E_p ||D_p - D_q||^2,

with D = E[x0 | x_t, O]. Where x_t still shows the decision, e vanishes, even if a classifier
separates p and q. At sigma = 1, e is E ||E_p[x0 | O] - E_q[x0 | O]||^2, the whole disagreement.

Three ways to measure e, none of which depends on p(O) / q(O):

* two denoisers, or one that is conditioned on the source (``evaluate.evaluation.differences``);
* the logit L(O, x_t, sigma) = log p/q of a classifier of (O, x_t). By Tweedie's formula (Robbins
  1956, Efron 2011) ``D_p - D_q = sigma^2 / alpha grad_x L``;
* the conditional relative entropy KL(sigma) = E_p[L(O, x_t, sigma)] - E_p[L(O)], whose slope in
  snr = alpha^2 / sigma^2 is e / 2 (Verdu 2010, theorem 1).

sigma_max is the level up to which e stays below a share tau of its largest value.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption, schedules
from ambient_jax.annotate import classifier, thresholds
from ambient_jax.data import device

Array = jax.Array


class Judged(NamedTuple):
    """A classifier's outputs on N chunks at L levels."""

    # [N, L] mean square of the Tweedie difference, e / (H D) where the logit is exact.
    excess: np.ndarray
    # [N, L] L(O, x_t, sigma) - L(O), whose mean over clean chunks is KL(sigma).
    logit: np.ndarray


def tweedie_difference(logit: Callable[[Array], Array], x_t: Array, sigma: Array) -> Array:
    """Returns ``E_p[x0 | x_t] - E_q[x0 | x_t]`` of one sample.

    It is sigma^2 / alpha times the gradient of ``logit``, log p_sigma / q_sigma up to a constant: a
    scalar function of x_t (variance preserving, any shape) at the noise level sigma in (0, 1).
    """
    return jax.grad(logit)(x_t) * (sigma**2 / schedules.signal(sigma))


def lost(divergence) -> np.ndarray:
    """Returns the share of a relative entropy [L] that noise destroys, by an isotonic fit.

    It is 1 at every level if no entropy is above 0.
    """
    entropy = -thresholds.isotonic(-np.asarray(divergence, np.float64))
    return 1 - np.maximum(entropy, 0) / entropy[0] if entropy[0] > 0 else np.ones_like(entropy)


def sigma_max(levels, disagreement, *, tau: float = 0.05) -> float:
    """Returns the level up to which a disagreement stays below a share of its largest value.

    Args:
      levels: [L] increasing, in [0, 1]; the last near 1.
      disagreement: [L] of any unit, such as e, or the share of KL that is ``lost``.
      tau: the share.

    Returns:
      The first crossing, linear between two levels; the first level if the disagreement is above
      the share there; 1 if there is no disagreement.

    Raises:
      ValueError: the shapes disagree, a value is not finite, or tau lies outside (0, 1).
    """
    levels, value = (np.asarray(v, np.float64) for v in (levels, disagreement))
    if levels.ndim != 1 or value.shape != levels.shape or np.any(np.diff(levels) <= 0):
        raise ValueError(
            f"levels have shape {levels.shape} and disagreement {value.shape}: expected [L] and "
            "[L], levels increasing"
        )
    if not np.all(np.isfinite(value)) or not 0 < tau < 1:
        raise ValueError(
            f"disagreement {value.tolist()} and tau {tau}, expected finite values and a share in "
            "(0, 1)"
        )
    if not value.max() > 0:
        return 1.0
    share = value / value.max()
    first = int(np.argmax(share > tau))
    if not first:
        return float(levels[0])
    part = (tau - share[first - 1]) / (share[first] - share[first - 1])
    return float(levels[first - 1] + part * (levels[first] - levels[first - 1]))


def by_classifier(
    fitted: classifier.Fitted,
    data: device.DeviceData,
    positions,
    levels,
    *,
    pair: int = 0,
    draws: int = 2,
    batch_size: int = 512,
    seed: int = 0,
) -> Judged:
    """Judges chunks with the classifier that was not trained on them, averaged over noise draws.

    For the arguments see ``classifier.probabilities``; ``fitted`` needs ``observed``, ``positions``
    [N] are those of clean chunks, ``levels`` [L] lie in (0, 1).
    """
    ask = functools.partial(_excess_and_logit, draws=draws)
    answers = classifier.by_fold(
        ask, fitted, data, np.asarray(positions), pair, levels, batch_size, seed
    )
    return Judged(*np.moveaxis(answers.astype(np.float64), 1, 0))


@functools.partial(jax.jit, static_argnames=("network", "options", "draws"))
def _excess_and_logit(
    data, levels, pairs, member, positions, pair, key, *, network, options, draws
):
    """Returns the two fields of ``Judged``, [B, 2, L]."""
    observation, x0, eps = classifier.cut(data, positions, options, key)
    params, temperature = member

    def logits(x_t, sigma, scale):
        level = jnp.full(len(x0), sigma)
        return network.apply(params, x_t, level, pair, pairs, observation) / scale

    def at(sigma):
        scale = classifier.temperature_at(sigma, temperature, pair)

        def judge(draw):
            x_t = corruption.add_noise(x0, eps(draw), sigma)
            # Rows are independent: the gradient of the sum has the gradient of each row.
            difference = tweedie_difference(lambda x: logits(x, sigma, scale).sum(), x_t, sigma)
            gain = logits(x_t, sigma, scale) - logits(x_t, 1.0, scale)
            return jnp.stack([jnp.mean(difference**2, axis=(1, 2)), gain])

        return jax.lax.map(judge, jnp.arange(draws)).mean(0)

    return jnp.transpose(jax.lax.map(at, levels), (2, 1, 0))
