"""Sets parameters and maps to unit size of a run that starts from a checkpoint."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from ambient_jax.data import mixture as mixtures
from ambient_jax.data import normalizer
from ambient_jax.data.paths import AnyPath
from ambient_jax.train import checkpoint
from ambient_jax.train import state as state_lib
from ambient_jax.transforms.chain import Chain

# Limits of normalised data: bounds and quantiles end at 1, and few Gaussian values exceed 5.
_EDGE = {"bounds": 1.05, "quantiles": 2.0, "gaussian": 5.0}


def check_base(config: ml_collections.ConfigDict, workdirs: Sequence[AnyPath]) -> None:
    """Raises an error of ``load_assets``, before data are read, for a wrong ``train.init_from``."""
    if config.train.init_from and any(not checkpoint.steps_in(w / "checkpoints") for w in workdirs):
        checkpoint.load_assets(config.train.init_from)


def initial(
    config: ml_collections.ConfigDict,
    create: Callable[[jax.Array], state_lib.TrainState],
    key: jax.Array,
) -> state_lib.TrainState:
    """Returns the train state at step 0, with the parameters of ``train.init_from``, if any."""
    state = jax.jit(create)(key)
    if not config.train.init_from:
        return state
    params = adopt(state.params, config.train.init_from)
    # A copy, as the step donates the buffers of both.
    return state.replace(params=params, ema_params=jax.tree.map(jnp.copy, params))


def adopt(params: Any, path: str | os.PathLike) -> Any:
    """Replaces parameters by those of a checkpoint (EMA) where name and shape agree. Logs which
    remain new. Raises ValueError if nothing agrees."""
    saved = checkpoint.by_name(checkpoint.load_policy_assets(path)["params"])
    leaves = checkpoint.by_name(params)
    adopted = {
        name: jnp.asarray(saved[name], leaf.dtype)
        for name, leaf in leaves.items()
        if name in saved and saved[name].shape == leaf.shape
    }
    new = [f"{name} {tuple(leaf.shape)}" for name, leaf in leaves.items() if name not in adopted]
    if not adopted:
        raise ValueError(
            f"no parameter of {path} has name and shape of one of this model's, such as "
            f"{new[0]}: fine-tune with the model section of its config.json"
        )
    logging.info(
        "%d of %d parameters from %s; new: %s",
        *(len(adopted), len(leaves), path, ", ".join(new) or "none"),
    )
    return jax.tree.unflatten(jax.tree.structure(params), list((leaves | adopted).values()))


def resumed(mixture: mixtures.Mixture, path: AnyPath) -> mixtures.Mixture:
    """Returns the mixture with the maps of the run's checkpoint, which its parameters need."""
    chain = Chain.from_json(checkpoint.load_assets(path)["statistics"])
    return mixture.with_normalizer(chain.normalizer)


def with_maps(config: ml_collections.ConfigDict, mixture: mixtures.Mixture) -> mixtures.Mixture:
    """Returns the mixture with the maps that ``train.init_maps`` chooses, and logs the choice."""
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
    adopted, unchanged = normalizer.adopt(base, mixture.normalizer, only)
    beyond = _beyond(mixture, adopted)
    log = logging.warning if beyond or unchanged else logging.info
    log(
        "maps to unit size are those of %s (config.train.init_maps 'data' takes the new ones)%s%s",
        path,
        f"; new are those of {', '.join(unchanged)}, which it lacks" if unchanged else "",
        f"; the data lie beyond its range in {', '.join(beyond[:8])}" if beyond else "",
    )
    return mixture.with_normalizer(adopted)


def _beyond(mixture, maps):
    """Lists the fields and dimensions of data outside of the maps, with normalised ranges."""
    ranges = []
    for k, name in enumerate(mixture.names):
        for field, moments in mixture.statistics[name].fields.items():
            masks = mixture.masks[name].get(field, True)
            ends = np.stack([moments.min, moments.max])
            unit = maps.normalize(field, ends, k if maps.sources else None)
            outside = masks & (np.abs(unit).max(axis=0) > _EDGE.get(maps.kind, np.inf))
            for i in np.flatnonzero(outside):
                ranges.append(f"{name}: {field}[{i}] {unit[0, i]:.3g} to {unit[1, i]:.3g}")
    return ranges
