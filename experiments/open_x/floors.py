"""The least denoising loss that predictors with some of the inputs can reach, in closed form.

An episode of ``scene``: start s, each object and so the named one p are uniform on the square
[-R, R]^2, and e_{t+1} = e_t + c (p - e_t). With q = 1 - c a chunk [H, 2] at step t is

    a_j = g_tj (p - e_t),    g_tj = c q^min(j, L - 1 - t),

as past the end the last action is repeated (and masked: m_tj = 1 for t + j < L, else 0). The step
is not observed; uniform on 0..L-1 it has with p, given e = e_t, the law

    w(t, p | e) ~ q^(-2t) 1[s in the square],    s = p + (e - p) / q^t,

for the map s -> e shrinks areas by q^(2t). A noised chunk is x = alpha x0 + sigma eps, x0 = (a -
shift) / scale. The loss of a prediction h is the training's: mean of (h - x0)^2 over the valid
numbers of a row, then over rows. Its minimiser weighs each t by its number of valid entries n_t:

    h_j = E[m_tj / n_t x0_j | seen] / E[m_tj / n_t | seen].

Seen is x, e and, besides,

* the image: p is one of the n objects, each as likely. The posterior is a sum over n L atoms. The
  image is taken to show the exact places, which favours this predictor.
* the instruction: says nothing of p, which is uniform. Given t, x is linear in p with normal noise
  and p lies in a box: the posterior is a mixture over t of truncated normals, an axis each.
* both: p is known, so is every valid number, and the least loss is 0.

A network that predicts v = (alpha x - x0) / sigma has 1 / sigma^2 times the loss of its x0.
"""

import dataclasses

import numpy as np
from scipy import special

_ROUNDING = 1e-6  # places are stored in float32, m


@dataclasses.dataclass(frozen=True)
class Motion:
    """Constants R [m], c, L, H of the law; shift and scale [2] of normalised actions, m."""

    half_side: float
    rate: float
    steps: int
    horizon: int
    shift: np.ndarray
    scale: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        """g [L, H]."""
        ahead = np.minimum(np.arange(self.horizon), self.steps - 1 - np.arange(self.steps)[:, None])
        return self.rate * (1 - self.rate) ** ahead

    @property
    def mask(self) -> np.ndarray:
        """m [L, H]."""
        return np.arange(self.horizon) + np.arange(self.steps)[:, None] < self.steps

    @property
    def grown(self) -> np.ndarray:
        """1 / q^t [L]: by how much the way to the object was longer at the start."""
        return (1 - self.rate) ** -np.arange(self.steps, dtype=float)


def from_image(
    motion: Motion, effector: np.ndarray, objects: np.ndarray, x_t: np.ndarray, sigma: float
) -> np.ndarray:
    """Returns the best x0_hat [N, H, 2] of image and state.

    Given e [N, 2] and the objects' places [N, n, 2] in m, noised chunks [N, H, 2], normalised, and
    sigma in (0, 1) with alpha = sqrt(1 - sigma^2).
    """
    way = np.asarray(objects, float) - np.asarray(effector, float)[:, None]  # p - e: [N, n, 2]
    start = objects[:, :, None] - way[:, :, None] * motion.grown[:, None]  # [N, n, L, 2]
    inside = (np.abs(start) <= motion.half_side + _ROUNDING).all(-1)
    x0 = motion.gain[:, :, None] * way[:, :, None, None]  # [N, n, L, H, 2]
    x0 = (x0 - motion.shift) / motion.scale
    alpha = np.sqrt(1 - sigma**2)
    square = ((np.asarray(x_t, float)[:, None, None] - alpha * x0) ** 2).sum((-2, -1))
    prior = np.where(inside, 2 * np.log(motion.grown), -np.inf)
    weight = special.softmax(prior - square / (2 * sigma**2), axis=(1, 2))
    entry = weight[..., None] * _entry_weight(motion)  # [N, n, L, H]
    return _ratio((entry[..., None] * x0).sum((1, 2)), entry.sum((1, 2)))


def from_instruction(
    motion: Motion, effector: np.ndarray, x_t: np.ndarray, sigma: float
) -> np.ndarray:
    """Returns the best x0_hat [N, H, 2] of instruction and state; see ``from_image``."""
    e = np.asarray(effector, float)[:, None]  # [N, 1, 2]
    side, grown = motion.half_side, motion.grown[:, None]
    # The box of p [N, L, 2]: s = p + (e - p) grown lies in the square, and so does p.
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(grown > 1, (e * grown - side) / (grown - 1), -side)
        high = np.where(grown > 1, (e * grown + side) / (grown - 1), side)
    low, high = np.clip(low, -side, side), np.clip(high, -side, side)
    # x + alpha (shift + g e) / scale = b p + sigma eps, b = alpha g / scale: [N, L, H, 2].
    alpha, gain = np.sqrt(1 - sigma**2), motion.gain[:, :, None]
    b = alpha * gain / motion.scale
    offset = alpha * (motion.shift + gain * e[:, :, None]) / motion.scale
    shifted = np.asarray(x_t, float)[:, None] + offset
    precision = (b**2).sum(1) / sigma**2  # [L, 2]
    middle = (b * shifted).sum(2) / (b**2).sum(1)  # [N, L, 2]
    residual = ((shifted - b * middle[:, :, None]) ** 2).sum(2) / sigma**2
    mass, mean = _truncated(middle, precision**-0.5, low, high)
    evidence = (mass - residual / 2 - np.log(precision) / 2).sum(-1) + 2 * np.log(motion.grown)
    weight = special.softmax(evidence, axis=1)
    x0 = (gain * (mean - e)[:, :, None] - motion.shift) / motion.scale
    entry = weight[..., None] * _entry_weight(motion)  # [N, L, H]
    return _ratio((entry[..., None] * x0).sum(1), entry.sum(1))


def _entry_weight(motion):
    """Returns m_tj / n_t [L, H]."""
    return motion.mask / motion.mask.sum(1, keepdims=True)


def _ratio(total, weight):
    # Where no step with a valid entry is possible the entry is masked, and anything is right.
    return total / np.maximum(weight, 1e-300)[..., None]


def _truncated(middle, deviation, low, high):
    """Returns log mass in [low, high] of normal laws, and means there (empty box: no mass)."""
    a, b = (low - middle) / deviation, (high - middle) / deviation
    # In the lower tail, where the normal law's logarithm is exact.
    flip = a > 0
    a, b = np.where(flip, -b, a), np.where(flip, -a, b)
    top, bottom = special.log_ndtr(b), special.log_ndtr(a)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mass = np.where(b > a, top + np.log1p(-np.exp(bottom - top)), -np.inf)
        density = lambda z: np.exp(-(z**2) / 2 - mass) / np.sqrt(2 * np.pi)  # noqa: E731
        mean = np.where(flip, -1, 1) * (density(a) - density(b)) * deviation + middle
    # Far in a tail, or in an empty box, rounding is all that is left: it has no weight.
    return mass, np.clip(np.nan_to_num(mean), np.minimum(low, high), np.maximum(low, high))
