"""Trains classifiers of members, such as folds, as one vmapped program, and calibrates them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from ambient_jax import corruption, schedules
from ambient_jax.annotate import calibration
from ambient_jax.annotate import pairs as pairs_lib
from ambient_jax.data import chunk, device
from ambient_jax.models.classifier import ChunkClassifier
from ambient_jax.models.observation import ObservationEncoder

Array = jax.Array
_ROWS = 8192  # held-out rows of one evaluation, at least, and of one block of rows
_ROWS_OF_PAIR = 512, 8192  # of it in an evaluation while training, and in the last calibration
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
      batch_size: rows, half of them clean in expectation; all pairs share them.
      evaluate_every: steps between evaluations.
      learning_rate, weight_decay: of AdamW; the rate falls to 0 along a cosine.
      ema: largest decay of the parameters' moving average, which is what is kept.
      features, dropout: of ``ChunkClassifier``.
      encoder: frequencies, width and depth of the ``ObservationEncoder``.
      blur: standard deviation of the noise on normalised observations in training, the same for
        the whole history. With few episodes a network knows each by where things lie in it; what
        is left of an observation behind some noise is what episodes have in common.
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
    encoder: tuple[int, int, int] = (4, 256, 2)
    blur: float = 0.0

    def __post_init__(self):
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}, expected at least 2: one must be held out")
        if not 0 <= self.crop <= self.horizon:
            raise ValueError(f"crop is {self.crop}, expected 0 (all) to the horizon {self.horizon}")
        for name in ("steps", "batch_size", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")

    @property
    def length(self) -> int:
        """Number of actions that are seen."""
        return self.crop or self.horizon


@dataclasses.dataclass(frozen=True)
class Network:
    """The classifier and, where it observes, the encoder; pure functions of their parameters."""

    classifier: ChunkClassifier
    encoder: ObservationEncoder | None

    def init(self, key, x, moments, observation):
        keys = jax.random.split(key)
        params = {}
        condition = None
        if self.encoder is not None:
            params["encoder"] = self.encoder.init(keys[1], observation)["params"]
            condition = self.encoder.apply({"params": params["encoder"]}, observation)
        params["classifier"] = self.classifier.init(
            keys[0], x, jnp.ones(len(x)) / 2, moments, condition
        )["params"]
        return params

    def apply(self, params, x_t, sigma, pair, pairs, observation, dropout=None):
        """Logits [B] of each row's pair; only its pair's dimensions of x_t are seen."""
        condition = None
        if self.encoder is not None:
            condition = self.encoder.apply({"params": params["encoder"]}, observation)
        more = {} if dropout is None else {"rngs": {"dropout": dropout}}
        logits = self.classifier.apply(
            {"params": params["classifier"]},
            x_t * pairs.mask[pair][:, None],
            sigma,
            pairs.moments[pair],
            condition,
            train=dropout is not None,
            **more,
        )
        return jnp.take_along_axis(logits, pair[:, None], axis=1)[:, 0]


class Trained(NamedTuple):
    """Classifiers of M members.

    Attributes:
      network: of each; ``params`` has a leading axis of members.
      temperature: (x [bands], log temperature [M, K, bands]) at x = log(sigma / alpha), linear in
        between; logits are divided by it.
      history: rows {"step", "train", "held_out"} with losses in nats, [M] each; held out is after
        calibration, and so never much above log 2.
      judged: P(clean) of held-out rows of the balanced training law, and whether they are clean,
        [M * rows] each.
    """

    network: Network
    params: Any
    temperature: tuple[np.ndarray, np.ndarray]
    history: list[dict[str, Any]]
    judged: tuple[np.ndarray, np.ndarray]


def train(
    data: device.DeviceData,
    parts: list[dict[str, Any]],
    pairs: pairs_lib.Pairs,
    options: Options,
    *,
    schedule: schedules.Schedule,
    seed: int = 0,
    progress: bool = True,
) -> Trained:
    """Trains M classifiers; the one kept of each is that of least held-out loss.

    Args:
      data: all sources, without what ``parts`` give.
      parts: [training, held out] of the members, of one order, see ``pairs.split``.
      pairs: K pairs, of each member: fields with a leading axis of M.
      options: see ``Options``.
      schedule: whose training law draws the noise levels.
      seed: of initial parameters and draws.
      progress: show a progress bar.
    """
    count, heads = pairs.mask.shape[:2]
    network = Network(
        ChunkClassifier(features=options.features, dropout=options.dropout, heads=heads),
        ObservationEncoder(*options.encoder) if options.observed else None,
    )
    data, parts, pairs = jax.tree.map(jnp.asarray, (data, parts, pairs))
    parts[1]["order"] = parts[0]["order"]  # not twice in memory
    static = dict(network=network, options=options, schedule=schedule)
    keys = jax.random.split(jax.random.key(seed), count)
    tests = jax.random.split(jax.random.key(seed + 1), count)
    carry = _start(data, pairs, keys, network=network, options=options)
    judge = functools.partial(_judge, data, parts[1], pairs, tests, **static)
    rows = [max(1, -(-n * heads // _ROWS)) for n in _ROWS_OF_PAIR]
    best, least, since, history = carry[1], np.full(count, np.inf), 0, []
    steps = range(0, options.steps, options.evaluate_every)
    with tqdm.tqdm(steps, desc="classifier", disable=not progress) as bar:
        for begin in bar:
            carry, trained = _advance(carry, data, parts[0], pairs, keys, begin, **static)
            value = np.asarray(judge(carry[1], blocks=rows[0]).loss)
            better = value < least
            best = jax.tree.map(
                lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old),  # noqa: B023
                carry[1],
                best,
            )
            least, since = np.minimum(least, value), 0 if better.any() else since + 1
            row = {"step": begin + options.evaluate_every, "train": np.asarray(trained).tolist()}
            history.append(row | {"held_out": value.tolist()})
            bar.set_postfix(held_out=f"{value.mean():.4f}")
            if since >= options.patience:
                break
    found = judge(best, blocks=rows[1])
    temperature = np.asarray(_middles(schedule)), np.asarray(found.log_temperature)
    judged = np.asarray(found.probability).ravel(), np.asarray(found.clean).ravel()
    return Trained(network, best, temperature, history, judged)


_STATIC = ("network", "options", "schedule")


def measured(
    data: device.DeviceData,
    part: dict[str, Any],
    pairs: pairs_lib.Pairs,
    options: Options,
    *,
    schedule: schedules.Schedule,
    seed: int = 0,
) -> pairs_lib.Pairs:
    """The pairs with the moments of a batch of one member's part, see ``pairs.measured``."""
    rows = jnp.arange(max(_ROWS, _ROWS_OF_PAIR[0] * len(pairs.mask)))
    kind = dict(options=options, schedule=schedule)
    seen = _one_batch(data, part, pairs, jax.random.key(seed), 0, rows, **kind)
    return pairs_lib.measured(pairs, seen, options.length)


def _draw(data, part, pairs, key, step, rows, *, options, schedule):
    kind = dict(schedule=schedule, history=options.history, horizon=options.horizon)
    return pairs_lib.draw(data, part, pairs, key, step, rows, **kind)


_one_batch = jax.jit(_draw, static_argnames=("options", "schedule"))


def _middles(schedule):
    return calibration.log_ratio(schedule.quantile((jnp.arange(_BANDS) + 0.5) / _BANDS))


def _optimizer(options):
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            optax.cosine_decay_schedule(options.learning_rate, options.steps),
            weight_decay=options.weight_decay,
        ),
    )


@functools.partial(jax.jit, static_argnames=("network", "options"))
def _start(data, pairs, keys, *, network, options):
    first = jnp.zeros(1, jnp.int32)  # any chunk has the shapes
    observation, action, _ = chunk.gather(
        *(data.steps, first, data.start[first], data.end[first]),
        *(options.history, options.horizon),
    )

    def one(pairs, key):
        x, moments = action[:, : options.length], pairs.moments[:1]
        params = network.init(key, x, moments, observation)
        return params, params, _optimizer(options).init(params)

    return jax.vmap(one)(pairs, keys)


def _logits(network, options, params, batch, pairs, key, dropout=None):
    x0, sigma = batch["action"][:, : options.length], batch["sigma"]
    x_t = jax.vmap(corruption.add_noise)(x0, jax.random.normal(key, x0.shape), sigma)
    return network.apply(params, x_t, sigma, batch["pair"], pairs, batch["observation"], dropout)


def _blurred(observation, size, key):
    """Observations {name: [B, T, d]} with noise that stays over the history."""
    keys = dict(zip(sorted(observation), jax.random.split(key, len(observation)), strict=True))
    shift = lambda name, x: size * jax.random.normal(keys[name], (len(x), 1, x.shape[-1]))  # noqa: E731
    return {name: x + shift(name, x) for name, x in observation.items()}


@functools.partial(jax.jit, static_argnames=_STATIC)
def _advance(carry, data, parts, pairs, keys, first, *, network, options, schedule):
    optimizer, rows = _optimizer(options), jnp.arange(options.batch_size)

    def loss(params, part, pairs, key, step):
        batch = _draw(data, part, pairs, key, step, rows, options=options, schedule=schedule)
        noise, dropout = jax.random.split(jax.random.fold_in(key, step))
        if options.blur:
            blur = jax.random.fold_in(dropout, 0)
            batch["observation"] = _blurred(batch["observation"], options.blur, blur)
        dropout = dropout if options.dropout else None
        logits = _logits(network, options, params, batch, pairs, noise, dropout)
        return calibration.cross_entropy(logits, batch["clean"]).mean()

    def update(carry, step, part, pairs, key):
        params, average, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params, part, pairs, key, step)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(options.ema, (1.0 + step) / (10.0 + step))
        average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, params)
        return (params, average, opt_state), value

    def one(carry, part, pairs, key):
        steps = first + jnp.arange(options.evaluate_every)
        carry, losses = jax.lax.scan(lambda c, s: update(c, s, part, pairs, key), carry, steps)
        return carry, losses.mean()

    return jax.vmap(one)(carry, parts, pairs, keys)


@functools.partial(jax.jit, static_argnames=(*_STATIC, "blocks"))
def _judge(data, parts, pairs, keys, params, *, network, options, schedule, blocks):
    """Calibrates on held-out rows, in blocks that bound the memory of the activations."""

    def one(params, part, pairs, key):
        def block(number):
            rows = number * _ROWS + jnp.arange(_ROWS)
            batch = _draw(data, part, pairs, key, 0, rows, options=options, schedule=schedule)
            noise = jax.random.fold_in(key, 1 + number)
            logits = _logits(network, options, params, batch, pairs, noise)
            return logits, batch["clean"], calibration.log_ratio(batch["sigma"]), batch["pair"]

        logits, clean, x, pair = jax.tree.map(jnp.ravel, jax.lax.map(block, jnp.arange(blocks)))
        return calibration.fit(logits, clean, x, _middles(schedule), pair, len(pairs.mask))

    return jax.vmap(one)(params, parts, pairs, keys)
