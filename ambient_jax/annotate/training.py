"""Trains and calibrates the classifiers of all members, such as folds, in one vmapped program."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption, observations, optim, schedules
from ambient_jax.annotate import calibration, gaussian
from ambient_jax.annotate import pairs as pairs_lib
from ambient_jax.data import chunk, device
from ambient_jax.models.classifier import ChunkClassifier, difference_moments
from ambient_jax.models.observation import ObservationEncoder

Array = jax.Array
_ROWS = 8192  # held-out rows in one block; an evaluation has at least one block
_ROWS_PER_PAIR = 512, 8192  # held-out rows per pair while training, and in the last calibration
_LEVELS = observations.Levels(clean=0.2, dropped=0.1)  # of noised observations
_BANDS = 8  # of the noise level, each with a temperature


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the classifiers."""

    history: int = 2
    horizon: int = 16
    crop: int = 0  # actions of a chunk that the classifier sees, from the first; 0: all
    observed: bool = False  # compare p(A | O) with q(A | O) rather than p(A) with q(A)
    folds: int = 2
    steps: int = 3000  # at most, rounded up to a multiple of evaluate_every
    batch_size: int = 256  # rows shared by all pairs; half of them are clean in expectation
    evaluate_every: int = 100  # steps between evaluations
    patience: int = 8  # evaluations without a lower held-out loss before training stops
    learning_rate: float = 2e-3  # this and the next two: see ``optim.Recipe``
    weight_decay: float = 1e-2
    ema: float = 0.99
    features: tuple[int, ...] = (32, 64)  # this and the next: see ``ChunkClassifier``
    dropout: float = 0.2
    encoder: tuple[int, int, int] = (4, 256, 2)  # frequencies, width and depth
    # Standard deviation of the noise added to normalised observations in training, constant over
    # the history, so that a network cannot memorise the episodes' observations.
    blur: float = 0.0
    # Observations that get noise of a random level, which the classifier is told (``plane``).
    noised: tuple[str, ...] = ()
    colour: float = 0.0  # of the noise, that of the schedule (``classifier.fit`` sets it)
    head_start: bool = False  # add the logit of Gaussians to the network's, unless it is observed

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
        """Number of actions that the classifier sees."""
        return self.crop or self.horizon


@dataclasses.dataclass(frozen=True)
class Network:
    """The classifier and, if it sees observations, their encoder."""

    classifier: ChunkClassifier
    encoder: ObservationEncoder | None
    noised: bool = False  # whether the encoder also sees the level of the observations' noise

    def init(self, key, x, moments, observation):
        """Returns initial parameters, from one batch of inputs."""
        keys = jax.random.split(key)
        params = {}
        if self.encoder is not None:
            params["encoder"] = self.encoder.init(keys[1], self._seen(observation))["params"]
        inputs = x, jnp.ones(len(x)) / 2, moments, self._encode(params, observation)
        params["classifier"] = self.classifier.init(keys[0], *inputs)["params"]
        return params

    def _encode(self, params, observation):
        if self.encoder is None:
            return None
        return self.encoder.apply({"params": params["encoder"]}, self._seen(observation))

    def _seen(self, observation):
        return observations.with_level(observation) if self.noised else observation

    def apply(self, params, x_t, sigma, pair, pairs, observation, dropout=None):
        """Returns the logit [B] of each row's pair, from the pair's dimensions of x_t [B, H, D]."""
        condition = self._encode(params, observation)
        x_t = x_t * pairs.mask[pair][:, None]
        logits = self.classifier.apply(
            {"params": params["classifier"]},
            *(x_t, sigma, pairs.moments[pair], condition),
            train=dropout is not None,
            rngs=None if dropout is None else {"dropout": dropout},
        )
        own = jnp.take_along_axis(logits, pair[:, None], axis=1)[:, 0]
        if pairs.head_start is None:
            return own
        return own + gaussian.logit(pairs.head_start, x_t, sigma, pair)


@dataclasses.dataclass(frozen=True)
class _HeadStartAlone:
    """A ``Network`` without parameters, whose logit is the head start's."""

    def apply(self, params, x_t, sigma, pair, pairs, observation, dropout=None):
        x_t = x_t * pairs.mask[pair][:, None]
        return gaussian.logit(pairs.head_start, x_t, sigma, pair)


class Trained(NamedTuple):
    """Classifiers of M members."""

    network: Network  # of one member
    params: Any  # with a leading axis of members
    # (x [bands], log temperature [M, K, bands]) at x = log(sigma / alpha), see ``calibration``.
    temperature: tuple[np.ndarray, np.ndarray]
    # Rows {"step", "train", "held_out"} of losses in nats, [M] each; held_out after calibration.
    history: list[dict[str, Any]]
    # (P(clean), is clean) of held-out rows of the balanced training law, [M * rows] each.
    judged: tuple[np.ndarray, np.ndarray]
    head_start: gaussian.HeadStart | None = None  # with a leading axis of members


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
    """Trains M classifiers and keeps each with its least held-out loss.

    ``data`` has all sources. ``parts`` come from ``pairs.split``; like the fields of ``pairs`` they
    have a leading axis of M. For the other arguments see ``classifier.fit``.
    """
    count, heads = pairs.mask.shape[:2]
    network = Network(
        ChunkClassifier(
            features=options.features, dropout=options.dropout, heads=heads, colour=options.colour
        ),
        ObservationEncoder(*options.encoder) if options.observed else None,
        bool(options.noised),
    )
    blocks, last_blocks = (max(1, -(-n * heads // _ROWS)) for n in _ROWS_PER_PAIR)
    keys, held_out_keys = (jax.random.split(jax.random.key(s), count) for s in (seed, seed + 1))
    on_host = data, parts[0], pairs
    data, parts, pairs = jax.tree.map(jnp.asarray, (data, parts, pairs))
    parts[1]["order"] = parts[0]["order"]  # shared, to save memory
    if options.head_start and not options.observed:
        pairs = pairs._replace(head_start=_measured(*on_host, options, schedule))
        held_out, alone = (
            (parts[1], pairs, held_out_keys),
            _Loss(_HeadStartAlone(), options, schedule),
        )
        judged = _judge({}, data, held_out, loss=alone, blocks=last_blocks)
        start = pairs.head_start._replace(log_temperature=judged.log_temperature)
        pairs = pairs._replace(head_start=start)
    loss, held_out = _Loss(network, options, schedule), (parts[1], pairs, held_out_keys)
    every = options.evaluate_every
    fitted = optim.fit(
        loss,
        _init(data, pairs, keys, loss=loss),
        [first + np.arange(every) for first in range(0, options.steps, every)],
        optim.Recipe(options.steps, options.learning_rate, options.weight_decay, options.ema),
        shared=data,
        own=(parts[0], pairs, keys),
        members=True,
        held_out=lambda params: _judge(params, data, held_out, loss=loss, blocks=blocks).loss,
        patience=options.patience,
        progress="classifier" if progress else "",
    )
    judged = _judge(fitted.params, data, held_out, loss=loss, blocks=last_blocks)
    return Trained(
        network,
        fitted.params,
        (np.asarray(_middles(schedule)), np.asarray(judged.log_temperature)),
        fitted.history,
        (np.asarray(judged.probability).ravel(), np.asarray(judged.clean).ravel()),
        jax.tree.map(np.asarray, pairs.head_start),
    )


def _measured(data, part, pairs, options, schedule):
    """Returns the head starts of all members, with temperature 1."""
    member = lambda tree, m: jax.tree.map(lambda x: np.asarray(x[m]), tree)  # noqa: E731
    data, middles = jax.tree.map(np.asarray, data), np.asarray(_middles(schedule))
    starts = [
        gaussian.measure(data, member(part, m), member(pairs, m), middles, options)
        for m in range(len(pairs.mask))
    ]
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *starts)


@dataclasses.dataclass(frozen=True)
class _Loss:
    """The cross entropy of one member's batch; the batch is the number of the step."""

    network: Network | _HeadStartAlone
    options: Options
    schedule: schedules.Schedule

    def __call__(self, params, step, data, own):
        part, pairs, key = own
        rows = jnp.arange(self.options.batch_size)
        batch = draw(data, part, pairs, key, step, rows, self.options, self.schedule)
        noise, dropout = jax.random.split(jax.random.fold_in(key, step))
        if self.options.blur:
            blur = jax.random.fold_in(dropout, 0)
            batch["observation"] = _blurred(batch["observation"], self.options.blur, blur)
        logits = self.logits(params, batch, pairs, noise, dropout if self.options.dropout else None)
        return calibration.cross_entropy(logits, batch["clean"]).mean()

    def logits(self, params, batch, pairs, key, dropout=None):
        x0, sigma = batch["action"][:, : self.options.length], batch["sigma"]
        if self.options.noised:
            keys = jax.random.split(jax.random.fold_in(key, 2), len(x0))
            rho = jax.vmap(lambda k: _LEVELS.sample(k, 0.0))(keys)
            seen = observations.noised(batch["observation"], self.options.noised, rho, keys)
            batch = {**batch, "observation": seen}
        eps = corruption.coloured(jax.random.normal(key, x0.shape), self.schedule)
        x_t = jax.vmap(corruption.add_noise)(x0, eps, sigma)
        inputs = x_t, sigma, batch["pair"], pairs, batch["observation"]
        return self.network.apply(params, *inputs, dropout)


@functools.partial(jax.jit, static_argnames=("options", "schedule"))
def draw(data, part, pairs, key, step, rows, options, schedule):
    """Calls ``pairs.draw`` with the chunk sizes of ``options``."""
    sizes = dict(history=options.history, horizon=options.horizon)
    return pairs_lib.draw(data, part, pairs, key, step, rows, schedule=schedule, **sizes)


def measured(data, part, pairs, options, *, schedule, seed: int = 0) -> pairs_lib.Pairs:
    """Returns the pairs with moments measured on a batch of one member's part; see ``train``."""
    rows = jnp.arange(max(_ROWS, _ROWS_PER_PAIR[0] * len(pairs.mask)))
    batch = draw(data, part, pairs, jax.random.key(seed), 0, rows, options, schedule)
    action, pair = np.asarray(batch["action"])[:, : options.length], np.asarray(batch["pair"])
    moments = []
    for k, dims in enumerate(np.asarray(pairs.mask) > 0):
        chunks = action[pair == k][..., dims]
        # A pair without a row in the batch gets the moments of all rows.
        moments.append(difference_moments(chunks if len(chunks) else action[..., dims]))
    return pairs._replace(moments=np.maximum(moments, 1e-8).astype(np.float32))


def _middles(schedule):
    return calibration.log_ratio(schedule.quantile((jnp.arange(_BANDS) + 0.5) / _BANDS))


@functools.partial(jax.jit, static_argnames="loss")
def _init(data, pairs, keys, *, loss):
    options = loss.options
    first = jnp.zeros(1, jnp.int32)  # any chunk has the shapes
    place = first, data.start[first], data.end[first]
    observation, action, _ = chunk.gather(data.steps, *place, options.history, options.horizon)
    x = action[:, : options.length]
    init = lambda p, key: loss.network.init(key, x, p.moments[:1], observation)  # noqa: E731
    return jax.vmap(init)(pairs, keys)


def _blurred(observation, size, key):
    """Adds noise that is constant over the history to observations {name: [B, T, d]}."""
    keys = dict(zip(sorted(observation), jax.random.split(key, len(observation)), strict=True))
    shift = lambda name, x: size * jax.random.normal(keys[name], (len(x), 1, x.shape[-1]))  # noqa: E731
    return {name: x + shift(name, x) for name, x in observation.items()}


@functools.partial(jax.jit, static_argnames=("loss", "blocks"))
def _judge(params, data, held_out, *, loss, blocks):
    """Calibrates on held-out rows, in blocks that bound the memory of the activations."""

    def judge(params, held_out):
        part, pairs, key = held_out

        def block(number):
            rows = number * _ROWS + jnp.arange(_ROWS)
            batch = draw(data, part, pairs, key, 0, rows, loss.options, loss.schedule)
            logits = loss.logits(params, batch, pairs, jax.random.fold_in(key, 1 + number))
            return logits, batch["clean"], calibration.log_ratio(batch["sigma"]), batch["pair"]

        logits, clean, x, pair = jax.tree.map(jnp.ravel, jax.lax.map(block, jnp.arange(blocks)))
        return calibration.fit(logits, clean, x, _middles(loss.schedule), pair, len(pairs.mask))

    return jax.vmap(judge)(params, held_out)
