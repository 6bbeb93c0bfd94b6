"""Measures how a training step on a chunk changes a policy's loss on clean data, by noise level.

A small step against the gradient of the loss l_i of chunk i changes the clean loss C at the same
noise level by

    C(theta - h grad l_i) = C(theta) - h <grad C, grad l_i> + O(h^2).

The influence of a chunk is this inner product: positive where training on it lowers the clean loss.
It is the derivative of l_i in the direction of grad C. So one clean gradient for each level, and
one product of the losses' Jacobian with it for each batch of chunks, give it for every chunk. No
gradient of a single chunk is stored.

It is TracIn (Pruthi et al. 2020, arXiv:2002.08484) at one checkpoint, resolved by noise level. LESS
(Xia et al. 2024, arXiv:2402.04333) takes the inner product as Adam scales it, which is
``preconditioner`` here. CUPID (Agia et al. 2025, arXiv:2506.19121) selects demonstrations of robots
by influence on the return of rollouts; this module needs no rollout.

>>> values = influence(policy, clean, pile)                   # [L, N]
>>> slope = gradient(policy, clean)                           # once, for many data sets:
>>> values = [along(policy, slope, pile) for pile in piles]   # [L, N] of each
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption, losses
from ambient_jax.evaluate.evaluation import LEVELS, Chunks
from ambient_jax.policy.policy import Policy

Array = jax.Array


def influence(
    policy: Policy,
    clean: Chunks,
    pile: Chunks,
    *,
    levels: tuple[float, ...] = LEVELS,
    params: Any = None,
    preconditioner: Any = None,
    draws: int = 1,
    seed: int = 0,
    batch: int = 512,
) -> np.ndarray:
    """Returns the influence [L, N] of each chunk of the pile on the clean loss at each level.

    Both losses are the training's denoising loss at one level (see ``evaluation.row_losses``),
    averaged over the noise draws and, for the clean one, over the chunks. If each source has a map
    of its own to normalised units, call ``gradient`` and ``along`` with the policy of each source.

    Args:
      policy: its network is differentiated.
      clean: chunks in data units. Those that the policy was not trained on are the better judges.
      pile: N chunks in data units.
      levels: L noise levels sigma in (0, 1). The clean gradients of all are held in memory.
      params: parameters in place of the policy's, such as those of another step.
      preconditioner: factors like ``params`` that multiply the clean gradient, such as
        1 / (sqrt(v) + eps) of Adam with its second moment v; None for none.
      draws: noise draws of each chunk at each level.
      seed: seed of the noise, which depends on the chunk's place and differs between ``clean`` and
        ``pile``: chunks that are in both do not share it.
      batch: chunks per batch, which bounds the memory.

    Raises:
      ValueError: there are no chunks, no clean chunk has a valid number, an observation is wrong,
        or levels, draws or batch are out of range.
    """
    options: Any = dict(levels=levels, params=params, draws=draws, batch=batch)
    slope = gradient(policy, clean, seed=seed, **options)
    if preconditioner is not None:
        slope = jax.tree.map(lambda s, f: s * f, slope, preconditioner)
    return along(policy, slope, pile, seed=seed + 1, **options)


def gradient(
    policy: Policy,
    chunks: Chunks,
    *,
    levels: tuple[float, ...] = LEVELS,
    params: Any = None,
    draws: int = 1,
    seed: int = 0,
    batch: int = 512,
) -> Any:
    """Returns the gradient of the chunks' mean loss at each level: like ``params``, with a leading
    axis [L]. Chunks without a valid number do not count. See ``influence``."""
    params, levels = policy.params if params is None else params, _levels(levels)
    total: Any = None
    count = 0.0
    for rows in _batches(policy, chunks, seed, batch):
        part = _gradient(policy, params, rows, levels, _draws(draws))
        total = part if total is None else jax.tree.map(jnp.add, total, part)
        count += float(np.sum(rows["counts"]))
    if not count:
        raise ValueError(
            f"none of the {len(chunks.action)} chunks has a step inside its episode in a dimension "
            "that the policy's robot has, expected one at least: there is no loss to differentiate"
        )
    return jax.tree.map(lambda g: g / count, total)


def along(
    policy: Policy,
    direction: Any,
    chunks: Chunks,
    *,
    levels: tuple[float, ...] = LEVELS,
    params: Any = None,
    draws: int = 1,
    seed: int = 1,
    batch: int = 512,
) -> np.ndarray:
    """Returns the derivative [L, N] of each chunk's loss at each level in the level's direction.

    ``direction`` is like ``params`` with a leading axis [L], such as ``gradient`` returns; a chunk
    without a valid number gets 0. For the other arguments see ``influence``; give ``gradient``
    another seed than this.
    """
    params, levels = policy.params if params is None else params, _levels(levels)
    direction = jax.tree.map(jnp.asarray, direction)
    found = [
        np.asarray(_along(policy, params, direction, rows, levels, _draws(draws)))[:, : rows["n"]]
        for rows in _batches(policy, chunks, seed, batch)
    ]
    return np.concatenate(found, axis=1)


def _batches(policy, chunks, seed, batch):
    """Yields the inputs of batches of one shape; the last is filled up with rows that do not count.

    Observations are checked and, where float32 is too coarse for data units, normalised.
    """
    total = len(chunks.action)
    if total < 1 or batch < 1:
        raise ValueError(f"{total} chunks in batches of {batch}, expected at least 1 of each")
    size = min(batch, total)
    observation = policy.prepared(chunks.observation)
    x0 = policy.normalised(chunks.action)
    valid = np.broadcast_to(np.asarray(chunks.mask, bool)[..., None], x0.shape)
    if policy.action_mask is not None:
        valid = valid & np.asarray(policy.action_mask)
    arrays = observation, x0, valid
    for first in range(0, total, size):
        place = np.arange(first, first + size)
        inside = place < total
        at = np.where(inside, place, first)
        rows = jax.tree.map(lambda a, at=at: np.asarray(a)[at], arrays)
        counts = inside & rows[2].any((1, 2))
        yield _Rows(zip(_FIELDS, (*rows, place, counts, seed, int(inside.sum())), strict=True))


_FIELDS = "observation", "x0", "valid", "place", "counts", "seed", "n"
_Rows = dict[str, Any]


def _losses(policy, params, rows, sigma, draw):
    """Returns the loss [B] of each row at one level, with the noise of one draw."""
    shape = rows["x0"].shape[1:]
    key = jax.random.fold_in(jax.random.key(rows["seed"]), draw)
    noise = lambda i: jax.random.normal(jax.random.fold_in(key, i), shape)  # noqa: E731
    eps = corruption.coloured(jax.vmap(noise)(rows["place"]), policy.schedule)
    x0 = rows["x0"].astype(eps.dtype)
    x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(x0, eps)
    h = policy.denoiser(params, rows["observation"], policy.chain.wide)(x_t, sigma)
    one = functools.partial(losses.denoising_loss, prediction=policy.prediction)
    return jax.vmap(lambda h, x, e, m: one(h, x, e, sigma, mask=m))(h, x0, eps, rows["valid"])


@functools.partial(jax.jit, static_argnums=0)
def _gradient(policy, params, rows, levels, draws):
    """Returns the gradient [L, ...] of the sum of the rows' losses, averaged over draws."""

    def at(sigma):
        def total(params, draw):
            return jnp.sum(_losses(policy, params, rows, sigma, draw) * rows["counts"])

        return _mean_over(draws, functools.partial(jax.grad(total), params))

    return jax.lax.map(at, levels)


@functools.partial(jax.jit, static_argnums=0)
def _along(policy, params, direction, rows, levels, draws):
    def at(level):
        sigma, tangent = level

        def slope(draw):
            # Forward mode, by two reverse modes: networks have operations with a backward pass of
            # their own. J^T u is linear in u, and the gradient of <J^T u, t> is J t.
            loss = lambda params: _losses(policy, params, rows, sigma, draw)  # noqa: E731
            values, back = jax.vjp(loss, params)
            return jax.grad(lambda u: _inner(back(u)[0], tangent))(jnp.zeros_like(values))

        return _mean_over(draws, slope)

    return jax.lax.map(at, (levels, direction))


def _inner(x: Any, y: Any) -> Array:
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, x, y)), jnp.float32(0))


def _mean_over(draws: Array, value: Callable[[Array], Any]) -> Any:
    """Returns the mean of ``value(draw)`` over draws 0, 1, ..., one at a time."""
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(value, draws))
    add = lambda draw, total: jax.tree.map(jnp.add, total, value(draw))  # noqa: E731
    return jax.tree.map(lambda t: t / draws, jax.lax.fori_loop(0, draws, add, zeros))


def _levels(levels):
    values = np.asarray(levels, np.float64)
    if values.ndim != 1 or not values.size or not np.all((values > 0) & (values < 1)):
        raise ValueError(f"levels are {levels}, expected noise levels sigma in (0, 1)")
    return jnp.asarray(values)


def _draws(draws):
    if draws < 1:
        raise ValueError(f"draws is {draws}, expected at least 1")
    return jnp.int32(draws)
