"""Optimizers, the parameters' moving average, and one loop that fits small networks."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from ambient_jax import _checks


def check(config: Any) -> None:
    """Raises ValueError for numbers of the train section that no optimizer can have."""
    number = lambda name, *limits, **options: _checks.number(  # noqa: E731
        f"config.train.{name}", config[name], *limits, **options
    )
    number("learning_rate", 0, 1, above=True, below=True)
    number("weight_decay", 0, below=True)
    for name in ("ema", "b1", "b2"):
        number(name, 0, 1, below=True)
    number("clip_norm", 0, above=True)
    learning_rate(config)


def learning_rate(config: Any) -> optax.Schedule:
    """Linear warm-up, then cosine decay to 0 at ``config.steps`` (config: the train section)."""
    if not 0 <= config.warmup < config.steps:
        raise ValueError(
            f"config.train.warmup is {config.warmup} and config.train.steps {config.steps}, "
            "expected 0 <= warmup < steps"
        )
    peak, warmup = config.learning_rate, config.warmup
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config.steps)


def make_optimizer(config: Any) -> optax.GradientTransformation:
    """AdamW with gradients clipped by their global norm (config: the train section)."""
    decay = {"b1": config.b1, "b2": config.b2, "weight_decay": config.weight_decay}
    return _clipped_adamw(config.clip_norm, learning_rate(config), **decay)


def _clipped_adamw(norm: float, rate: optax.Schedule, **decay: float):
    return optax.chain(optax.clip_by_global_norm(norm), optax.adamw(rate, **decay))


def ema_decay(step: jax.Array, limit: float) -> jax.Array:
    """Decay of the moving average at a step: grows from 0.1 to ``limit``, so that the average
    forgets the random start (as in Diffusion Policy)."""
    return jnp.minimum(limit, (1.0 + step) / (10.0 + step))


def average(old: Any, new: Any, step: jax.Array, limit: float) -> Any:
    """The moving average of parameters after a step; ``limit`` is the largest decay. Unlike
    ``optax.incremental_update``, which rounds otherwise, it leaves recorded results as they are."""
    decay = ema_decay(step, limit)
    return jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), old, new)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a small network is fitted: AdamW, gradients clipped at norm 1, cosine decay to 0 at
    ``steps``; ``ema`` is the largest decay of the parameters' moving average, which is kept (0:
    none).
    """

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    ema: float = 0.0

    def optimizer(self) -> optax.GradientTransformation:
        rate = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        return _clipped_adamw(1.0, rate, weight_decay=self.weight_decay)


class Fitted(NamedTuple):
    """A fitted network: ``params`` of the least held-out loss (without one the last), or their
    moving average; ``history`` rows {"step", "train", "held_out"} of mean losses, numbers or [M].
    """

    params: Any
    history: list[dict[str, Any]]


def fit(
    loss: Callable[[Any, Any, Any, Any], jax.Array],
    params: Any,
    batches: Iterable[Any],
    recipe: Recipe,
    *,
    shared: Any = (),
    own: Any = (),
    members: bool = False,
    held_out: Callable[[Any], jax.Array] | None = None,
    patience: int | None = None,
    progress: str = "",
) -> Fitted:
    """Fits a small network, or M of them as one vmapped program.

    Args:
      loss: ``loss(params, batch, shared, own)`` of one network, a scalar. Hashable by value (a
        function of a module, or a frozen dataclass) it is compiled once for all calls.
      params: the first ones; with ``members`` every leaf has a leading axis M.
      batches: rounds: trees whose leaves have a leading axis of steps. A batch may hold data, or
        the number or key by which the loss draws its own.
      shared, own: arrays that all members see, and those of each, with a leading axis M.
      members: whether there are M networks.
      held_out: the held-out loss of parameters, a scalar or [M], measured after each round; each
        member keeps its best parameters.
      patience: ends after so many rounds in which no member's held-out loss fell.
      progress: label of a progress bar over the rounds; "": none.
    """
    if members:
        chex.assert_tree_shape_prefix((params, own), (len(jax.tree.leaves(params)[0]),))
    start = jax.vmap(recipe.optimizer().init) if members else recipe.optimizer().init
    carry = params, (params if recipe.ema else None), jax.jit(start)(params)
    best, least, since, step, history = params, np.inf, 0, 0, []
    with tqdm.tqdm(batches, desc=progress, disable=not progress) as bar:
        for batch in bar:
            carry, value = _advance(
                carry, step, batch, shared, own, loss=loss, recipe=recipe, members=members
            )
            current = carry[1] if recipe.ema else carry[0]
            step += len(jax.tree.leaves(batch)[0])
            history.append({"step": step, "train": value})
            if held_out is None:
                best = current
                continue
            held = np.asarray(held_out(current))
            history[-1]["held_out"] = held.tolist()
            better = held < least
            best = jax.tree.map(lambda new, old: _chosen(better, new, old), current, best)  # noqa: B023
            least, since = np.minimum(least, held), 0 if np.any(better) else since + 1
            bar.set_postfix(held_out=f"{held.mean():.4f}")
            if patience is not None and since >= patience:
                break
    return Fitted(best, [row | {"train": np.asarray(row["train"]).tolist()} for row in history])


def _chosen(better, new, old):
    return jnp.where(np.reshape(better, (*better.shape, *[1] * (new.ndim - better.ndim))), new, old)


@functools.partial(jax.jit, static_argnames=("loss", "recipe", "members"))
def _advance(carry, first, batches, shared, own, *, loss, recipe, members):
    """A round of steps from step ``first`` on: the new carry and the mean loss."""
    optimizer = recipe.optimizer()

    def update(carry, step, batch, own):
        params, mean, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params, batch, shared, own)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        mean = average(mean, params, step, recipe.ema) if recipe.ema else None
        return (params, mean, opt_state), value

    def one(carry, own):
        steps = first + jnp.arange(len(jax.tree.leaves(batches)[0]))
        carry, values = jax.lax.scan(lambda c, b: update(c, *b, own), carry, (steps, batches))
        return carry, values.mean()

    return jax.vmap(one)(carry, own) if members else one(carry, own)
