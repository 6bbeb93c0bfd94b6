"""From a config and a workdir to a trained policy: builds the parts, resumes, runs the loop."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from ambient_jax import mixing, schedules
from ambient_jax.data import device, pipeline
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.train import checkpoint, fine_tuning, guard, lock, loop, metrics, parallel, runs
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib
from ambient_jax.train import step as step_lib
from ambient_jax.train.config import build
from ambient_jax.transforms import augment


class Result(NamedTuple):
    """How a run ended: at which step, and by which signal ("" = it is complete)."""

    step: int
    signal: str


@lock.alone
def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> Result:
    """Trains a policy; run again with the same arguments, it carries on where it was.

    Leaves ``config.json``, ``metrics.jsonl``, ``timing.jsonl``, ``tensorboard/`` and
    ``checkpoints/`` in the workdir, which is its own meanwhile (``lock``). SIGTERM saves and
    returns early. What may change when it carries on is told in ``runs``.

    Raises:
      ValueError: for a config or data that cannot work, or a workdir of another config or in use.
      FloatingPointError: a loss or gradient that is not finite, see ``guard.stop``.
    """
    workdir = pathlib.Path(expanded(workdir))
    check_resumes(config, workdir)
    fine_tuning.check(config, [workdir])
    parts = assemble(config, parallel.AXIS)
    mixture = parts.mixture
    rows = parallel.rows_per_device(config.train.batch_size)
    key = jax.random.key(config.seed)
    logging.info("%s", describe(config, parts))

    saver = open_checkpoints(config, workdir)
    start, position = 0, None
    if (latest := saver.sound_step()) is not None:
        saved = saver.assets(latest)
        runs.check_same(saved, config, mixture, workdir, latest)
        mixture = fine_tuning.resumed(mixture, saved)
        state, position = saver.restore(latest, parts.shapes)
        start = int(state.step)
        if config.data.placement == "stream":
            position = _merged(position, workdir / "checkpoints" / str(latest))
        logging.info("resuming %s at step %d of %d", workdir, start, config.train.steps)
    else:
        state = initial(config, parts, key)
        mixture = fine_tuning.with_maps(config, mixture)
    if start >= config.train.steps:
        saver.close()
        logging.info("%s is complete at step %d: nothing to train", workdir, start)
        return Result(start, "")

    if jax.process_index() == 0:
        runs.write_config(config, workdir)
        runs.write_problems(mixture, workdir)
    statistics = mixture.chain.cropped(config.augmentation.crop).to_json()
    assets = checkpoint.make_assets(config, statistics, runs.marks(mixture))
    if config.data.placement == "device":
        resident = device.load_device_data(mixture)
        data = parallel.replicate(resident)
        sampler = mixture.sampler(parts.law, parts.schedule)
        step_fn = parallel.lift_resident(parts.train_step, sampler, rows, key)
        batches: Iterator[Any] = itertools.repeat(data)
        where = lambda: None  # noqa: E731
        rows_at = lambda step: guard.redrawn(  # noqa: E731
            sampler, data, key, step, config.train.batch_size
        )
    else:
        step_fn = parallel.lift_streamed(parts.train_step, key)
        # A report comes one interval late.
        recent = guard.Recent(parallel.shard, 2 * config.train.log_every)
        shards = position and position["of"]["shards"]
        if shards and config.data.shards not in (None, shards):
            raise ValueError(
                f"workdir {workdir} holds a run with data.shards = {shards}, this one has "
                f"{config.data.shards}: give another --workdir, or data.shards = {shards} to resume"
            )
        stream = pipeline.stream_batches(
            mixture,
            parts.law,
            parts.schedule,
            seed=config.seed,
            batch_size=config.train.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            shards=config.data.shards or shards,
            put=recent.put,
        )
        if position is not None:  # of each host that trained; there may be another number now
            stream.set_state(position)
        batches, rows_at = recent.follow(stream, start), recent.rows
        where = lambda: _all_hosts(stream.get_state())  # noqa: E731

    writer = metrics.Writer(workdir, start, config) if jax.process_index() == 0 else None
    rate = state_lib.learning_rate(config.train)

    def stop_if_marked(sums):
        if first := int(sums.nonfinite):
            guard.stop(workdir, first, rows_at(first), mixture.names, float(rate(first - 1)))

    def report(step, sums, timing):
        sums = jax.tree.map(lambda x: x[0], jax.device_get(sums))
        stop_if_marked(sums)
        row = metrics.summarize(step, sums, mixture.names, float(rate(step - 1)))
        logging.log_every_n_seconds(logging.INFO, "step %d loss %.4f", 30, step, row["loss"])
        if writer:
            writer.write(row, timing)

    def save(step, state):
        lock.check(workdir)
        state = parallel.unreplicate(state)
        stop_if_marked(state.sums)
        saver.save(step, state, assets, where())

    try:
        state, stopped = loop.run(
            parallel.replicate(state),
            step_fn,
            batches,
            start=start,
            steps=config.train.steps,
            log_every=config.train.log_every,
            checkpoint_every=config.train.checkpoint_every,
            take_sums=parallel.lift_take_sums(state_lib.empty_sums(len(mixture.names))),
            report=report,
            save=save,
        )
    finally:
        saver.close()
        if writer:
            writer.close()
    step = int(parallel.unreplicate(state.step))
    if stopped:
        logging.warning("%s: saved at step %d; the same command carries on", stopped, step)
    return Result(step, stopped)


class Parts(NamedTuple):
    """What a config is made into.

    Attributes:
      mixture: its data.
      law, schedule: its mixing law and noise schedule.
      create: ``key -> TrainState`` at step 0; the same on every host.
      shapes: of that state.
      train_step: pure, of one device (``step.make_train_step``).
    """

    mixture: mixtures.Mixture
    law: mixing.Law
    schedule: schedules.Schedule
    create: Callable[[jax.Array], state_lib.TrainState]
    shapes: state_lib.TrainState
    train_step: Callable


def assemble(config: ml_collections.ConfigDict, axis_name: str | None) -> Parts:
    """Checks the config, opens its data and builds its parts; raises ValueError, see ``train``."""
    config_lib.check(config)
    schedule, law = build(schedules, config.schedule), build(mixing, config.law)
    if told := mixtures.missing_delta(config.data):
        raise ValueError(told)
    mixture = mixtures.open_mixture(config.data, law)
    shapes = mixture.observation_shapes, mixture.action_dim, len(mixture.names)
    learner = make_learner(config, *shapes, axis_name)
    return Parts(mixture, law, schedule, *learner)


class Learner(NamedTuple):
    """What is trained and how, without data: see ``Parts``."""

    create: Callable[[jax.Array], state_lib.TrainState]
    shapes: state_lib.TrainState
    train_step: Callable


def make_learner(
    config: ml_collections.ConfigDict,
    observation: Mapping[str, jax.ShapeDtypeStruct],
    action_dim: int,
    count: int,
    axis_name: str | None,
) -> Learner:
    """Builds model, optimizer and step; computes nothing.

    Args:
      config: of the run.
      observation: shapes of one row by name, see ``mixtures.observation_shapes``.
      action_dim: D.
      count: number of sources.
      axis_name: see ``step.make_train_step``.
    """
    objective = step_lib.Objective(**config.objective, schedule=build(schedules, config.schedule))
    augmentation = augment.Augmentation(**config.augmentation)
    model = build_denoiser(config.model, observation)
    optimizer = state_lib.make_optimizer(config.train)
    train_step = step_lib.make_train_step(
        objective,
        lambda params, *inputs: model.apply({"params": params}, *inputs),
        optimizer,
        ema_limit=config.train.ema,
        accumulation=config.train.accumulation,
        augmentation=augmentation,
        axis_name=axis_name,
    )

    def create(key):
        rows = {n: jnp.zeros((1, *s.shape), s.dtype) for n, s in observation.items()}
        chunk = jnp.zeros((1, config.data.horizon, action_dim))
        variables = model.init(key, chunk, jnp.zeros(1), augmentation.evaluation(rows))
        return state_lib.create(variables["params"], optimizer, count)

    return Learner(create, jax.eval_shape(create, jax.random.key(0)), train_step)


def initial(
    config: ml_collections.ConfigDict, parts: Parts, key: jax.Array
) -> state_lib.TrainState:
    """The train state at step 0, with the parameters of ``train.init_from`` where it is given."""
    state = jax.jit(parts.create)(key)
    if not config.train.init_from:
        return state
    params = checkpoint.fine_tune(state.params, config.train.init_from)
    # A copy: the step gives away the buffers of both.
    return state.replace(params=params, ema_params=jax.tree.map(jnp.copy, params))


def check_resumes(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Raises ValueError for a config that a workdir's run cannot go on with, before data are
    read."""
    config_lib.check(config)
    try:
        _, step = checkpoint.find(workdir)
        saved = checkpoint.load_assets(workdir)["config"]
    except (ValueError, OSError):  # none yet; one that is damaged is told when it is restored
        return
    runs.check_config(saved, config, workdir, step)


def open_checkpoints(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> checkpoint.Checkpointer:
    """The checkpoints of a run, kept as its config says."""
    keep = dict(keep=config.train.keep, keep_every=config.train.keep_every)
    return checkpoint.Checkpointer(workdir / "checkpoints", **keep)


def describe(config: ml_collections.ConfigDict, parts: Parts) -> str:
    """One line about the run, for the log."""
    size = sum(p.size for p in jax.tree.leaves(parts.shapes.params))
    mixture = parts.mixture
    told = ", ".join(
        f"{n} ({'clean' if c else 'corrupt'}, {int(k)} chunks)"
        for n, c, k in zip(mixture.names, mixture.sources.clean, mixture.chunks, strict=True)
    )
    return (
        f"{config.name}: {config.model.name} of {size / 1e6:.2f}M parameters, "
        f"law {config.law.name}, {config.objective.loss} loss of {config.objective.prediction}, "
        f"batch {config.train.batch_size} on {jax.device_count()} devices; sources: {told}"
    )


def _merged(position: Any, folder: pathlib.Path) -> dict[str, Any]:
    """The position of the whole stream from those of all hosts, saved in a checkpoint."""
    try:
        found = pipeline.merge(position)
        shards, _ = int(found["of"]["shards"]), int(found["step"])
        if sorted(map(int, found["taken"])) == list(range(shards)):
            return found
    except (TypeError, KeyError, IndexError, ValueError, AttributeError):
        pass
    raise ValueError(
        f"checkpoint {folder} has no position of the data stream in data (it has "
        f"{json.dumps(position)[:60]}): move it away to resume from the one before"
    )


def _all_hosts(position: Any) -> list[Any]:
    """Every host's stream position, in order of hosts; all hosts must call it."""
    if jax.process_count() == 1:
        return [position]
    text = np.frombuffer(json.dumps(position).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(text.size))
    padded = np.zeros(int(np.max(sizes)), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:n])) for row, n in zip(rows, sizes, strict=True)]
