"""Trains and evaluates noise classifiers: c(x_sigma, sigma) = P(clean) of a noised chunk.

Predictions are cross-fitted over folds of episodes. The classifier of a fold trains on the other
folds. Its own fold calibrates it, stops it at the least calibrated loss, and is then predicted: no
network judges an episode that it was trained on. All folds train as one vmapped program.

Each corrupt source is compared with the clean ones separately (``pairs``). The network of a fold
has one trunk for all pairs and one logit for each, which takes less time and memory than a network
for each pair (``experiments.benchmarks.mixture``).

Calibration divides logits by a temperature of the pair and of the noise level. Where a network only
memorised the training episodes, the temperature is large and P(clean) is 1/2.

The mixture must use padding "hold", as a mask would reveal the lengths of the episodes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import logging

from ambient_jax import corruption, schedules
from ambient_jax.annotate import calibration, training
from ambient_jax.annotate import pairs as pairs_lib
from ambient_jax.annotate.training import Options
from ambient_jax.data import chunk, device, noise_first

Array = jax.Array


class Fitted(NamedTuple):
    """Classifiers of all folds (the members of ``trained``), and the fold [N] of each step."""

    options: Options
    schedule: schedules.Schedule
    pairs: pairs_lib.Pairs
    trained: training.Trained
    fold: np.ndarray


def fit(
    data: device.DeviceData,
    options: Options = Options(),  # noqa: B008 (frozen)
    *,
    schedule: schedules.Schedule | None = None,
    seed: int = 0,
    names: Sequence[str] = (),
    progress: bool = True,
) -> Fitted:
    """Trains the classifiers of all folds, each corrupt source against the clean ones.

    Args:
      data: all sources, with their roles in ``data.sources``. Only weights of clean sources count.
      options, seed: see ``training.Options``; the seed of folds, initial parameters and draws.
      schedule: its training law draws the noise levels; default vp (sigma uniform).
      names: names of the sources, for messages.
      progress: show a progress bar.

    Raises:
      ValueError: a role has no source or fewer episodes than folds, or a corrupt source shares no
        dimension of the action with the clean ones.
    """
    schedule = schedule or schedules.vp()
    options = dataclasses.replace(options, colour=getattr(schedule, "colour", 0.0))
    fold = pairs_lib.deal(data, options.folds, seed, names)
    pairs = pairs_lib.make(data, names)
    parts = pairs_lib.split(data, fold, options.folds)
    data = _on_device(data, options)
    first = jax.tree.map(lambda x: x[0], parts[0])
    pairs = training.measured(data, first, pairs, options, schedule=schedule, seed=seed)
    repeated = jax.tree.map(lambda x: np.repeat(x[None], options.folds, 0), pairs)
    trained = training.train(
        data, parts, repeated, options, schedule=schedule, seed=seed, progress=progress
    )
    least = np.min([row["held_out"] for row in trained.history], 0)
    logging.info(
        "classifier: %d pairs, %d steps, held-out loss %s nats (log 2 = 0.693 knows nothing)",
        *(len(pairs.mask), trained.history[-1]["step"], np.round(least, 4).tolist()),
    )
    return Fitted(options, schedule, pairs, trained, fold)


def _on_device(data, options):
    """Returns the arrays to cut chunks from; observations only if the classifier uses them."""
    acted = (chunk.ACTION, chunk.STILL)
    steps = {n: x for n, x in data.steps.items() if n in acted or options.observed}
    unused = dict(order=None, offset=None, size=None, sources=None, constants={})
    return jax.tree.map(jnp.asarray, data._replace(steps=steps, **unused))


def probabilities(
    fitted: Fitted,
    data: device.DeviceData,
    positions: np.ndarray,
    levels: np.ndarray,
    *,
    pair: int | np.ndarray | None = None,
    draws: int = 4,
    decisions: bool = False,
    batch_size: int = 2048,
    seed: int = 0,
    first: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Returns P(clean) [N, L] of chunks at each noise level, averaged over noise draws.

    A classifier that sees the observation predicts for even odds given the observation: its logit
    at sigma = 1, where only the observation matters, is subtracted. This compares p(A | O) with
    q(A | O).

    Draw i of a chunk is the same noise at every level, a function of the chunk's position. Curves
    are therefore smooth in sigma, and do not depend on batch size or order.

    Args:
      fitted, data: from ``fit`` and its data. The classifier of a chunk's own fold predicts.
      positions: [N] positions of the first steps of the chunks.
      levels: [L] noise levels.
      pair: [N] or scalar, the corrupt source (0..K-1, in the order of the data) to compare with;
        the default is the chunk's own source, which must be corrupt.
      draws, seed: noise draws of each chunk and their seed.
      decisions: return the share of draws with P(clean) > 1/2 instead.
      batch_size: chunks per batch.
      first: number of the data's first step among the steps of larger data, whose noise it gets.
      progress: show a progress bar.

    Raises:
      ValueError: there are clean chunks and several corrupt sources, but no pair.
    """
    positions = np.asarray(positions)
    if pair is None and len(fitted.pairs.mask) > 1:
        source = np.searchsorted(np.asarray(data.offset), positions, side="right") - 1
        if np.asarray(data.sources.clean)[source].any():
            raise ValueError(
                f"some chunks are of a clean source and pair is None, expected one of the "
                f"{len(fitted.pairs.mask)} pairs: against which corrupt source?"
            )
        pair = np.asarray(fitted.pairs.of_source)[source]
    ask = functools.partial(_probabilities, draws=draws, decisions=decisions, first=first)
    pair = 0 if pair is None else pair
    return by_fold(ask, fitted, data, positions, pair, levels, batch_size, seed, progress)


def by_fold(
    ask: Callable[..., Array],
    fitted: Fitted,
    data: device.DeviceData,
    positions: np.ndarray,
    pair: int | np.ndarray,
    levels: np.ndarray,
    batch_size: int,
    seed: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Returns the outputs [N, ..., L] of the classifier of each chunk's own fold.

    ``ask`` is a jitted function like ``_probabilities``, whose ``member`` is the parameters and the
    temperature of a fold. For the other arguments see ``probabilities``.
    """
    pair = np.broadcast_to(np.asarray(pair, np.int32), len(positions))
    data, pairs = _on_device(data, fitted.options), jax.tree.map(jnp.asarray, fitted.pairs)
    trained, key = fitted.trained, jax.random.key(seed)
    ask = functools.partial(ask, network=trained.network, options=fitted.options)
    answers: np.ndarray | None = None
    with tqdm.tqdm(
        total=len(positions), desc="annotate", unit="chunk", disable=not progress
    ) as bar:
        for fold in range(fitted.options.folds):
            params = jax.tree.map(lambda x: x[fold], trained.params)  # noqa: B023
            member = params, (trained.temperature[0], trained.temperature[1][fold])
            start = jax.tree.map(lambda x: jnp.asarray(x[fold]), trained.head_start)  # noqa: B023
            own_pairs = pairs._replace(head_start=start)
            members = np.flatnonzero(fitted.fold[positions] == fold)
            for begin in range(0, len(members), batch_size):
                rows = members[begin : begin + batch_size]
                # One shape for all batches: the last one is filled up with its first chunks.
                filled = (jnp.asarray(np.resize(v[rows], batch_size)) for v in (positions, pair))
                answer = ask(data, jnp.float32(levels), own_pairs, member, *filled, key)
                batch = np.asarray(answer)[: len(rows)]
                if answers is None:
                    answers = np.empty((len(positions), *batch.shape[1:]), batch.dtype)
                answers[rows] = batch
                bar.update(len(rows))
    return np.empty((0, len(levels)), np.float32) if answers is None else answers


def cut(data: device.DeviceData, positions: Array, options: Options, key: Array, first=0):
    """Returns observations and x0 [B, H, D] of the chunks at ``positions`` [B], and their noise.

    The noise is a function ``eps(draw)`` whose values depend on each chunk's position + ``first``.
    """
    within, sizes = (data.start[positions], data.end[positions]), (options.history, options.horizon)
    observation, action, _ = chunk.gather(data.steps, positions, *within, *sizes, padding="hold")
    x0 = action[:, : options.length]
    keys = noise_first.row_keys(key, jnp.int32(0), positions + first)

    def eps(draw):
        normal = lambda k: jax.random.normal(jax.random.fold_in(k, draw), x0.shape[1:])  # noqa: E731
        return corruption.coloured(jax.vmap(normal)(keys), schedules.vp(colour=options.colour))

    return observation, x0, eps


def temperature_at(sigma: Array, temperature: tuple[Array, Array], pair: Array) -> Array:
    """Returns the temperature [B] at one level for the pairs [B]; see ``training.Trained``."""
    middles, log_temperature = temperature
    x = jnp.full(len(pair), calibration.log_ratio(sigma))
    return calibration.temperature(x, middles, log_temperature[pair])


@functools.partial(jax.jit, static_argnames=("network", "options"))
def _probabilities(
    data, levels, pairs, member, positions, pair, key, *, network, options, draws, decisions, first
):
    observation, x0, eps = cut(data, positions, options, key, first)
    params, temperature = member
    logits = lambda x_t, sigma: network.apply(  # noqa: E731
        params, x_t, jnp.full(len(x_t), sigma), pair, pairs, observation
    )
    prior = logits(x0, 1.0) if options.observed else 0.0

    def at(sigma):
        scale = temperature_at(sigma, temperature, pair)

        def add(draw, total):
            x_t = corruption.add_noise(x0, eps(draw), sigma)
            clean = jax.nn.sigmoid((logits(x_t, sigma) - prior) / scale)
            return total + jnp.where(decisions, clean > 0.5, clean)

        # The number of draws is traced: reports with several numbers of draws compile once.
        return jax.lax.fori_loop(0, draws, add, jnp.zeros(len(x0))) / draws

    return jax.lax.map(at, levels).T


def reliability(fitted: Fitted, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins held-out rows by P(clean); returns mean P(clean), share of clean rows, number of rows.

    Empty bins are omitted. For a calibrated classifier the share equals the mean.
    """
    probability, clean = fitted.trained.judged
    index = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    keep = count > 0
    mean, share = (np.bincount(index, v, bins)[keep] / count[keep] for v in (probability, clean))
    return mean, share, count[keep]
