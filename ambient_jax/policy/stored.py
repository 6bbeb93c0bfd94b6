"""Whether what a checkpoint holds makes a policy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import ml_collections
from absl import logging

from ambient_jax import _checks, targets
from ambient_jax.data.normalizer import Normalizer
from ambient_jax.train import config as config_lib

_SECTION = ml_collections.ConfigDict
_NEEDED = {
    **{"data.horizon": int, "data.history": int, "data.sources": _SECTION},
    **{"objective.prediction": str, "schedule.name": str, "model.name": str},
    **{"policy.solver": str, "policy.steps": int},
}


@contextlib.contextmanager
def named(file: str | os.PathLike) -> Iterator[None]:
    """Makes an error about a checkpoint's content a ValueError of one line that names its file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(
            f"{file} makes no policy: {told[:300]}; take another step's checkpoint, or the version "
            "that wrote it"
        ) from error


def check(config: ml_collections.ConfigDict, file: str | os.PathLike) -> None:
    """Checks what a policy takes from a checkpoint's config; warns of fields that nobody knows.

    Raises:
      ValueError: a field that is missing or cannot be.
    """
    for name, kind in _NEEDED.items():
        found = config
        for part in name.split("."):
            found = found.get(part) if isinstance(found, _SECTION) else None
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ValueError(f"its config has {name} = {found!r}, expected {kind.__name__}")
        if kind is int and found < 1:
            raise ValueError(f"its config has {name} = {found}, expected at least 1")
    _checks.one_of("objective.prediction", config.objective.prediction, targets.PREDICTIONS)
    if foreign := config_lib.foreign(config):
        logging.warning(
            "%s has fields that this version does not know, which the policy goes without: %s",
            *(file, ", ".join(foreign)),
        )


def normalizer(text: str, config: ml_collections.ConfigDict) -> Normalizer:
    """The normaliser of a checkpoint's statistics.

    Raises:
      ValueError: it is none, or not one of the config's action and observations.
    """
    found = Normalizer.from_json(text)
    names = [f"observation/{name}" for name in config.data.get("observation", ())]
    common = any(source.get("open_x") for source in config.data.sources.values())
    for name in ["action"] if common else ["action", *names]:
        if name not in found.shift:
            raise ValueError(f"its statistics have no {name!r}")
    return found
