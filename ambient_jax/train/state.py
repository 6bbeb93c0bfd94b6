"""What training carries from step to step, and the optimizer."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax

from ambient_jax import _checks

BINS = 10


@flax.struct.dataclass
class Sums:
    """Metrics since the last report as sums and counts, so that any split of the work agrees.

    Kept in the state: a resumed run reports what an uninterrupted one would have.
    """

    bin_loss: jax.Array  # [BINS], noise level sigma in equal bins of [0, 1]
    bin_count: jax.Array
    source_loss: jax.Array  # [K]
    source_count: jax.Array
    grad_norm: jax.Array
    steps: jax.Array
    nonfinite: jax.Array  # first step, counted from 1, at which these sums were not; 0: none

    def marked(self, step: jax.Array) -> Sums:
        """With ``nonfinite`` at the step, if the sums have ceased to be finite at it."""
        bad = ~jnp.isfinite(jnp.sum(self.bin_loss) + self.grad_norm)
        first = jnp.where(bad & (self.nonfinite == 0), step, self.nonfinite)
        return self.replace(nonfinite=first)


@flax.struct.dataclass
class TrainState:
    """Parameters, their moving average, the optimizer and metric sums; no PRNG key.

    Randomness is a function of (run key, step, row), and step is here.
    """

    step: jax.Array
    params: Any
    ema_params: Any
    opt_state: optax.OptState
    sums: Sums


def empty_sums(sources: int) -> Sums:
    """Metric sums of no steps, for K sources."""
    return Sums(
        bin_loss=jnp.zeros(BINS),
        bin_count=jnp.zeros(BINS),
        source_loss=jnp.zeros(sources),
        source_count=jnp.zeros(sources),
        grad_norm=jnp.zeros(()),
        steps=jnp.zeros((), jnp.int32),
        nonfinite=jnp.zeros((), jnp.int32),
    )


def create(params: Any, optimizer: optax.GradientTransformation, sources: int) -> TrainState:
    """The state at step 0."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        sums=empty_sums(sources),
    )


def check_optimizer(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for numbers of the train section that no optimizer can have."""
    number = lambda name, *limits, **k: _checks.number(  # noqa: E731
        f"config.train.{name}", config[name], *limits, **k
    )
    number("weight_decay", 0, below=True)
    for name in ("b1", "b2"):
        number(name, 0, 1, below=True)
    number("clip_norm", 0, above=True)


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
    """Linear warm-up, then cosine decay to 0 at ``config.steps`` (config: the train section)."""
    if not 0 <= config.warmup < config.steps:
        raise ValueError(
            f"config.train.warmup is {config.warmup} and config.train.steps {config.steps}, "
            "expected 0 <= warmup < steps"
        )
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, config.steps
    )


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """AdamW with gradients clipped by their global norm (config: the train section)."""
    check_optimizer(config)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config), b1=config.b1, b2=config.b2, weight_decay=config.weight_decay
        ),
    )


def ema_decay(step: jax.Array, limit: float) -> jax.Array:
    """Decay of the moving average at a step: grows from 0.1 to ``limit``, so that the average
    forgets the random start (as in Diffusion Policy; the step it needs is part of the state)."""
    return jnp.minimum(limit, (1.0 + step) / (10.0 + step))
