"""K policies trained together as one program: seeds, weights and bounds are arrays.

An accelerator that one small policy leaves idle trains many in the same time: the step is vmapped
over the policies and pmapped over devices, and all share the data in device memory. What each
leaves is what ``trainer.train`` leaves, and within rounding the same numbers.
"""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections

from ambient_jax import mixing
from ambient_jax.train import runs, trainer
from ambient_jax.train.config import build

# What may differ from policy to policy, beside the law: its simplest form must be one for all.
_FREE_OF_SOURCES = ("weight", "sigma_min", "sigma_max")


def train(
    configs: Mapping[str, ml_collections.ConfigDict], workdir: str | os.PathLike
) -> trainer.Result:
    """Trains one policy for each config, in ``<workdir>/<name>``; resumes and raises as
    ``trainer.train``.

    The configs may differ in name, policy, task, seed, weights and bounds of the sources, and
    between laws that are one law over other weights (``mixing.resolve``); ``check`` raises for
    others.
    """
    check(configs)
    return trainer.train_policies(configs, workdir, stacked=True)


def program(config: ml_collections.ConfigDict) -> dict:
    """What two configs must share to be trained by one program, by dotted name."""
    law = build(mixing, config.law)
    shared = runs.flat(config.to_dict())
    for name in list(shared):
        section, *rest = name.split(".")
        varies = runs.is_free(name) or section in ("seed", "law")
        if varies or name.startswith("data.sources.") and rest[-1] in _FREE_OF_SOURCES:
            del shared[name]
    one = mixing.Sources(*(jnp.ones(1) for _ in mixing.Sources._fields))
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
    for name, section in {"config.data": config.data, **sections}.items():
        if section.get("bounds"):
            raise ValueError(
                f"{name} has a bounds file, expected none: policies trained together have one pair "
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
