"""The maps to unit size of a run that goes on: with its own checkpoint, or with another run's."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import normalizer
from ambient_jax.train import checkpoint
from ambient_jax.train import config as config_lib
from ambient_jax.transforms.chain import Chain

MAPS = ("base", "data")
# Of normalised data: bounds and quantiles end at 1, and of a Gaussian hardly any is beyond 5.
_EDGE = {"bounds": 1.05, "quantiles": 2.0, "gaussian": 5.0}


def check(config: ml_collections.ConfigDict, workdirs: Sequence[pathlib.Path]) -> None:
    """Before data are read: the options of fine-tuning, and the base where a run starts from it.

    Raises:
      FileNotFoundError: no checkpoint at ``train.init_from``, or ValueError: see ``load_assets``.
    """
    config_lib.check(config)
    _checks.one_of("config.train.init_maps", config.train.init_maps, MAPS)
    fresh = [w for w in workdirs if not checkpoint.steps_in(w / "checkpoints")]
    if config.train.init_from and fresh:
        checkpoint.load_assets(config.train.init_from)


def resumed(mixture: mixtures.Mixture, assets: dict[str, Any]) -> mixtures.Mixture:
    """With the maps of the run's own checkpoint: its parameters know no others."""
    return mixture.with_normalizer(Chain.from_json(assets["statistics"]).normalizer)


def with_maps(config: ml_collections.ConfigDict, mixture: mixtures.Mixture) -> mixtures.Mixture:
    """With the maps of ``train.init_from``, where ``train.init_maps`` says so; logs which."""
    if not config.train.init_from:
        return mixture
    path = config.train.init_from
    if config.train.init_maps == "data":
        logging.info("maps to unit size are those of the new data, not of %s", path)
        return mixture
    assets = checkpoint.load_assets(path)
    base = Chain.from_json(assets["statistics"]).normalizer
    roles = assets["config"]["data"]["sources"]
    clean = [name for name in base.sources if roles[name]["role"] == "clean"]
    only = clean[0] if len(clean) == 1 else None
    found, kept = normalizer.adopt(base, mixture.normalizer, only)
    beyond = _beyond(mixture, found)
    log = logging.warning if beyond or kept else logging.info
    log(
        "maps to unit size are those of %s (config.train.init_maps 'data' takes the new ones)%s%s",
        path,
        f"; new are those of {', '.join(kept)}, which it lacks" if kept else "",
        f"; the data lie beyond its range in {', '.join(beyond[:8])}" if beyond else "",
    )
    return mixture.with_normalizer(found)


def _beyond(mixture, found):
    """Where the data lie outside of the maps: field, dimension and normalised range."""
    told = []
    for k, name in enumerate(mixture.names):
        for field, moments in mixture.statistics[name].fields.items():
            masks = mixture.masks[name].get(field, True)
            ends = np.stack([moments.min, moments.max])
            unit = found.normalize(field, ends, k if found.sources else None)
            outside = masks & (np.abs(unit).max(axis=0) > _EDGE.get(found.kind, np.inf))
            for i in np.flatnonzero(outside):
                told.append(f"{name}: {field}[{i}] {unit[0, i]:.3g} to {unit[1, i]:.3g}")
    return told
