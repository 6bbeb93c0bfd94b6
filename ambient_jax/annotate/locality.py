"""Measures the optimal denoiser's receptive field at each noise level, and sigma_max from it.

At low noise the denoiser restores a step from its neighbours; the far ends of a chunk matter only
at high noise. Corrupt data whose short pieces are right may therefore train low noise levels
(Omni): sigma_max is the largest level up to which a classifier cannot tell p from q by crops as
long as the receptive field.

A crop is a window of w steps about the chunk's middle step c. The denoiser restores c from it, with
``loss(w) = E ||x0[c] - E[x0[c] | x_t[window w]]||^2 / D``, which falls with w.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import optim
from ambient_jax.models.layers import Dense, NoiseEmbedding, mish


class Losses(NamedTuple):
    """Mean squared error per dimension of the middle step."""

    levels: np.ndarray  # [L]
    widths: np.ndarray  # [W] increasing, the last is the whole chunk
    loss: np.ndarray  # [L, W]
    prior: float  # loss of the mean, the best guess without an input


def windows(horizon: int, widths) -> tuple[np.ndarray, int]:
    """Returns which steps a crop of each width shows, [W, H] booleans, and the middle step c.

    Raises:
      ValueError: unless the widths increase from at least 1 to the horizon.
    """
    widths = np.asarray(widths)
    ends = widths.size and widths[0] >= 1 and widths[-1] == horizon
    if widths.ndim != 1 or not ends or np.any(np.diff(widths) <= 0):
        raise ValueError(
            f"widths are {widths.tolist()}, expected them to increase from at least 1 to the "
            f"horizon {horizon}"
        )
    middle = (horizon - 1) // 2
    first = middle - (widths - 1) // 2
    step = np.arange(horizon)
    return (step >= first[:, None]) & (step < (first + widths)[:, None]), middle


def _columns(step, dims):
    return np.arange(step * dims, (step + 1) * dims)


def _wiener(covariance, levels, widths, dims):
    """Returns Wiener filters, whitening matrices and the filters' losses [L, W]. Filters [L, W, D,
    H * D] and whitenings [L, W, H * D, H * D] are zero outside the window."""
    size = len(covariance)
    shown, middle = windows(size // dims, widths)
    columns = _columns(middle, dims)
    filters = np.zeros((len(levels), len(shown), dims, size))
    whiten = np.zeros((*filters.shape[:2], size, size))
    loss = np.empty(filters.shape[:2])
    for i, sigma in enumerate(levels):
        alpha = np.sqrt((1 - sigma) * (1 + sigma))
        for k, window in enumerate(np.repeat(shown, dims, axis=1)):
            noised = alpha**2 * covariance[np.ix_(window, window)] + sigma**2 * np.eye(window.sum())
            cross = alpha * covariance[np.ix_(columns, window)]
            # Smooth motions at sigma = 0 have singular covariances.
            values, vectors = np.linalg.eigh(noised)
            inverse = np.where(values > 1e-12 * values[-1], 1 / np.maximum(values, 1e-300), 0)
            gain = cross @ (vectors * inverse) @ vectors.T
            filters[i, k][:, window] = gain
            whiten[i, k][np.ix_(window, window)] = (vectors * np.sqrt(inverse)) @ vectors.T
            error = covariance[np.ix_(columns, columns)] - gain @ cross.T
            loss[i, k] = max(np.trace(error), 0.0) / dims
    return filters, whiten, loss


def receptive_field(losses: Losses, tolerance: float = 0.1) -> np.ndarray:
    """Returns the least width [L] whose loss is within a tolerance of the whole chunk's.

    ``loss(w) - loss(H) <= tolerance * min(loss(H), prior - loss(H))``: the tolerance is relative to
    the remaining error or, near sigma = 1, where every loss approaches the prior's, to the error
    that denoising removes. Raises ValueError unless the tolerance is positive.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}, expected a share > 0, such as 0.1")
    whole = losses.loss[:, -1]
    allowed = tolerance * np.minimum(whole, np.maximum(losses.prior - whole, 0))
    enough = losses.loss - whole[:, None] <= allowed[:, None]
    # A wider crop cannot be worse; where it measures worse, the narrower one was good by chance.
    enough = np.logical_and.accumulate(enough[:, ::-1], axis=1)[:, ::-1]
    return losses.widths[np.argmax(enough, axis=1)]


def sigma_max(levels, field, crops, clean_probability, *, tau: float = 0.05) -> float:
    """Returns the largest level up to which crops as wide as the field do not tell p from q.

    Args:
      levels: [L] increasing.
      field: [L] receptive field at each level, in steps.
      crops: [K] increasing widths of the classifiers' crops. A field between two widths uses the
        wider; a field beyond the last uses the last.
      clean_probability: [K, L] P(clean) on corrupt crops, noised to the level, for even classes.
      tau: how far below 0.5 still counts as "cannot tell".

    Returns:
      A level, or 0 if crops differ at the first level.

    Raises:
      ValueError: the shapes disagree.
    """
    levels, field, crops = (np.asarray(v) for v in (levels, field, crops))
    c = np.asarray(clean_probability, np.float64)
    if field.shape != levels.shape or c.shape != (crops.size, levels.size):
        raise ValueError(
            f"levels {levels.shape}, field {field.shape}, crops {crops.shape}, clean_probability "
            f"{c.shape}: expected [L], [L], [K] and [K, L]"
        )
    crop = np.minimum(np.searchsorted(crops, field), crops.size - 1)
    alike = c[crop, np.arange(levels.size)] > 0.5 - tau
    count = int(np.argmin(alike)) if not alike.all() else levels.size
    return float(levels[count - 1]) if count else 0.0


class _Correction(nn.Module):
    """Computes hidden features of the correction to the linear denoiser."""

    width: int

    @nn.compact
    def __call__(self, window, sigma, crop):
        """Returns [B, width] from window [B, H * D], sigma [B] and crop [B, W] (one-hot)."""
        condition = jnp.concatenate([NoiseEmbedding(32)(sigma), crop], -1)
        condition = mish(Dense(self.width, name="told")(condition))
        h = Dense(self.width, name="in")(window)
        for i in range(3):
            scale, shift = jnp.split(Dense(2 * self.width, name=f"film_{i}")(condition), 2, -1)
            h = h + Dense(self.width, name=f"dense_{i}")(mish(h * (1 + scale) + shift))
        return h


class _Denoiser(nn.Module):
    """Predicts the best denoiser minus the linear one, in units of the linear error, [B, D]."""

    width: int
    dims: int

    @nn.compact
    def __call__(self, window, sigma, crop):
        h = _Correction(self.width, name="correction")(window, sigma, crop)
        return nn.Dense(self.dims, kernel_init=nn.initializers.zeros, name="out")(mish(h))


@dataclasses.dataclass(frozen=True)
class _Loss:
    """The loss of a batch of random chunks, levels and crops; the batch is a random key."""

    module: _Denoiser
    batch_size: int

    def error(self, params, x0, eps, level, crop, cells):
        """Returns the squared error [B] in units of the linear denoiser's."""
        sigma = cells["sigma"][level]
        alpha = jnp.sqrt((1 - sigma) * (1 + sigma))
        x_t = alpha[:, None] * x0 + sigma[:, None] * eps
        whitened = jnp.einsum("bmn,bn->bm", cells["whiten"][level, crop], x_t)
        guess = jnp.einsum("bdn,bn->bd", cells["filter"][level, crop], x_t)
        scale = cells["error"][level, crop][:, None]
        one_hot = jax.nn.one_hot(crop, cells["error"].shape[1])
        target = (x0[:, cells["middle"]] - guess) / scale
        return jnp.mean((target - self.module.apply(params, whitened, sigma, one_hot)) ** 2, -1)

    def __call__(self, params, key, shared, own):
        data, cells = shared
        keys = jax.random.split(key, 4)
        draw = lambda key, size: jax.random.randint(key, (self.batch_size,), 0, size)  # noqa: E731
        index, level, crop = map(draw, keys[:3], (len(data), *cells["error"].shape))
        eps = jax.random.normal(keys[3], (self.batch_size, data.shape[1]))
        return self.error(params, data[index], eps, level, crop, cells).mean()


@functools.partial(jax.jit, static_argnames="loss")
def _measure(params, x0, keys, cells, *, loss):
    """Returns the mean error of each level and crop, [L, W]; every cell uses the same noise."""
    levels, crops = (jnp.arange(count) for count in cells["error"].shape)
    full = lambda v: jnp.full(len(x0), v)  # noqa: E731

    def at(level):
        def draw(key):
            eps = jax.random.normal(key, x0.shape)
            error = lambda crop: loss.error(params, x0, eps, full(level), full(crop), cells)  # noqa: E731
            return jax.lax.map(lambda crop: error(crop).mean(), crops)

        return jax.lax.map(draw, keys).mean(0)

    return jax.lax.map(at, levels)


def denoising_losses(
    chunks,
    held_out,
    levels,
    widths,
    *,
    steps: int = 3000,
    batch_size: int = 512,
    width: int = 128,
    draws: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Losses:
    """Trains a denoiser on crops of every width at every level; returns its held-out losses.

    One denoiser serves all cells: the Wiener filter of the chunks' covariance, plus a network's
    correction from the whitened window. It trains on the mean squared error in units of the
    filter's.

    Args:
      chunks: [N, H, D] training chunks.
      held_out: [M, H, D] chunks of other episodes, on which the losses are measured.
      levels, widths: [L] in (0, 1), and see ``windows``.
      steps, batch_size, width, seed: options of the training with AdamW; width of the network.
      draws: noise draws of each held-out chunk, the same for every width.
      progress: show a progress bar.

    Raises:
      ValueError: chunks have another shape or are not finite, or levels lie outside (0, 1); see
        ``windows``.
    """
    chunks, held_out = (np.asarray(v, np.float32) for v in (chunks, held_out))
    for name, value in (("chunks", chunks), ("held_out", held_out)):
        if value.ndim != 3 or value.shape[1:] != chunks.shape[1:] or not len(value):
            raise ValueError(f"{name} has shape {value.shape}, expected [N, H, D], N >= 1")
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name} has NaN or infinite actions: drop those chunks first")
    levels = np.asarray(levels, np.float64)
    if not np.all((levels > 0) & (levels < 1)):
        raise ValueError(f"levels are {levels.tolist()}, expected them in (0, 1)")
    horizon, dims = chunks.shape[1:]
    mean = chunks.reshape(len(chunks), -1).mean(0)
    centred, tested = (x.reshape(len(x), -1) - mean for x in (chunks, held_out))
    covariance = centred.astype(np.float64).T @ centred / len(centred)
    filters, whiten, linear = _wiener(covariance, levels, widths, dims)
    linear = np.maximum(linear, 1e-12)
    middle = _columns((horizon - 1) // 2, dims)
    # The inputs are whitened, so that small details are as large as the path.
    cells = dict(filter=filters, error=np.sqrt(linear), whiten=whiten, sigma=levels)
    cells = {name: jnp.asarray(v, jnp.float32) for name, v in cells.items()} | {"middle": middle}
    loss, every = _Loss(_Denoiser(width, dims), batch_size), min(100, steps)
    example = jnp.zeros((1, horizon * dims)), jnp.ones(1) / 2, jnp.ones((1, linear.shape[1]))
    key = lambda i: jax.random.fold_in(jax.random.key(seed + 1), i)  # noqa: E731
    fitted = optim.fit(
        loss,
        loss.module.init(jax.random.key(seed), *example),
        [jax.random.split(key(i), every) for i in range(-(-steps // every))],
        optim.Recipe(steps),
        shared=(jnp.asarray(centred), cells),
        progress="receptive field" if progress else "",
    )
    keys = jax.random.split(jax.random.key(seed + 2), draws)
    measured = _measure(fitted.params, jnp.asarray(tested), keys, cells, loss=loss)
    # A wider crop includes a narrower one: a larger loss only means that training did worse.
    error = np.minimum.accumulate(np.asarray(measured, np.float64) * linear, axis=1)
    prior = float(np.mean(tested[:, middle[0] : middle[-1] + 1] ** 2))
    return Losses(levels, np.asarray(widths), error, prior)
