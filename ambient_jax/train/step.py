"""The train step of one device, a pure function; ``parallel`` lifts it over an axis of devices."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from ambient_jax import _checks, _names, corruption, losses, optim, schedules, targets
from ambient_jax import observations as observations_lib
from ambient_jax.data import noise_first
from ambient_jax.models import prefix as prefixes
from ambient_jax.train import lora
from ambient_jax.train import state as state_lib
from ambient_jax.transforms import augment

LOSSES = {"denoising": losses.denoising_loss, "ambient": losses.ambient_loss}
Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The training objective. ``loss`` is "denoising" (of x0), "ambient" (of x_min, with
    ``weighting`` and ``buffer``), or ``package.module:function`` of a kernel with the signature of
    ``losses.denoising_loss``; ``prediction`` is the network's output, see ``targets``."""

    loss: str = "denoising"
    prediction: str = "eps"
    schedule: schedules.Schedule = schedules.vp()
    weighting: str = "unit"
    buffer: float = 4.0

    def __post_init__(self):
        if not callable(_names.resolve("loss", self.loss, LOSSES)):
            raise ValueError(f"loss is {self.loss!r}, which cannot be called: expected a function")
        _checks.one_of("prediction", self.prediction, targets.PREDICTIONS)
        _checks.one_of("weighting", self.weighting, losses.WEIGHTINGS)
        losses.check_buffer(self.buffer)


def noised(objective: Objective, batch: Batch, keys: jax.Array, noise_key: jax.Array):
    """Returns (x_anchor, z, x_t), [B, H, D] each: the sample that x_t is made from, noise, x_t.

    Args:
      batch: see ``make_loss``.
      keys: [B] keys of the rows at this step.
      noise_key: key of the data set's fixed noise (a sample has one x_min).
    """
    x0, sigma, schedule = batch["action"], batch["sigma"], objective.schedule
    z = jax.vmap(lambda k: jax.random.normal(k, x0.shape[1:]))(keys)
    z = corruption.coloured(z, schedule)
    anchor, start = jnp.zeros_like(sigma), x0
    if objective.loss == "ambient":
        anchor = corruption.anchor_level(sigma, batch["sigma_min"])
        fixed = jax.vmap(lambda i: corruption.fixed_noise(noise_key, i, x0.shape[1:]))(batch["id"])
        fixed = corruption.coloured(fixed, schedule)
        add_noise = functools.partial(corruption.add_noise, schedule=schedule)
        start = jax.vmap(add_noise)(x0, fixed, anchor)
    renoise = functools.partial(corruption.renoise, schedule=schedule)
    return start, z, jax.vmap(renoise)(start, z, sigma, anchor)


def without_masked(batch: Batch, keep: jax.Array) -> Batch:
    """Sets rows that do not count, and padded actions that are not finite, to zero. Infinity times
    the zero gradient of a masked row would make every parameter NaN."""
    zero = lambda a: jnp.zeros((), a.dtype)  # noqa: E731
    clear = lambda a: jnp.where(jnp.expand_dims(keep, range(1, a.ndim)), a, zero(a))  # noqa: E731
    action = clear(batch["action"])
    action = jnp.where(entries(batch) | jnp.isfinite(action), action, 0)
    return {**batch, "action": action, "observation": jax.tree.map(clear, batch["observation"])}


def entries(batch: Batch) -> jax.Array:
    """Returns the mask [B, H, D] of numbers that count. It excludes steps past the episode's end
    and dimensions that the source's robot lacks (``dims`` [B, D], if the batch has it)."""
    mask = jnp.broadcast_to(batch["mask"][..., None], batch["action"].shape)
    return mask & batch["dims"][:, None] if "dims" in batch else mask


def with_prefix(batch: Batch, keys: jax.Array, prefix: int) -> Batch:
    """Shows the network the first n actions of each row and leaves them out of the loss: n is 0 in
    half of the rows, and uniform from 1 to ``prefix`` in the others, see ``models.denoiser``.
    ``keys`` [B] are those of the rows."""
    length = lambda k: jax.random.randint(jax.random.fold_in(k, 1), (), 1 - prefix, prefix + 1)  # noqa: E731
    count = jnp.maximum(jax.vmap(length)(keys), 0)
    shown = jnp.arange(batch["action"].shape[1]) < count[:, None]
    known = prefixes.join(jnp.where(entries(batch), batch["action"], 0), shown)
    observation = {**batch["observation"], prefixes.KNOWN: known}
    return {**batch, "observation": observation, "mask": batch["mask"] & ~shown}


def make_loss(
    objective: Objective,
    apply: Callable[..., jax.Array],
    prefix: int = 0,
    observation_noise: observations_lib.ObservationNoise | None = None,
) -> Callable:
    """Returns ``loss(params, batch, keys, noise_key) -> (total, (rows, keep))`` of a batch.

    The batch has observation {name: [B, T, d]} or other inputs of the model, action x0 [B, H, D]
    (normalised), mask [B, H], sigma, sigma_min, sigma_max, source [B] and id [B, 3]; optionally
    dims [B, D] (see ``entries``) and weight [B] (data first).
    ``apply(params, x_t, sigma, observation)`` gets x_t in variance-preserving scale for every
    schedule, so that its inputs have unit size. ``prefix``: see ``with_prefix``.
    ``observation_noise`` noises the observations by the rows' levels and sources.
    """

    def loss(params, batch, keys, noise_key):
        if prefix:
            batch = with_prefix(batch, keys, prefix)
        if observation_noise:
            own = jax.vmap(lambda k: jax.random.fold_in(k, 2))(keys)
            rows = batch["observation"], batch["sigma"], batch["source"], own
            batch = {**batch, "observation": observation_noise.noised(*rows)}
        mask = entries(batch) if "dims" in batch else batch["mask"]
        bounds = batch["sigma_min"], batch["sigma_max"], mask
        keep = losses.batch_keep_mask(batch["sigma"], *bounds)
        batch = without_masked(batch, keep)
        start, z, x_t = noised(objective, batch, keys, noise_key)
        sigma = batch["sigma"]
        unit = x_t / objective.schedule.scale(sigma)[:, None, None]
        h = apply(params, unit, sigma, batch["observation"])
        common = dict(prediction=objective.prediction, schedule=objective.schedule)
        if objective.loss == "denoising":
            rows = losses.batch_denoising_loss(h, start, z, sigma, *bounds, **common)
        elif objective.loss == "ambient":
            common.update(weighting=objective.weighting, buffer=objective.buffer)
            rows = losses.batch_ambient_loss(h, start, z, sigma, *bounds, **common)
        else:
            kernel = functools.partial(_names.resolve("loss", objective.loss, LOSSES), **common)
            rows = jax.vmap(kernel)(h, start, z, sigma, *bounds)
        total, _ = losses.masked_sum(rows, keep, batch.get("weight"))
        return total, (rows, keep)

    return loss


def make_train_step(
    objective: Objective,
    apply: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    ema_limit: float = 0.999,
    accumulation: int = 1,
    prefix: int = 0,
    observation_noise: observations_lib.ObservationNoise | None = None,
    merge: Callable[[Any, Any], Any] | None = None,
    augmentation: augment.Augmentation | None = None,
    axis_name: str | None = None,
) -> Callable[[state_lib.TrainState, Batch, jax.Array], state_lib.TrainState]:
    """Builds ``train_step(state, batch, rng) -> state``, a pure function.

    ``rng`` is the run's key, the same at every step and on every device: noise depends on step and
    global row, so that results do not depend on the number of devices.

    Args:
      apply: the network, see ``make_loss``.
      ema_limit: largest decay of the parameters' moving average.
      accumulation: number of micro-batches whose gradients are summed before the update; the result
        is that of the whole batch, with 1/accumulation of the memory.
      prefix: largest number of first actions that the network is shown, see ``with_prefix``.
      observation_noise: noise of observations, see ``make_loss``.
      merge: ``merge(base, adapters)`` makes the network's parameters of a state whose parameters
        are those of ``lora``; only the adapters are trained.
      augmentation: augmentation of camera images, drawn per step, row and camera.
      axis_name: mapped axis to sum gradients and counts over (None: one device).
    """
    loss = make_loss(objective, apply, prefix, observation_noise)

    def network(trained, base):
        return merge(base, trained) if merge else trained

    def loss_of(trained, base, *inputs):
        return loss(network(trained, base), *inputs)

    grad_fn = jax.value_and_grad(loss_of, has_aux=True)

    def psum(tree):
        if not axis_name or jax.lax.axis_size(axis_name) == 1:
            return tree
        # One collective for the whole tree, as dozens of small ones are slow on a network.
        flat, unravel = jax.flatten_util.ravel_pytree(tree)
        return unravel(jax.lax.psum(flat, axis_name))

    def sums_of(params, batch, keys, noise_key, sources):
        (_, (rows, keep)), grads = grad_fn(*params, batch, keys, noise_key)
        weight, values = keep.astype(rows.dtype), jnp.where(keep, rows, 0)
        weight_sums = ()
        if "weight" in batch:
            weight_sums = losses.weight_sums(keep, batch["weight"])
            weight = jnp.where(keep, batch["weight"], 0)
            values = values * weight
        bins = jnp.clip((batch["sigma"] * state_lib.BINS).astype(jnp.int32), 0, state_lib.BINS - 1)
        by_bin = lambda v: jax.ops.segment_sum(v, bins, state_lib.BINS)  # noqa: E731
        by_source = lambda v: jax.ops.segment_sum(v, batch["source"], sources)  # noqa: E731
        sums = by_bin(values), by_bin(weight), by_source(values), by_source(weight)
        return grads, (*sums, weight_sums)

    def train_step(state, batch, rng):
        noise_key, step_key = noise_first.noise_keys(rng)
        size = batch["sigma"].shape[0]
        chex.assert_tree_shape_prefix(batch, (size,))
        chex.assert_rank([batch["action"], batch["mask"], batch["sigma"]], [3, 2, 1])
        first = jax.lax.axis_index(axis_name) * size if axis_name else 0
        rows = first + jnp.arange(size)
        keys = noise_first.row_keys(step_key, state.step, rows)
        sources = state.sums.source_loss.shape[0]
        if augmentation:
            key = jax.random.fold_in(noise_first.stream_key(rng, "augmentation"), state.step)
            batch = {**batch, "observation": augmentation.batch(key, batch["observation"], rows)}

        trained, base = state.params, None
        if merge:
            trained, base = state.params[lora.LORA], state.params[lora.BASE]
        params = trained, base
        if accumulation == 1:
            grads, parts = sums_of(params, batch, keys, noise_key, sources)
        else:
            if size % accumulation:
                raise ValueError(
                    f"train.accumulation is {accumulation}, expected a divisor of the {size} rows "
                    "per device"
                )
            split = lambda a: a.reshape(accumulation, size // accumulation, *a.shape[1:])  # noqa: E731
            micro = jax.tree.map(split, (batch, keys))
            sums = lambda m: sums_of(params, *m, noise_key, sources)  # noqa: E731
            add = lambda total, m: (jax.tree.map(jnp.add, total, sums(m)), None)  # noqa: E731
            shapes = jax.eval_shape(sums, jax.tree.map(lambda a: a[0], micro))
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            (grads, parts), _ = jax.lax.scan(add, zeros, micro)

        # Sum over devices before the one division, as devices keep different numbers of rows.
        grads, parts = psum((grads, parts))
        count = losses.rows_drawn(*parts[4]) if "weight" in batch else jnp.sum(parts[1])
        grads = jax.tree.map(lambda g: g / jnp.where(count > 0, count, 1), grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        ema = optim.average(state.ema_params, network(trained, base), state.step, ema_limit)
        new = state_lib.Sums(*parts[:4], optax.global_norm(grads), steps=1, nonfinite=0)
        sums = jax.tree.map(jnp.add, state.sums, new).marked(state.step + 1)
        updated = {lora.BASE: base, lora.LORA: trained} if merge else trained
        return state_lib.TrainState(state.step + 1, updated, ema, opt_state, sums)

    return train_step
