"""Trains the policies of configs in a workdir: builds the parts, resumes, runs the loop."""

import contextlib
import functools
import os
from collections.abc import Mapping
from typing import NamedTuple

import jax
import ml_collections
from absl import logging

from ambient_jax.data import paths
from ambient_jax.train import config as config_lib
from ambient_jax.train import (
    feeds,
    fine_tuning,
    lock,
    loop,
    outputs,
    parallel,
    pictures,
    publication,
)
from ambient_jax.train import layout as layouts
from ambient_jax.train import state as state_lib
from ambient_jax.train.config import build
from ambient_jax.train.parts import assemble, make_learner

__all__ = ["Result", "assemble", "build", "make_learner", "train", "train_policies"]


class Result(NamedTuple):
    """The step at which a run ended, and the signal that ended it ("": it is complete)."""

    step: int
    signal: str


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> Result:
    """Trains a policy; the same arguments resume a run (see ``runs``).

    Writes ``config.json``, ``metrics.jsonl``, ``timing.jsonl``, ``tensorboard/``, ``checkpoints/``
    and, at the end, ``policy/`` (``publication``) to the workdir, which it locks meanwhile
    (``lock``); ``pictures/`` if asked for. SIGTERM saves and returns early. Raises ValueError for
    an impossible config, data or workdir, FloatingPointError by ``guard.stop``.
    """
    return train_policies({"": config}, workdir)


def train_policies(
    configs: Mapping[str, ml_collections.ConfigDict],
    workdir: str | os.PathLike,
    *,
    stacked: bool = False,
) -> Result:
    """Trains one policy, or several ``stacked`` ones as one vmapped program (``sweep.train``).
    ``configs`` are by the policy's folder below the workdir."""
    workdir = paths.folder(workdir)
    with contextlib.ExitStack() as opened:
        for name in configs:
            opened.enter_context(lock.hold(workdir / name))
        configs = {name: config_lib.check(config) for name, config in configs.items()}
        policies = [outputs.Outputs(config, workdir / name) for name, config in configs.items()]
        config, *_ = configs.values()
        fine_tuning.check_base(config, [policy.workdir for policy in policies])
        layout = layouts.Stacked() if stacked else layouts.of(config)
        if not stacked:
            parallel.rows_per_device(config.train.batch_size)  # before data are read
        parts = assemble(config, layout)
        count = f"{len(policies)} policies, the first is " if stacked else ""
        logging.info("%s%s", count, parts.describe(config))
        for policy in policies:
            opened.enter_context(contextlib.closing(policy)).open_checkpoints()
        start, steps = outputs.common_step(policies, workdir), config.train.steps
        for policy in policies:
            policy.check_same(parts.mixture)
        if start >= steps:
            logging.info("%s is complete at step %d: nothing to train", workdir, start)
            for policy in policies:
                publication.at_the_end(policy.workdir)
            return Result(start, "")
        if start:
            logging.info("resuming %s at step %d of %d", workdir, start, steps)
            restored = [policy.checkpoints.restore(start, parts.shapes) for policy in policies]
            states, position = [state for state, _ in restored], restored[0][1]
            folder = workdir / next(iter(configs)) / "checkpoints" / str(start)
            mixture = fine_tuning.resumed(parts.mixture, folder)
        else:
            keys = [jax.random.key(c.seed) for c in configs.values()]
            make = functools.partial(layout.create, parts.create)
            states, position = [fine_tuning.initial(config, make, k) for k in keys], None
            mixture = fine_tuning.with_maps(config, parts.mixture)
        for policy in policies:
            policy.open(mixture, start)
        drawn = pictures.begin(config, mixture, [policy.writer for policy in policies])
        if drawn:
            opened.enter_context(contextlib.closing(drawn))

        feed: feeds.DeviceFeed | feeds.StreamFeed
        if config.data.placement == "device":
            feed = feeds.DeviceFeed(list(configs.values()), parts, mixture, layout)
        else:
            feed = feeds.StreamFeed(config, parts, mixture, layout, start, position, workdir)
        about = feed.state, feed.rows_at, mixture.names, layout
        recorder = outputs.Recorder(policies, *about, drawn)
        state, stopped = loop.run(
            layout.place(states),
            feed.step_fn,
            feed.batches,
            start=start,
            steps=steps,
            log_every=config.train.log_every,
            checkpoint_every=config.train.checkpoint_every,
            take_sums=layout.take_sums(state_lib.empty_sums(len(mixture.names))),
            report=recorder.report,
            save=recorder.save,
        )
    [step, *_] = layout.fetch(state.step)
    for policy in policies if not stopped else ():
        publication.at_the_end(policy.workdir)
    if stopped:
        logging.warning("%s: saved at step %d; the same command carries on", stopped, step)
    return Result(int(step), stopped)
