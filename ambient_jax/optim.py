"""Optimizers, the moving average of parameters, and the loop that fits small networks."""

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
    """Raises ValueError for optimizer options of the train section that are out of range."""
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
    """Returns linear warm-up, then cosine decay to 0 at ``config.steps`` (the train section)."""
    if not 0 <= config.warmup < config.steps:
        raise ValueError(
            f"config.train.warmup is {config.warmup} and config.train.steps {config.steps}, "
            "expected 0 <= warmup < steps"
        )
    peak, warmup = config.learning_rate, config.warmup
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config.steps)


def make_optimizer(config: Any) -> optax.GradientTransformation:
    """Returns AdamW with gradients clipped by their global norm (config: the train section)."""
    decay = {"b1": config.b1, "b2": config.b2, "weight_decay": config.weight_decay}
    return _clipped_adamw(config.clip_norm, learning_rate(config), **decay)


def _clipped_adamw(norm: float, rate: optax.Schedule, **decay: float):
    return optax.chain(optax.clip_by_global_norm(norm), optax.adamw(rate, **decay))


def at_own_rate(
    optimizer: optax.GradientTransformation, part: str, rate: float
) -> optax.GradientTransformation:
    """Returns an optimizer that trains all parameters below the name ``part`` with ``rate`` times
    the learning rate, 0: not at all, without moments. Each of the two parts clips its own norm."""

    def labels(params):
        own = lambda path: any(getattr(k, "key", None) == part for k in path)  # noqa: E731
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "own" if own(path) else "rest", params
        )

    own = optax.chain(optimizer, optax.scale(rate)) if rate else optax.set_to_zero()
    return optax.multi_transform({"own": own, "rest": optimizer}, labels)


def ema_decay(step: jax.Array, limit: float) -> jax.Array:
    """Returns the decay of the moving average at a step. It grows from 0.1 to ``limit``, so that
    the average forgets the random initial parameters (as in Diffusion Policy)."""
    return jnp.minimum(limit, (1.0 + step) / (10.0 + step))


def average(old: Any, new: Any, step: jax.Array, limit: float) -> Any:
    """Returns the moving average of parameters after a step; ``limit`` is the largest decay.
    ``optax.incremental_update`` rounds differently and would change recorded results."""
    decay = ema_decay(step, limit)
    return jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), old, new)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of fitting a small network: AdamW, gradients clipped at norm 1, cosine decay. The
    learning rate reaches 0 at ``steps``. ``ema`` is the largest decay of the parameters' moving
    average, which ``fit`` then returns (0: no average)."""

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    ema: float = 0.0

    def optimizer(self) -> optax.GradientTransformation:
        rate = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        return _clipped_adamw(1.0, rate, weight_decay=self.weight_decay)


class Fitted(NamedTuple):
    """A fitted network. ``params`` (or their moving average) have the least held-out loss; without
    one they are the last. ``history`` has rows {"step", "train", "held_out"} of mean losses,
    numbers or [M]."""

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
      loss: ``loss(params, batch, shared, own)`` of one network, a scalar. If it is hashable by
        value (a function of a module, or a frozen dataclass), all calls share one compilation.
      params: initial parameters; with ``members`` every leaf has a leading axis M.
      batches: rounds: trees whose leaves have a leading axis of steps. A batch holds data, or the
        number or key that the loss draws data with.
      shared, own: arrays for all members, and arrays per member with a leading axis M.
      members: whether there are M networks.
      held_out: returns the held-out loss of parameters, a scalar or [M]. It is measured after every
        round, and each member keeps its best parameters.
      patience: number of rounds without a lower held-out loss of any member that ends the fit.
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
            error = np.asarray(held_out(current))
            history[-1]["held_out"] = error.tolist()
            better = error < least
            best = jax.tree.map(lambda new, old: _chosen(better, new, old), current, best)  # noqa: B023
            least, since = np.fmin(least, error), 0 if np.any(better) else since + 1
            bar.set_postfix(held_out=f"{error.mean():.4f}")
            if patience is not None and since >= patience:
                break
    return Fitted(best, [row | {"train": np.asarray(row["train"]).tolist()} for row in history])


def _chosen(better, new, old):
    return jnp.where(np.reshape(better, (*better.shape, *[1] * (new.ndim - better.ndim))), new, old)


@functools.partial(jax.jit, static_argnames=("loss", "recipe", "members"))
def _advance(carry, first, batches, shared, own, *, loss, recipe, members):
    """Trains for one round from step ``first``; returns the new carry and the mean loss."""
    optimizer = recipe.optimizer()

    def update(carry, step, batch, own):
        params, mean, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params, batch, shared, own)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        mean = average(mean, params, step, recipe.ema) if recipe.ema else None
        return (params, mean, opt_state), value

    def train(carry, own):
        steps = first + jnp.arange(len(jax.tree.leaves(batches)[0]))
        carry, values = jax.lax.scan(lambda c, b: update(c, *b, own), carry, (steps, batches))
        return carry, values.mean()

    return jax.vmap(train)(carry, own) if members else train(carry, own)
