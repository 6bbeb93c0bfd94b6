"""The state of training from step to step."""

from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ambient_jax.train import lora

BINS = 10


class Sums(flax.struct.PyTreeNode):
    """Metrics since the last report as sums and counts, so that any split of the work agrees. They
    are in the state, so that a resumed run reports the same as an uninterrupted one."""

    bin_loss: jax.Array  # [BINS], noise level sigma in equal bins of [0, 1]
    bin_count: jax.Array
    source_loss: jax.Array  # [K]
    source_count: jax.Array
    grad_norm: jax.Array
    steps: jax.Array
    nonfinite: jax.Array  # first step, counted from 1, whose sums are not finite; 0: none

    def marked(self, step: jax.Array) -> Self:
        """Returns the sums with ``nonfinite`` set to the step, if it is the first not finite."""
        bad = ~jnp.isfinite(jnp.sum(self.bin_loss) + self.grad_norm)
        first = jnp.where(bad & (self.nonfinite == 0), step, self.nonfinite)
        return self.replace(nonfinite=first)


class TrainState(flax.struct.PyTreeNode):
    """Parameters (with adapters those of ``lora``), the moving average of the network's,
    optimizer and metric sums. It has no PRNG key, as randomness is a function of (run key, step,
    row)."""

    step: jax.Array
    params: Any
    ema_params: Any
    opt_state: optax.OptState
    sums: Sums


def empty_sums(sources: int) -> Sums:
    """Returns metric sums of no steps, for K sources."""
    return Sums(
        bin_loss=jnp.zeros(BINS),
        bin_count=jnp.zeros(BINS),
        source_loss=jnp.zeros(sources),
        source_count=jnp.zeros(sources),
        grad_norm=jnp.zeros(()),
        steps=jnp.zeros((), jnp.int32),
        nonfinite=jnp.zeros((), jnp.int32),
    )


def create(
    params: Any, optimizer: optax.GradientTransformation, sources: int, adapters: Any = None
) -> TrainState:
    """Returns the state at step 0. With ``adapters`` only these are trained (``lora``)."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params if adapters is None else {lora.BASE: params, lora.LORA: adapters},
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params if adapters is None else adapters),
        sums=empty_sums(sources),
    )
