"""c(x_sigma, sigma): the probability that a noised chunk is clean, from data it was not trained on.

Episodes are dealt into folds. The classifier of a fold trains on the other folds, is calibrated on
its own, stops where the calibrated loss there is least, and answers for its own fold: no chunk is
judged by a network that has seen its episode. All folds train as one vmapped program.

Calibration divides logits by a temperature of the noise level. With few clean episodes a network
learns by heart where these go, which shows at middle noise levels and is wrong elsewhere: there
the temperature is large and the answer 1/2, while what it knows at low noise is left as it is.

Chunks go past the end of their episode by holding the last action (padding "hold"): a mask would
tell sources apart by the lengths of their episodes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from absl import logging

from ambient_jax import corruption, mixing, schedules
from ambient_jax.annotate import calibration
from ambient_jax.data import chunk, device, noise_first
from ambient_jax.models.classifier import ChunkClassifier, difference_moments
from ambient_jax.models.observation import ObservationEncoder

Array = jax.Array
_BALANCED = mixing.Reweighted(0.5)
_EVALUATED = 8192  # held-out rows of one evaluation
_BANDS = 8  # of the noise level, each with a temperature


@dataclasses.dataclass(frozen=True)
class Options:
    """How classifiers are made.

    Attributes:
      history, horizon: T and H of the chunks.
      crop: only the first so many actions of a chunk are seen; 0 is all.
      observed: whether the classifier also sees the observation: it then separates p(A | O) from
        q(A | O); without it p(A) from q(A), which differ too where the data sets visit other
        places.
      folds: at least 2.
      steps: at most, rounded up to a multiple of evaluate_every; training stops once ``patience``
        evaluations brought no better held-out loss.
      batch_size: rows, half of them clean in expectation.
      evaluate_every: steps between evaluations.
      learning_rate, weight_decay: of AdamW; the rate falls to 0 along a cosine.
      ema: largest decay of the parameters' moving average, which is what is kept.
      features, dropout: of ``ChunkClassifier``.
    """

    history: int = 2
    horizon: int = 16
    crop: int = 0
    observed: bool = False
    folds: int = 2
    steps: int = 3000
    batch_size: int = 256
    evaluate_every: int = 100
    patience: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    ema: float = 0.99
    features: tuple[int, ...] = (32, 64)
    dropout: float = 0.2

    def __post_init__(self):
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}, expected at least 2: one must be held out")
        if not 0 <= self.crop <= self.horizon:
            raise ValueError(f"crop is {self.crop}, expected 0 (all) to the horizon {self.horizon}")
        for name in ("steps", "batch_size", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")


class Fitted(NamedTuple):
    """Classifiers of all folds.

    Attributes:
      options, schedule: as given to ``fit``.
      module: the network; ``params`` has a leading axis of folds.
      temperature: (x [bands], log temperature [folds, bands]) at x = log(sigma / alpha), linear in
        between; logits are divided by it.
      fold: [N] fold of each step of the data.
      history: rows {"step", "train", "held_out"} with losses in nats, [folds] each; held out is
        after calibration, and so never much above log 2.
      judged: P(clean) of held-out rows of the balanced training law, and whether they are clean,
        [folds * M] each, for ``reliability``.
    """

    options: Options
    schedule: schedules.Schedule
    module: _Network
    params: Any
    temperature: tuple[np.ndarray, np.ndarray]
    fold: np.ndarray
    history: list[dict[str, Any]]
    judged: tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Network:
    """The classifier and, where it observes, the encoder; pure functions of their parameters."""

    classifier: ChunkClassifier
    encoder: ObservationEncoder | None

    def init(self, key, x, observation):
        keys = jax.random.split(key)
        params = {}
        condition = None
        if self.encoder is not None:
            params["encoder"] = self.encoder.init(keys[1], observation)["params"]
            condition = self.encoder.apply({"params": params["encoder"]}, observation)
        sigma = jnp.ones(len(x)) / 2
        params["classifier"] = self.classifier.init(keys[0], x, sigma, condition)["params"]
        return params

    def apply(self, params, x_t, sigma, observation, dropout=None):
        condition = None
        if self.encoder is not None:
            condition = self.encoder.apply({"params": params["encoder"]}, observation)
        more = {} if dropout is None else {"rngs": {"dropout": dropout}}
        train = dropout is not None
        variables = {"params": params["classifier"]}
        return self.classifier.apply(variables, x_t, sigma, condition, train=train, **more)


def fit(
    data: device.DeviceData,
    options: Options = Options(),  # noqa: B008 (frozen)
    *,
    schedule: schedules.Schedule | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Fitted:
    """Trains the classifiers of all folds on the clean against the corrupt sources.

    Args:
      data: all sources; roles are those of ``data.sources``. Weights inside a role count.
      options: see ``Options``.
      schedule: whose training law draws the noise levels; default vp (sigma uniform).
      seed: of folds, initial parameters and draws.
      progress: show a progress bar.

    Raises:
      ValueError: a role without sources, or with fewer episodes than folds.
    """
    schedule = schedule or schedules.vp()
    data = jax.tree.map(np.asarray, data)
    fold = _deal(data, options.folds, seed)
    parts = [_split(data, fold == k) for k in range(options.folds)]
    shared = {"order": None, "offset": None, "size": None, "sources": None}
    common = jax.tree.map(jnp.asarray, data._replace(**shared))
    train, held_out = (_stack([p[i] for p in parts]) for i in (0, 1))

    draw = functools.partial(_draw, common, schedule=schedule, options=options)
    seen = draw(jax.tree.map(lambda x: x[0], train), jax.random.key(seed), 0, rows=_EVALUATED)
    length = options.crop or options.horizon
    moments = difference_moments(np.asarray(seen["action"])[:, :length])
    classifier = ChunkClassifier(
        features=options.features,
        dropout=options.dropout,
        moments=tuple(max(m, 1e-8) for m in moments),
    )
    network = _Network(classifier, ObservationEncoder() if options.observed else None)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            optax.cosine_decay_schedule(options.learning_rate, options.steps),
            weight_decay=options.weight_decay,
        ),
    )

    def logits_of(params, batch, key, dropout=None):
        x_t = _noise(batch["action"][:, :length], batch["sigma"], key)
        return network.apply(params, x_t, batch["sigma"], batch["observation"], dropout)

    def loss(params, part, key, step):
        batch = draw(part, key, step, rows=options.batch_size)
        noise, dropout = jax.random.split(jax.random.fold_in(key, step))
        logits = logits_of(params, batch, noise, dropout if options.dropout else None)
        return calibration.cross_entropy(logits, batch["clean"]).mean()

    def update(carry, step, part, key):
        params, average, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params, part, key, step)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(options.ema, (1.0 + step) / (10.0 + step))
        average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, params)
        return (params, average, opt_state), value

    @jax.jit
    def advance(carry, part, keys, first):
        def one(carry, part, key):
            steps = first + jnp.arange(options.evaluate_every)
            carry, losses = jax.lax.scan(lambda c, s: update(c, s, part, key), carry, steps)
            return carry, losses.mean()

        return jax.vmap(one)(carry, part, keys)

    @jax.jit
    def evaluate(params, part, keys):
        def one(params, part, key):
            batch = draw(part, key, 0, rows=_EVALUATED)
            logits = logits_of(params, batch, jax.random.fold_in(key, 1))
            return calibration.fit(
                logits, batch["clean"], calibration.log_ratio(batch["sigma"]), middles
            )

        return jax.vmap(one)(params, part, keys)

    middles = calibration.log_ratio(schedule.quantile((jnp.arange(_BANDS) + 0.5) / _BANDS))
    keys = jax.random.split(jax.random.key(seed), options.folds)
    tests = jax.random.split(jax.random.key(seed + 1), options.folds)
    first = jax.tree.map(lambda x: x[:1], seen)
    params = jax.jit(
        jax.vmap(lambda k: network.init(k, first["action"][:, :length], first["observation"]))
    )(keys)
    carry = params, params, jax.vmap(optimizer.init)(params)
    best, least, since, history = params, np.full(options.folds, np.inf), 0, []
    steps = range(0, options.steps, options.evaluate_every)
    for begin in tqdm.tqdm(steps, desc="classifier", disable=not progress):
        carry, trained = advance(carry, train, keys, begin)
        value = np.asarray(evaluate(carry[1], held_out, tests).loss)
        better = value < least
        best = jax.tree.map(
            lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old),  # noqa: B023
            carry[1],
            best,
        )
        least, since = np.minimum(least, value), 0 if better.any() else since + 1
        row = {"step": begin + options.evaluate_every, "train": np.asarray(trained).tolist()}
        history.append(row | {"held_out": value.tolist()})
        if since >= options.patience:
            break
    found = evaluate(best, held_out, tests)
    temperature = np.asarray(middles), np.asarray(found.log_temperature)
    logging.info(
        "classifier: %d steps, held-out loss %s nats (log 2 = 0.693 knows nothing)",
        *(history[-1]["step"], np.round(least, 4).tolist()),
    )
    judged = np.asarray(found.probability).ravel(), np.asarray(found.clean).ravel()
    return Fitted(options, schedule, network, best, temperature, fold, history, judged)


def probabilities(
    fitted: Fitted,
    data: device.DeviceData,
    positions: np.ndarray,
    levels: np.ndarray,
    *,
    draws: int = 4,
    decisions: bool = False,
    batch_size: int = 2048,
    seed: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """c [N, L]: P(clean) of the chunks at ``positions`` [N] at each level, mean over noise draws.

    With ``decisions`` it is the share of draws with P(clean) > 1/2 instead, which accuracy and
    total variation are made of (``analysis.divergence``).

    The classifier of the chunk's own fold answers. Draw i of a chunk is the same noise at every
    level (common random numbers), a function of the chunk's position: curves are smooth in sigma,
    and neither batch size nor order matter. Levels and draws are looped over on device.
    """
    positions, levels = np.asarray(positions), jnp.asarray(levels, jnp.float32)
    found = np.empty((len(positions), len(levels)), np.float32)
    arrays = data._replace(order=None, offset=None, size=None, sources=None)
    ask = functools.partial(
        _ask,
        jax.tree.map(jnp.asarray, arrays),
        levels,
        module=fitted.module,
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
                padded = np.resize(positions[rows], batch_size)
                temperature = fitted.temperature[0], fitted.temperature[1][k]
                c = ask(params, temperature, jnp.asarray(padded), jax.random.key(seed))
                found[rows] = np.asarray(c)[: len(rows)]
                bar.update(len(rows))
    return found


@functools.partial(jax.jit, static_argnames=("module", "draws", "decisions", "options"))
def _ask(data, levels, params, temperature, positions, key, *, module, draws, decisions, options):
    observation, action, _ = _chunks(data, positions, options)
    keys = noise_first.row_keys(key, 0, positions)

    def at(sigma):
        def one(total, draw):
            eps = jax.vmap(
                lambda k: jax.random.normal(jax.random.fold_in(k, draw), action.shape[1:])
            )(keys)
            x_t = jax.vmap(lambda x, e: corruption.add_noise(x, e, sigma))(action, eps)
            logits = module.apply(params, x_t, jnp.full(len(x_t), sigma), observation)
            clean = jax.nn.sigmoid(
                logits / calibration.temperature(calibration.log_ratio(sigma), *temperature)
            )
            return total + (clean > 0.5 if decisions else clean), None

        return jax.lax.scan(one, jnp.zeros(len(action)), jnp.arange(draws))[0] / draws

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


def _chunks(data, positions, options):
    observation, action, mask = chunk.gather(
        data.steps,
        positions,
        data.start[positions],
        data.end[positions],
        options.history,
        options.horizon,
        padding="hold",
    )
    return observation, action[:, : options.crop or options.horizon], mask


def _noise(x0, sigma, key):
    eps = jax.random.normal(key, x0.shape)
    return jax.vmap(corruption.add_noise)(x0, eps, sigma)


def _draw(common, part, key, step, *, rows, schedule, options):
    """A balanced batch of one fold's part, with ``clean`` [B] for a label."""
    batch = device.sample_batch(
        common._replace(**part),
        key,
        step,
        jnp.arange(rows),
        law=_BALANCED,
        schedule=schedule,
        history=options.history,
        horizon=options.horizon,
        padding="hold",
    )
    return batch | {"clean": part["sources"].clean[batch["source"]]}


def _deal(data, folds, seed):
    """The fold of every step: episodes of each source in turn, in random order."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(data.start), np.int32)
    clean = np.asarray(data.sources.clean)
    counts = {True: 0, False: 0}
    for k, (offset, size) in enumerate(zip(data.offset, data.size, strict=True)):
        starts, index = np.unique(data.start[offset : offset + size], return_inverse=True)
        fold[offset : offset + size] = rng.permutation(len(starts))[index] % folds
        counts[bool(clean[k])] += len(starts)
    for role, count in counts.items():
        if count < folds:
            raise ValueError(
                f"the {'clean' if role else 'corrupt'} sources have {count} episodes, expected at "
                f"least {folds}, one for each fold: a classifier needs both roles in training and "
                "held out"
            )
    return fold


def _split(data, out):
    """Two parts, the steps where ``out`` is False and where it is True, as places of one order."""
    order, sizes = [], []
    for offset, size in zip(data.offset, data.size, strict=True):
        own = np.arange(offset, offset + size)
        held = out[offset : offset + size]
        order += [own[~held], own[held]]
        sizes.append([len(own[~held]), len(own[held])])
    sizes = np.array(sizes, np.int32).reshape(-1, 2)
    order = np.concatenate(order).astype(np.int32)
    first = data.offset.astype(np.int32)
    per_step = data.sources.weight / np.maximum(data.size, 1)
    parts = []
    for i, offset in enumerate((first, first + sizes[:, 0])):
        sources = data.sources._replace(weight=np.asarray(per_step * sizes[:, i], np.float32))
        # Sources without a step in this part have weight 0; index() still needs a size.
        size = np.maximum(sizes[:, i], 1)
        parts.append({"order": order, "offset": offset, "size": size, "sources": sources})
    return parts


def _stack(parts):
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *parts)
