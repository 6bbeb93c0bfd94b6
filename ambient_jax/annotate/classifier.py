"""c(x_sigma, sigma): the probability that a noised chunk is clean, from data it was not trained on.

Episodes are dealt into folds. The classifier of a fold trains on the other folds, is calibrated on
its own, stops where the calibrated loss there is least, and answers for its own fold: no chunk is
judged by a network that has seen its episode. All folds train as one vmapped program.

Each corrupt source is a question of its own, "clean, or of source k?" (``pairs``). The network of a
fold has one trunk for all of them and a logit for each. Measured against a small network of its own
for each of 48 pairs, all vmapped, at as many rows (``experiments.benchmarks.mixture``, one run of
400 steps, so that neither is trained to its end): mean error of sigma_min 0.090 against 0.095, 51 s
of CPU time against 71 in training and 7 against 22 in judging, 1.2 GiB of memory against 6.7.

Calibration divides logits by a temperature of the pair and of the noise level. With few clean
episodes a network learns by heart where these go, which shows at middle noise levels and is wrong
elsewhere: there the temperature is large and the answer 1/2, while what it knows at low noise is
left as it is.

In chunks the robot stands still past the end of its episode (padding "hold", with which the data
are to be mixture too): a mask would tell sources apart by the lengths of their episodes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    """Classifiers of all folds.

    Attributes:
      options, schedule: as given to ``fit``.
      pairs: the questions that it answers.
      network: of one fold; ``params`` has a leading axis of folds.
      temperature, history, judged: see ``training.Trained``, whose members are the folds.
      fold: [N] fold of each step of the data.
    """

    options: Options
    schedule: schedules.Schedule
    pairs: pairs_lib.Pairs
    network: training.Network
    params: Any
    temperature: tuple[np.ndarray, np.ndarray]
    fold: np.ndarray
    history: list[dict[str, Any]]
    judged: tuple[np.ndarray, np.ndarray]


def fit(
    data: device.DeviceData,
    options: Options = Options(),  # noqa: B008 (frozen)
    *,
    schedule: schedules.Schedule | None = None,
    seed: int = 0,
    names: Sequence[str] = (),
    progress: bool = True,
) -> Fitted:
    """Trains the classifiers of all folds on the clean sources against each of the corrupt ones.

    Args:
      data: all sources; roles are those of ``data.sources``. Weights count among the clean ones.
      options: see ``Options``.
      schedule: whose training law draws the noise levels; default vp (sigma uniform).
      seed: of folds, initial parameters and draws.
      names: of the sources, for messages.
      progress: show a progress bar.

    Raises:
      ValueError: a role without sources, or with fewer episodes than folds, or a corrupt source
        that has no dimension of the action in common with the clean ones.
    """
    schedule = schedule or schedules.vp()
    fold = pairs_lib.deal(data, options.folds, seed, names)
    pairs = pairs_lib.make(data, names)
    parts = pairs_lib.split(data, fold, options.folds)
    data = jax.tree.map(jnp.asarray, _steps_of(data, options))
    first = jax.tree.map(lambda x: x[0], parts[0])
    pairs = training.measured(data, first, pairs, options, schedule=schedule, seed=seed)
    each = jax.tree.map(lambda x: np.repeat(x[None], options.folds, 0), pairs)
    found = training.train(
        data, parts, each, options, schedule=schedule, seed=seed, progress=progress
    )
    least = np.min([row["held_out"] for row in found.history], 0)
    logging.info(
        "classifier: %d pairs, %d steps, held-out loss %s nats (log 2 = 0.693 knows nothing)",
        *(len(pairs.mask), found.history[-1]["step"], np.round(least, 4).tolist()),
    )
    return Fitted(
        *(options, schedule, pairs, found.network, found.params, found.temperature, fold),
        *(found.history, found.judged),
    )


def _steps_of(data, options):
    """What chunks are cut from; parts have the rest. Observations only where they are seen."""
    acted = (chunk.ACTION, chunk.STILL)
    seen = {n: x for n, x in data.steps.items() if n in acted or options.observed}
    nothing = dict(order=None, offset=None, size=None, sources=None, constants={})
    return data._replace(steps=seen, **nothing)


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
    progress: bool = False,
) -> np.ndarray:
    """c [N, L]: P(clean) of the chunks at ``positions`` [N] at each level, mean over noise draws.

    Of a classifier that sees the observation it is that of even odds given the observation: its
    logit less that at sigma = 1, where the observation is all that tells. It compares p(A | O)
    with q(A | O); observations that only one side has would keep it from ever reaching 1/2.

    With ``decisions`` it is the share of draws with P(clean) > 1/2 instead, which accuracy and
    total variation are made of (``analysis.divergence``).

    ``pair`` ([N] or one for all) says against which corrupt source (0..K-1, in the order of the
    data); by default a corrupt chunk is asked about its own. The classifier of the chunk's own fold
    answers. Draw i of a chunk is the same noise at every level (common random numbers), a function
    of the chunk's position: curves are smooth in sigma, and neither batch size nor order matter.
    Levels and draws are looped over on device.

    Raises:
      ValueError: clean chunks of a mixture without a pair.
    """
    positions, levels = np.asarray(positions), jnp.asarray(levels, jnp.float32)
    asked = _asked(fitted, data, positions, pair)
    found = np.empty((len(positions), len(levels)), np.float32)
    ask = functools.partial(
        _ask,
        jax.tree.map(jnp.asarray, _steps_of(data, fitted.options)),
        levels,
        fitted.pairs,
        network=fitted.network,
        draws=draws,
        decisions=decisions,
        options=fitted.options,
    )
    with tqdm.tqdm(
        total=len(positions), desc="annotate", unit="chunk", disable=not progress
    ) as bar:
        for k in range(fitted.options.folds):
            params = jax.tree.map(lambda x: x[k], fitted.params)  # noqa: B023
            mine = np.flatnonzero(fitted.fold[positions] == k)
            for begin in range(0, len(mine), batch_size):
                rows = mine[begin : begin + batch_size]
                # One shape for all batches: the last one is filled up with its first chunk.
                padded = (np.resize(values[rows], batch_size) for values in (positions, asked))
                temperature = fitted.temperature[0], fitted.temperature[1][k]
                c = ask(params, temperature, *map(jnp.asarray, padded), jax.random.key(seed))
                found[rows] = np.asarray(c)[: len(rows)]
                bar.update(len(rows))
    return found


def _asked(fitted, data, positions, pair):
    """The pair of each chunk."""
    if pair is not None or len(fitted.pairs.mask) == 1:
        pair = 0 if pair is None else pair
        return np.broadcast_to(np.asarray(pair, np.int32), len(positions))
    source = np.searchsorted(np.asarray(data.offset), positions, side="right") - 1
    if np.asarray(data.sources.clean)[source].any():
        raise ValueError(
            f"some chunks are of a clean source and pair is None, expected one of the "
            f"{len(fitted.pairs.mask)} pairs: against which corrupt source?"
        )
    return np.asarray(fitted.pairs.of)[source]


@functools.partial(jax.jit, static_argnames=("network", "options"))
def _ask(
    data,
    levels,
    pairs,
    params,
    temperature,
    positions,
    pair,
    key,
    *,
    network,
    draws,
    decisions,
    options,
):
    observation, action, _ = chunk.gather(
        data.steps,
        positions,
        data.start[positions],
        data.end[positions],
        options.history,
        options.horizon,
        padding="hold",
    )
    action = action[:, : options.length]
    keys = noise_first.row_keys(key, 0, positions)
    middles, log_temperature = temperature
    ask = lambda x_t, sigma: network.apply(  # noqa: E731
        params, x_t, jnp.full(len(x_t), sigma), pair, pairs, observation
    )
    given = ask(action, 1.0) if options.observed else 0.0

    def at(sigma):
        x = jnp.full(len(action), calibration.log_ratio(sigma))
        scale = calibration.temperature(x, middles, log_temperature[pair])

        def one(draw, total):
            eps = jax.vmap(
                lambda k: jax.random.normal(jax.random.fold_in(k, draw), action.shape[1:])
            )(keys)
            x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(action, eps)
            clean = jax.nn.sigmoid((ask(x_t, sigma) - given) / scale)
            return total + jnp.where(decisions, clean > 0.5, clean)

        # A loop whose length is no part of the program: reports ask with several numbers of draws.
        return jax.lax.fori_loop(0, draws, one, jnp.zeros(len(action))) / draws

    return jax.lax.map(at, levels).T


def reliability(fitted: Fitted, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of held-out rows by P(clean), in ``bins`` of equal width: mean P(clean), share, number.

    A calibrated classifier's share is its mean P(clean). Empty bins are left out.
    """
    probability, clean = fitted.judged
    at = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(at, minlength=bins)
    keep = count > 0
    mean, share = (np.bincount(at, v, bins)[keep] / count[keep] for v in (probability, clean))
    return mean, share, count[keep]
