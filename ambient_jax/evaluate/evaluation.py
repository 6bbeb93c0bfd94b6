"""Measures the denoising loss by noise level and the action error of a policy on recorded data."""

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
    """N recorded chunks in data units; ``origin`` [N, 2] has their episodes and steps.

    Observations are {name: [N, T, d]}. The common form also has images uint8 [N, T, h, w, 3] with
    their masks [N, T], and instructions as the encoder takes them. Actions are [N, H, D]; their
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

    As in training, episodes with problems are skipped and images with problems are masked.

    Args:
      source: a source such as ``mixture.open_source`` returns.
      policy: sets observations, history and horizon.
      padding: as in the training's data section.
      episodes, samples: most episodes to read, and most chunks to draw from them.
      seed: seed of both draws, without replacement.

    Raises:
      ValueError: a field is missing or not finite; the message names the episode.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(source))[:episodes])
    arrays, used, problems = [], [], []
    for position in chosen.tolist():
        episode, problems_of_episode = source.examined(position)
        if episode is None:
            problems += problems_of_episode[:1]
            continue
        extras = source.extras(episode)
        arrays.append(source.read(position, episode))
        arrays[-1] |= {n: v for n, v in extras.items() if not n.startswith("quality/")}
        used.append(position)
    if problems:
        details = source.name, len(problems), len(chosen), *problems[0]
        left_out = "%s: %d of %d episodes are left out, the first by on_problem.%s (%s)"
        if not used:
            raise ValueError(left_out % details)
        logging.warning(left_out, *details)
    chosen = np.array(used, np.int64)
    if padding == "hold":
        for fields in arrays:
            action = fields[chunk.ACTION]
            fields[chunk.STILL] = chunk.standing_still(action, source.rest(action.shape[1]))
    sizes = np.array([len(fields[chunk.ACTION]) for fields in arrays])
    if not sizes.sum():
        raise ValueError(f"{source.directory} has no step in the episodes that were drawn")
    steps = {name: np.concatenate([fields[name] for fields in arrays]) for name in arrays[0]}
    end = np.cumsum(sizes)
    at = rng.permutation(end[-1])[:samples]
    row = np.searchsorted(end, at, side="right")  # the episode of each chunk
    start = (end - sizes)[row]
    encoders = policy.chain.encoders()
    texts = {name: steps.pop(name) for name in encoders if name in steps}
    observation, actions, mask = chunk.gather(
        steps, at, start, end[row], policy.history, policy.horizon, xp=np, padding=padding
    )
    if policy.chain.images:
        for camera in policy.chain.images.cameras:
            name = f"image_{camera}"
            observation |= _decoded(source, camera, observation[name], policy.chain.images.size)
    observation |= {name: encoders[name](list(values[at])) for name, values in texts.items()}
    return Chunks(observation, actions, mask, np.stack([chosen[row], at - start], axis=1))


def _decoded(source, camera, blobs, size):
    """Decodes images [N, T]; returns them with their mask."""
    with images.ImageDecoder(size, workers=0) as decoder:
        bgr = np.full(blobs.size, source.bgr.get(camera, False))
        decoded, failures = decoder.submit(list(blobs.flat), bgr).result()
    present = images.are_there(blobs)
    if failures:
        source.damaged_image(
            f"{source.name}: {len(failures)} images of {camera} cannot be decoded "
            f"({next(iter(failures.values()))})"
        )
        present.flat[list(failures)] = False
    name = f"image_{camera}"
    return {name: decoded.reshape(*blobs.shape, *decoded.shape[1:]), f"{name}_mask": present}


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

    ``seed`` draws at most ``samples`` chunks in data units (see ``Chunks``; without a mask every
    step counts) and the noise: both are the same for every policy. ``params``, such as those of
    another step, replace the policy's without a new compilation.
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

    It is the mean of (h - T)^2 over a row's valid numbers: steps before the end of its episode and
    dimensions that its robot has; 0 without any. See ``losses.denoising_loss``.

    Args:
      policy: its network is measured.
      chunks: chunks in data units.
      target: T, "x0", "eps" or "v"; "" for the policy's prediction.
      levels, seed: noise levels sigma in (0, 1), and the seed of the noise, see ``noise``.
      params: see ``denoising_loss``.
      batch: rows per batch, which bounds the memory.
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
    """Returns x0_hat given the chunks' observations minus x0_hat given others, [L, N, H, D].

    ``other`` has the same shapes, in data units. If it names another source, this is the
    difference of two sources' denoisers on the first one's chunks (normalised). Its mean square is
    the excess loss of the other source (``annotate.mismatch``); one network predicts both, so that
    most of its errors cancel. For the options see ``row_losses``.
    """
    options = dict(levels=levels, seed=seed, params=params, batch=batch)
    observations = [chunks.observation, other]
    return _measured(_difference, policy, "x0", chunks, observations, **options)


def _difference(predictions, *_):
    return predictions[0] - predictions[1]


def _measured(
    measure, policy, target, chunks, observations, valid=None, *, levels, seed, params, batch
):
    """Runs ``_at_levels`` on the chunks in parts of ``batch`` rows and concatenates the results."""
    x0 = policy.normalised(chunks.action)
    observations = [policy.prepared(o) for o in observations]
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
    """Returns ``measure`` [L, n, ...] of the predictions of ``target`` from each observation."""
    observations, x0, eps, valid = rows
    eps = corruption.coloured(eps, policy.schedule)
    denoisers = [policy.denoiser(params, o, policy.chain.wide) for o in observations]
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

    It is a pair: by action dimension [D] (NaN where the robot lacks it) and by step ahead [H] (NaN
    where every chunk is masked), over at most ``samples`` chunks. Where several actions are right
    the error does not reach 0: compare policies.
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
