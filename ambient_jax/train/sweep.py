"""Trains K policies together as one program, with seeds, weights and bounds as arrays.

An accelerator that one small policy leaves idle trains many in the same time: the step is vmapped
over the policies and pmapped over devices, and all share the data in device memory. A policy has
the outputs of ``trainer.train``, with the same numbers up to rounding.
"""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections

from ambient_jax import mixing
from ambient_jax.train import runs, trainer
from ambient_jax.train.config import build

# Fields that may differ between policies, besides the law, whose simplest form must be the same.
_FREE_OF_SOURCES = ("weight", "sigma_min", "sigma_max")


def train(
    configs: Mapping[str, ml_collections.ConfigDict], workdir: str | os.PathLike
) -> trainer.Result:
    """Trains one policy per config, in ``<workdir>/<name>``; see ``trainer.train``.

    The configs may differ in name, policy, task, seed, weights and bounds of the sources, and in
    laws that resolve to one law with other weights (``mixing.resolve``); ``check`` refuses others.
    """
    check(configs)
    return trainer.train_policies(configs, workdir, stacked=True)


def program(config: ml_collections.ConfigDict) -> dict:
    """Returns the values that configs of one program must share, by dotted name."""
    law = build(mixing, config.law)
    shared = runs.flat(config.to_dict())
    for name in list(shared):
        section, *fields = name.split(".")
        varies = runs.is_free(name) or section in ("seed", "law")
        if varies or name.startswith("data.sources.") and fields[-1] in _FREE_OF_SOURCES:
            del shared[name]
    example = mixing.Sources(*(jnp.ones(1) for _ in mixing.Sources._fields))
    return shared | {"law": repr(mixing.resolve(law, example)[0])}


def check(configs: Mapping[str, ml_collections.ConfigDict]) -> None:
    """Raises ValueError unless the configs share one ``program`` that can be vmapped."""
    if not configs:
        raise ValueError("got no configs, expected at least one policy to train")
    (first, config), *following = configs.items()
    if config.data.placement != "device":
        raise ValueError(
            f"config.data.placement is {config.data.placement!r}, expected 'device': policies "
            "trained together share data in device memory; train streamed ones one by one"
        )
    if config.train.fsdp:
        raise ValueError(
            "config.train.fsdp is True, expected False: each of the policies trained together lies "
            "whole on one device"
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"{jax.process_count()} hosts, expected one: policies trained together do not talk to "
            "each other, so start one sweep on each host"
        )
    sections = {f"config.data.sources.{n}": s for n, s in config.data.sources.items()}
    for name, section in {"config.data": config.data, **sections}.items():
        if section.get("bounds"):
            raise ValueError(
                f"{name} has a bounds file, expected none: policies trained together have one pair "
                "of bounds a source; train this one by itself"
            )
    shared = program(config)
    for name, second in following:
        values = program(second)
        for field in sorted(shared.keys() | values.keys()):
            if shared.get(field) != values.get(field):
                raise ValueError(
                    f"policies {first!r} and {name!r} differ in {field} ({shared.get(field)!r} and "
                    f"{values.get(field)!r}), which is no array of one program: train them in two"
                )
