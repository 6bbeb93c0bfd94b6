"""What a policy needs of a checkpoint: its config's fields, the clean source and the chain."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
from absl import logging

from ambient_jax import _checks, targets
from ambient_jax.transforms.chain import Chain

_SECTION = ml_collections.ConfigDict
_NEEDED = {
    **{"data.horizon": int, "data.history": int, "data.sources": _SECTION},
    **{"objective.prediction": str, "schedule.name": str, "model.name": str},
    **{"policy.solver": str, "policy.steps": int},
}


def clean_source(config: ml_collections.ConfigDict, path: str | os.PathLike) -> str:
    """Returns the name of a config's only clean source; ValueError if it has several or none."""
    clean = [name for name, s in config.data.sources.items() if s.role == "clean"]
    if len(clean) != 1:
        raise ValueError(
            f"checkpoint {path} normalises each source by itself and has {len(clean)} clean ones: "
            f"give source=, one of {', '.join(config.data.sources)}"
        )
    return clean[0]


@contextlib.contextmanager
def named(file: str | os.PathLike) -> Iterator[None]:
    """Turns an error in a checkpoint's content into a ValueError of one line with the file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(
            f"{file} makes no policy: {text[:300]}; take another step's checkpoint, or the version "
            "that wrote it"
        ) from error


def check_config(config: ml_collections.ConfigDict, file: str | os.PathLike) -> None:
    """Checks a policy's fields of a checkpoint's config (ValueError); warns of unknown fields."""
    from ambient_jax.train import config as config_lib

    for name, expected in _NEEDED.items():
        value: Any = config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, _SECTION) else None
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ValueError(f"its config has {name} = {value!r}, expected {expected.__name__}")
        if expected is int and value < 1:
            raise ValueError(f"its config has {name} = {value}, expected at least 1")
    _checks.one_of("objective.prediction", config.objective.prediction, targets.PREDICTIONS)
    if foreign := config_lib.foreign(config):
        logging.warning(
            "%s has fields that this version does not know, which the policy goes without: %s",
            *(file, ", ".join(foreign)),
        )


def chain(assets: Mapping[str, Any]) -> Chain:
    """Returns the chain of a checkpoint, which has the config's action and observations."""
    config, made = assets["config"], Chain.from_json(assets["statistics"])
    names = ["action"]
    if assets.get("masks"):  # older versions stored the steps of a chain only in the config
        from ambient_jax.data import mixture  # needs the data extra

        masks = {
            name: {"action": mask["action"], "observation/state": mask["state"]}
            for name, mask in assets["masks"].items()
        }
        made = mixture.chain_of(config.data, made.normalizer, masks)
        made = made.cropped(config.augmentation.get("crop"))
    elif not made.steps:
        names += [f"observation/{name}" for name in config.data.get("observation", ())]
    for name in names:
        if name not in made.normalizer.shift:
            raise ValueError(f"its statistics have no {name!r}")
    return made
