"""K policies trained together as one program: seeds, weights and bounds are arrays.

An accelerator that one small policy leaves idle trains many in the same time: the step is vmapped
over the policies and pmapped over devices, and all share the data in device memory. What each
leaves is what ``trainer.train`` leaves, and within rounding the same numbers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from ambient_jax import mixing
from ambient_jax.data import device
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.train import (
    checkpoint,
    fine_tuning,
    guard,
    lock,
    loop,
    metrics,
    parallel,
    runs,
    trainer,
)
from ambient_jax.train import state as state_lib

# What may differ from policy to policy, beside the law: its simplest form must be one for all.
_FREE_OF_SOURCES = ("weight", "sigma_min", "sigma_max")


def train(
    configs: Mapping[str, ml_collections.ConfigDict], workdir: str | os.PathLike
) -> trainer.Result:
    """Trains one policy for each config, in ``<workdir>/<name>``; resumes as ``trainer.train``.

    Args:
      configs: by name. They may differ in seed, weights and bounds of the sources, and between
        laws that are one law over other weights (``mixing.resolve``); also in name, policy, task.
      workdir: of the sweep.

    Raises:
      ValueError: for configs that are not of one program (``check``), more than one host, a
        streamed placement, or as ``trainer.train``.
      FloatingPointError: as ``trainer.train``, of the first policy that stops.
    """
    check(configs)
    workdir = pathlib.Path(expanded(workdir))
    with contextlib.ExitStack() as held:
        for name in configs:
            held.enter_context(lock.hold(workdir / name))
        return _train(configs, workdir)


def _train(configs, workdir):
    names = list(configs)
    config = configs[names[0]]
    for name in names:
        trainer.check_resumes(configs[name], workdir / name)
    fine_tuning.check(config, [workdir / name for name in names])
    parts = trainer.assemble(config, axis_name=None)
    mixture, total = parts.mixture, config.train.steps
    laws = [trainer.build(mixing, c.law) for c in configs.values()]
    mixtures = [
        mixing.resolve(law, mixtures.weighted_sources(c.data, law, mixture.statistics))[1]
        for law, c in zip(laws, configs.values(), strict=True)
    ]
    law = mixing.resolve(laws[0], mixtures[0])[0]
    keys = [jax.random.key(c.seed) for c in configs.values()]
    logging.info("%d policies, the first is %s", len(names), trainer.describe(config, parts))

    savers = [trainer.open_checkpoints(config, workdir / name) for name in names]
    # A run may have died after only some policies of a step were saved: take the last common one.
    start = None
    while len(common := {saver.sound_step(start) or 0 for saver in savers}) > 1:
        start = min(common)
    [start] = common
    for name, saver in zip(names, savers, strict=True):
        # All of them going back by more than one save is no death between two policies' saves.
        if not start and (saver.latest_step() or 0) > config.train.checkpoint_every:
            lost = [n for n, s in zip(names, savers, strict=True) if s.latest_step() is None]
            raise ValueError(
                f"{workdir} has policy {name!r} at step {saver.latest_step()} and no checkpoint of "
                f"{', '.join(lost) or 'a step that all have'}, with which it would begin anew: "
                "bring it back, or train what is missing in another workdir"
            )
    for name, saver in zip(names, savers, strict=True):
        if (latest := saver.latest_step()) is not None:
            of = mixture, workdir / name, latest
            runs.check_same(saver.assets(latest), configs[name], *of)
    if start >= total:
        for saver in savers:
            saver.close()
        logging.info("%s is complete at step %d: nothing to train", workdir, start)
        return trainer.Result(start, "")
    if start:
        logging.info("resuming %s at step %d of %d", workdir, start, total)
        states = [s.restore(start, parts.shapes)[0] for s in savers]
        mixture = fine_tuning.resumed(mixture, savers[0].assets(start))
    else:
        states = [trainer.initial(config, parts, key) for key in keys]
        mixture = fine_tuning.with_maps(config, mixture)
    for saver in savers:
        saver.drop_after(start)

    devices = parallel.policy_devices(len(names))
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    data = parallel.replicate(device.load_device_data(mixture), devices)
    inputs = data, parallel.spread(stack(mixtures)), parallel.spread(jnp.stack(keys))
    assets, writers = [], []
    for name, c in configs.items():
        runs.write_config(c, workdir / name)
        statistics = mixture.chain.cropped(config.augmentation.crop).to_json()
        assets.append(checkpoint.make_assets(c, statistics, runs.marks(mixture)))
        writers.append(metrics.Writer(workdir / name, start, c))
    rate = state_lib.learning_rate(config.train)

    def stop_if_marked(sums):
        for k, first in enumerate(sums.nonfinite.tolist()):
            if first:
                of = keys[k], first, config.train.batch_size, mixtures[k]
                rows = guard.redrawn(sampler, data, *of)
                guard.stop(workdir / names[k], first, rows, mixture.names, float(rate(first - 1)))

    def report(step, sums, timing):
        sums = parallel.gather(sums)
        stop_if_marked(sums)
        losses = []
        for k, writer in enumerate(writers):
            own = jax.tree.map(lambda x: x[k], sums)  # noqa: B023 (used at once)
            row = metrics.summarize(step, own, mixture.names, float(rate(step - 1)))
            writer.write(row, {**timing, "policies": len(writers)})
            losses.append(row["loss"])
        logging.log_every_n_seconds(
            logging.INFO, "step %d, losses %s", 30, step, np.round(losses, 4).tolist()
        )

    def save(step, states):
        for name in names:
            lock.check(workdir / name)
        states = parallel.gather(states)
        stop_if_marked(states.sums)
        for k, saver in enumerate(savers):
            saver.save(step, jax.tree.map(lambda x: x[k], states), assets[k])  # noqa: B023

    sampler = mixture.sampler(law, parts.schedule)
    try:
        states, stopped = loop.run(
            parallel.spread(stack(states)),
            parallel.lift_policies(parts.train_step, sampler, config.train.batch_size, devices),
            itertools.repeat(inputs),
            start=start,
            steps=total,
            log_every=config.train.log_every,
            checkpoint_every=config.train.checkpoint_every,
            take_sums=parallel.lift_take_policy_sums(state_lib.empty_sums(len(mixture.names))),
            report=report,
            save=save,
        )
    finally:
        for closable in (*savers, *writers):
            closable.close()
    step = int(parallel.gather(states.step)[0])
    if stopped:
        logging.warning("%s: saved at step %d; the same command carries on", stopped, step)
    return trainer.Result(step, stopped)


def program(config: ml_collections.ConfigDict) -> dict:
    """What two configs must share to be trained by one program, by dotted name."""
    law = trainer.build(mixing, config.law)
    shared = runs.flat(config.to_dict())
    for name in list(shared):
        section, *rest = name.split(".")
        varies = runs.is_free(name) or section in ("seed", "law")
        if varies or name.startswith("data.sources.") and rest[-1] in _FREE_OF_SOURCES:
            del shared[name]
    one = mixing.Sources(*(np.ones(1) for _ in mixing.Sources._fields))
    return shared | {"law": repr(mixing.resolve(law, one)[0])}


def check(configs: Mapping[str, ml_collections.ConfigDict]) -> None:
    """Raises ValueError unless the configs are of one program (``program``) that can be vmapped."""
    if not configs:
        raise ValueError("got no configs, expected at least one policy to train")
    (first, config), *others = configs.items()
    if config.data.placement != "device":
        raise ValueError(
            f"config.data.placement is {config.data.placement!r}, expected 'device': policies "
            "trained together share data in device memory; train streamed ones one by one"
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"{jax.process_count()} hosts, expected one: policies trained together do not talk to "
            "each other, so start one sweep on each host"
        )
    sections = {f"config.data.sources.{n}": s for n, s in config.data.sources.items()}
    for of, section in {"config.data": config.data, **sections}.items():
        if section.get("bounds"):
            raise ValueError(
                f"{of} has a bounds file, expected none: policies trained together have one pair "
                "of bounds a source; train this one by itself"
            )
    shared = program(config)
    for name, other in others:
        theirs = program(other)
        for field in sorted(shared.keys() | theirs.keys()):
            if shared.get(field) != theirs.get(field):
                raise ValueError(
                    f"policies {first!r} and {name!r} differ in {field} ({shared.get(field)!r} and "
                    f"{theirs.get(field)!r}), which is no array of one program: train them in two"
                )
