"""What a policy does on recorded data: denoising loss at each noise level, error of its chunks."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from ambient_jax import corruption, losses, schedules, targets
from ambient_jax.data import chunk, hold, images
from ambient_jax.data.source import Source
from ambient_jax.policy.policy import Policy

# Noise levels sigma, equidistant in log(sigma / alpha) from 0.004 to 16.
LEVELS = tuple(float(s / np.hypot(1, s)) for s in np.geomspace(0.004, 16, 19))


class Chunks(NamedTuple):
    """N recorded chunks in data units.

    Attributes:
      observation: {name: [N, T, d]}; of the common form also images uint8 [N, T, h, w, 3] with
        their masks [N, T], and instructions as the encoder takes them.
      action: [N, H, D].
      mask: [N, H], False past an episode's end.
      origin: [N, 2], episode and step of each.
    """

    observation: dict[str, np.ndarray]
    action: np.ndarray
    mask: np.ndarray
    origin: np.ndarray | None = None


def recorded(
    source: Source,
    policy: Policy,
    *,
    padding: str = "mask",
    episodes: int = 200,
    samples: int = 4096,
    seed: int = 0,
) -> Chunks:
    """Chunks of a source as a policy sees them.

    Args:
      source: such as ``mixture.open_source`` opens.
      policy: whose observations, history and horizon are taken.
      padding: as in the training's data section.
      episodes: at most so many are read, drawn without replacement.
      samples: at most so many chunks are drawn from them.
      seed: of both draws.

    Raises:
      ValueError: fields that are missing or not finite, naming the episode. Problems count as in
        training: an episode that is left out there is here, an image that is masked there is here.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(source))[:episodes])
    read, used, why = [], [], []
    for position in chosen.tolist():
        episode, problems = source.examined(position)
        if episode is None:
            why += problems[:1]
            continue
        extras = source.extras(episode)
        read.append(source.read(position, episode))
        read[-1] |= {n: v for n, v in extras.items() if not n.startswith("quality/")}
        used.append(position)
    if why:
        details = source.name, len(why), len(chosen), *why[0]
        left_out = "%s: %d of %d episodes are left out, the first by on_problem.%s (%s)"
        if not used:
            raise ValueError(left_out % details)
        logging.warning(left_out, *details)
    chosen = np.array(used, np.int64)
    if padding == "hold":
        for arrays in read:
            action = arrays[chunk.ACTION]
            arrays[chunk.STILL] = hold.standing_still(action, source.rest(action.shape[1]))
    sizes = np.array([len(arrays[chunk.ACTION]) for arrays in read])
    if not sizes.sum():
        raise ValueError(f"{source.directory} has no step in the episodes that were drawn")
    steps = {name: np.concatenate([arrays[name] for arrays in read]) for name in read[0]}
    end = np.cumsum(sizes)
    at = rng.permutation(end[-1])[:samples]
    own = np.searchsorted(end, at, side="right")
    start = (end - sizes)[own]
    encoders = policy.chain.encoders()
    texts = {name: steps.pop(name) for name in encoders if name in steps}
    observation, actions, mask = chunk.gather(
        steps, at, start, end[own], policy.history, policy.horizon, xp=np, padding=padding
    )
    if policy.chain.images:
        for camera in policy.chain.images.cameras:
            name = f"image_{camera}"
            observation |= _decoded(source, camera, observation[name], policy.chain.images.size)
    observation |= {name: encoders[name](list(values[at])) for name, values in texts.items()}
    return Chunks(observation, actions, mask, np.stack([chosen[own], at - start], axis=1))


def _decoded(source, camera, blobs, size):
    """Images and their mask, of encoded ones [N, T]."""
    with images.ImageDecoder(size, workers=0) as decoder:
        bgr = np.full(blobs.size, source.bgr.get(camera, False))
        decoded, failures = decoder.submit(list(blobs.flat), bgr).result()
    there = np.array([bool(blob) for blob in blobs.flat])
    if failures:
        source.damaged_image(
            f"{source.name}: {len(failures)} images of {camera} cannot be decoded "
            f"({next(iter(failures.values()))})"
        )
        there[list(failures)] = False
    name, there = f"image_{camera}", there.reshape(blobs.shape)
    return {name: decoded.reshape(*blobs.shape, *decoded.shape[1:]), f"{name}_mask": there}


def denoising_loss(
    policy: Policy,
    observation: dict[str, np.ndarray],
    action: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    levels: tuple[float, ...] = LEVELS,
    samples: int = 4096,
    seed: int = 0,
    params: Any = None,
) -> np.ndarray:
    """Mean squared error of x0_hat per number (normalised units) at each level [L].

    Args:
      policy: whose network is measured.
      observation, action, mask: chunks in data units, see ``Chunks``; no mask counts all.
      levels: noise levels sigma in (0, 1).
      samples: at most so many chunks, drawn without replacement.
      seed: of that draw and of the noise; the same for every policy.
      params: in place of the policy's own, such as those of another step: nothing is compiled anew.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(action))[:samples]
    mask = np.ones(np.shape(action)[:2], bool) if mask is None else np.asarray(mask)
    chunks = Chunks({n: np.asarray(v)[rows] for n, v in observation.items()}, action[rows], mask)
    chunks = chunks._replace(mask=mask[rows])
    found = row_losses(policy, chunks, target="x0", levels=levels, seed=seed, params=params)
    # A row's loss is a mean over its valid numbers; here every number counts alike.
    weight = chunks.mask.sum(1)
    return found @ weight / max(weight.sum(), 1)


def row_losses(
    policy: Policy,
    chunks: Chunks,
    *,
    target: str = "",
    levels: tuple[float, ...] = LEVELS,
    seed: int = 0,
    params: Any = None,
    batch: int = 512,
) -> np.ndarray:
    """The training's denoising loss of each chunk at each level [L, N]: `losses.denoising_loss`.

    That is the mean of (h - T)^2 over the numbers of a row that are neither past the end of its
    episode nor of a dimension that its robot lacks; 0 where there is none.

    Args:
      policy: whose network is measured.
      chunks: in data units.
      target: T, "x0", "eps" or "v"; "" for what the policy predicts.
      levels: noise levels sigma in (0, 1).
      seed: of the noise, see ``noise``.
      params: see ``denoising_loss``.
      batch: rows at a time, which bounds the memory.
    """
    params = policy.params if params is None else params
    observation = policy.check(chunks.observation, (policy.history,))
    x0 = policy.normalised(chunks.action)
    valid = np.broadcast_to(np.asarray(chunks.mask)[..., None], x0.shape)
    if policy.action_mask is not None:
        valid = valid & policy.action_mask
    whole = dict(observation=observation, x0=x0, eps=noise(x0.shape, seed), valid=valid)
    found = []
    for first in range(0, len(x0), batch):
        part = jax.tree.map(lambda a, i=first: a[i : i + batch], whole)
        found.append(_losses(policy, target, params, part, jnp.asarray(levels)))
    return np.concatenate(found, axis=1)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The noise eps [N, H, D] that ``row_losses`` adds, at every level the same."""
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _losses(policy: Policy, target: str, params: Any, part, levels):
    denoise = policy.denoiser(params, part["observation"])
    x0, eps, valid = part["x0"], part["eps"], part["valid"]
    target = target or policy.prediction
    vp = schedules.vp()

    def at(sigma):
        x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(x0, eps)
        h = denoise(x_t, sigma)
        if target != policy.prediction:
            kind = dict(source=policy.prediction, target=target, schedule=vp)
            h = targets.convert(h, x_t, sigma, **kind)
        one = lambda h, x, e, m: losses.denoising_loss(  # noqa: E731
            h, x, e, sigma, mask=m, prediction=target, schedule=vp
        )
        return jax.vmap(one)(h, x0, eps, valid)

    return jax.lax.map(at, levels)


def differences(
    policy: Policy,
    chunks: Chunks,
    other: dict[str, np.ndarray],
    *,
    levels: tuple[float, ...] = LEVELS,
    seed: int = 0,
    params: Any = None,
    batch: int = 512,
) -> np.ndarray:
    """x0_hat given the chunks' observations less x0_hat given others, [L, N, H, D] normalised.

    Of a policy that is told whose data it denoises, with ``other`` telling of another source: the
    difference of the two laws' denoisers on the first one's chunks, whose mean square is the excess
    loss of the other (``analysis.mismatch``). One network makes both, so that most of its errors
    cancel.

    Args:
      policy: whose network is measured.
      chunks: in data units.
      other: observations of the same shapes, in data units.
      levels, seed, params, batch: as of ``row_losses``.
    """
    params = policy.params if params is None else params
    given, told = (policy.check(o, (policy.history,)) for o in (chunks.observation, other))
    x0 = policy.normalised(chunks.action)
    whole, found = (given, told, x0, noise(x0.shape, seed)), []
    for first in range(0, len(x0), batch):
        part = jax.tree.map(lambda a, i=first: a[i : i + batch], whole)
        found.append(_differences(policy, params, *part, jnp.asarray(levels)))
    return np.concatenate(found, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _differences(policy: Policy, params: Any, given, told, x0, eps, levels):
    denoisers = [policy.denoiser(params, observation) for observation in (given, told)]
    kind = dict(source=policy.prediction, target="x0", schedule=schedules.vp())

    def at(sigma):
        x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(x0, eps)
        first, second = (targets.convert(d(x_t, sigma), x_t, sigma, **kind) for d in denoisers)
        return first - second

    return jax.lax.map(at, levels)


def action_error(
    policy: Policy, chunks: Chunks, *, samples: int = 512, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared difference of sampled chunks from the recorded ones, in data units.

    A policy of several right answers does not reach 0: compare policies, not zeros.

    Args:
      policy: which samples with its own solver.
      chunks: recorded ones.
      samples: at most so many of them.
      seed: of the policy's draws.

    Returns:
      Of each action dimension [D], over all unmasked steps (NaN for one that the robot lacks); and
      of each step ahead [H], over all dimensions (NaN where every chunk is masked).
    """
    rows = slice(0, samples)
    observation = {name: value[rows] for name, value in chunks.observation.items()}
    found = np.asarray(policy(observation, jax.random.key(seed)))
    mask = np.broadcast_to(chunks.mask[rows][..., None], found.shape)
    if policy.action_mask is not None:
        mask = mask & np.asarray(policy.action_mask)
    square = np.where(mask, (found - chunks.action[rows]) ** 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_dimension = np.sqrt(square.sum((0, 1)) / mask.sum((0, 1)))
        return of_dimension, np.sqrt(square.sum((0, 2)) / mask.sum((0, 2)))
