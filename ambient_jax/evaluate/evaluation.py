"""Denoising loss at each noise level and action error of a policy on recorded data."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from ambient_jax import corruption, losses, schedules, targets
from ambient_jax.data import chunk, images
from ambient_jax.data.source import Source
from ambient_jax.policy.policy import Policy

# Noise levels sigma, equidistant in log(sigma / alpha) from 0.004 to 16.
LEVELS = tuple(float(s / np.hypot(1, s)) for s in np.geomspace(0.004, 16, 19))


class Chunks(NamedTuple):
    """N recorded chunks in data units, with the episode and step of each as ``origin`` [N, 2].

    Observations are {name: [N, T, d]}; of the common form also images uint8 [N, T, h, w, 3] with
    their masks [N, T], and instructions as the encoder takes them. Actions are [N, H, D], their
    mask [N, H] is False past an episode's end.
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
    """Reads chunks of a source as a policy sees them.

    Episodes and images with problems are left out and masked as in training.

    Args:
      source: such as ``mixture.open_source`` opens.
      policy: whose observations, history and horizon are taken.
      padding: as in the training's data section.
      episodes, samples: numbers of episodes to read, and of chunks to draw from them, at most.
      seed: of both draws, without replacement.

    Raises:
      ValueError: fields that are missing or not finite, naming the episode.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(source))[:episodes])
    read, used, problems = [], [], []
    for position in chosen.tolist():
        episode, found = source.examined(position)
        if episode is None:
            problems += found[:1]
            continue
        extras = source.extras(episode)
        read.append(source.read(position, episode))
        read[-1] |= {n: v for n, v in extras.items() if not n.startswith("quality/")}
        used.append(position)
    if problems:
        details = source.name, len(problems), len(chosen), *problems[0]
        left_out = "%s: %d of %d episodes are left out, the first by on_problem.%s (%s)"
        if not used:
            raise ValueError(left_out % details)
        logging.warning(left_out, *details)
    chosen = np.array(used, np.int64)
    if padding == "hold":
        for arrays in read:
            action = arrays[chunk.ACTION]
            arrays[chunk.STILL] = chunk.standing_still(action, source.rest(action.shape[1]))
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
    """Decodes images [N, T]; returns them with their mask."""
    with images.ImageDecoder(size, workers=0) as decoder:
        bgr = np.full(blobs.size, source.bgr.get(camera, False))
        decoded, failures = decoder.submit(list(blobs.flat), bgr).result()
    there = images.are_there(blobs)
    if failures:
        source.damaged_image(
            f"{source.name}: {len(failures)} images of {camera} cannot be decoded "
            f"({next(iter(failures.values()))})"
        )
        there.flat[list(failures)] = False
    name = f"image_{camera}"
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
    """Returns the mean squared error of x0_hat per number (normalised units) at each level [L].

    At most ``samples`` chunks in data units (see ``Chunks``; no mask counts all) are drawn with
    ``seed``, as is the noise: the same for every policy. ``params`` replace the policy's own, such
    as those of another step, without a new compilation.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(action))[:samples]
    mask = np.ones(np.shape(action)[:2], bool) if mask is None else np.asarray(mask)
    chunks = Chunks({n: np.asarray(v)[rows] for n, v in observation.items()}, action[rows], mask)
    chunks = chunks._replace(mask=mask[rows])
    by_row = row_losses(policy, chunks, target="x0", levels=levels, seed=seed, params=params)
    # A row's loss is a mean over its valid numbers; here every number has the same weight.
    weight = chunks.mask.sum(1)
    return by_row @ weight / max(weight.sum(), 1)


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
    """Returns the training's denoising loss of each chunk at each level [L, N].

    That is the mean of (h - T)^2 over a row's valid numbers, those before the end of its episode
    and of dimensions that its robot has; 0 without any. See ``losses.denoising_loss``.

    Args:
      policy: whose network is measured.
      chunks: in data units.
      target: T, "x0", "eps" or "v"; "" for what the policy predicts.
      levels, seed: noise levels sigma in (0, 1), and the seed of the noise, see ``noise``.
      params: see ``denoising_loss``.
      batch: rows at a time, which bounds the memory.
    """
    valid = np.broadcast_to(np.asarray(chunks.mask)[..., None], np.shape(chunks.action))
    if policy.action_mask is not None:
        valid = valid & policy.action_mask
    options = dict(levels=levels, seed=seed, params=params, batch=batch)
    target = target or policy.prediction
    return _measured(_losses, policy, target, chunks, [chunks.observation], valid, **options)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns the noise eps [N, H, D] that ``row_losses`` adds, the same at every level."""
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


def _losses(predictions, x0, eps, sigma, valid, target):
    one = lambda h, x, e, m: losses.denoising_loss(h, x, e, sigma, mask=m, prediction=target)  # noqa: E731
    return jax.vmap(one)(*predictions, x0, eps, valid)


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
    """Returns x0_hat given the chunks' observations less x0_hat given others, [L, N, H, D].

    ``other`` has the same shapes, in data units. Where it names another source, this is the
    difference of two sources' denoisers on the first one's chunks (normalised), whose mean square
    is the other's excess loss (``annotate.mismatch``); one network makes both, so that most of its
    errors cancel. The options are those of ``row_losses``.
    """
    options = dict(levels=levels, seed=seed, params=params, batch=batch)
    observations = [chunks.observation, other]
    return _measured(_difference, policy, "x0", chunks, observations, **options)


def _difference(predictions, *_):
    return predictions[0] - predictions[1]


def _measured(
    measure, policy, target, chunks, observations, valid=None, *, levels, seed, params, batch
):
    """Concatenates ``_at_levels`` of all parts of the chunks, ``batch`` rows each."""
    x0 = policy.normalised(chunks.action)
    observations = [policy.check(o, (policy.history,)) for o in observations]
    rows = observations, x0, noise(x0.shape, seed), valid
    params, levels = policy.params if params is None else params, jnp.asarray(levels)
    parts = [
        jax.tree.map(lambda a, i=first: a[i : i + batch], rows)
        for first in range(0, len(x0), batch)
    ]
    values = [_at_levels(measure, policy, target, params, part, levels) for part in parts]
    return np.concatenate(values, axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _at_levels(measure, policy, target, params, rows, levels):
    """``measure`` [L, n, ...] of predictions of ``target``, one for each of the observations."""
    observations, x0, eps, valid = rows
    denoisers = [policy.denoiser(params, observation) for observation in observations]
    forms = dict(source=policy.prediction, target=target, schedule=schedules.vp())

    def at(sigma):
        x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(x0, eps)
        predictions = [targets.convert(d(x_t, sigma), x_t, sigma, **forms) for d in denoisers]
        return measure(predictions, x0, eps, sigma, valid, target)

    return jax.lax.map(at, levels)


def action_error(
    policy: Policy, chunks: Chunks, *, samples: int = 512, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the root mean squared difference of sampled chunks from recorded ones, in data units.

    Of each action dimension [D] (NaN where the robot lacks it), and of each step ahead [H] (NaN
    where every chunk is masked), over at most ``samples`` chunks. A policy with several right
    answers does not reach 0: compare policies.
    """
    rows = slice(0, samples)
    observation = {name: value[rows] for name, value in chunks.observation.items()}
    sampled = np.asarray(policy(observation, jax.random.key(seed)))
    mask = np.broadcast_to(chunks.mask[rows][..., None], sampled.shape)
    if policy.action_mask is not None:
        mask = mask & np.asarray(policy.action_mask)
    square = np.where(mask, (sampled - chunks.action[rows]) ** 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_dimension = np.sqrt(square.sum((0, 1)) / mask.sum((0, 1)))
        return by_dimension, np.sqrt(square.sum((0, 2)) / mask.sum((0, 2)))
