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
from ambient_jax.data.paths import AnyPath, expanded
from ambient_jax.models import pretrained
from ambient_jax.train import checkpoint, loading, lora
from ambient_jax.train import state as state_lib
from ambient_jax.transforms.chain import Chain

# Limits of normalised data: bounds and quantiles end at 1, and few Gaussian values exceed 5.
_EDGE = {"bounds": 1.05, "quantiles": 2.0, "gaussian": 5.0}


def check_base(config: ml_collections.ConfigDict, workdirs: Sequence[AnyPath]) -> None:
    """Raises, before data are read, ``loading.load``'s errors for a wrong ``train.init_from``,
    ValueError for adapters without one, and FileNotFoundError for pre-trained weights that are not
    there."""
    if all(checkpoint.steps_in(w / "checkpoints") for w in workdirs):
        return
    section, base = pretrained.section_of(config.model), {}
    if config.train.init_from:
        base = checkpoint.by_name(loading.load(config.train.init_from)["params"])
    elif config.train.lora.rank:
        raise ValueError(
            f"config.train.lora.rank is {config.train.lora.rank} and config.train.init_from is "
            "empty: adapters need a base, such as config.train.init_from = 'runs/base'"
        )
    lacks = section and not any(_is_pretrained(name) for name in base)
    if lacks and not os.path.isfile(expanded(section["weights"])):
        raise FileNotFoundError(
            f"config.model.encoder.vision.pretrained.weights is {section['weights']}, where there "
            "is no file: expected a .safetensors file"
        )


def initial(
    config: ml_collections.ConfigDict,
    create: Callable[[jax.Array], state_lib.TrainState],
    key: jax.Array,
) -> state_lib.TrainState:
    """Returns the train state at step 0 that ``create(key)`` makes, with the parameters of
    ``train.init_from``, if any, and the weights of pre-trained networks that it lacks. With
    adapters those are the base. Raises ``adopt``'s, ``lora.Lora.check_new``'s and
    ``pretrained.load``'s errors."""
    state, section = create(key), pretrained.section_of(config.model)
    adapters = lora.of(config.train)
    if not section and not config.train.init_from:
        return state
    params = state.ema_params  # at step 0 those of the network
    if section and _lacks_weights(params, config.train.init_from):
        params = pretrained.filled(params, section["weights"])
        logging.info("pre-trained networks have the weights of %s", section["weights"])
    if config.train.init_from:
        params = adopt(params, config.train.init_from, adapters)
    # A copy, as the step donates the buffers of both.
    average = jax.tree.map(jnp.copy, params)
    if adapters:
        params = state.params | {lora.BASE: params}
    return state.replace(params=params, ema_params=average)


def _is_pretrained(name):
    return pretrained.NAME in name.split("/")


def _lacks_weights(params, base):
    """Whether a base, if there is one, lacks an array of the pre-trained networks."""
    saved = checkpoint.by_name(loading.load(base)["params"]) if base else {}
    return any(
        _is_pretrained(name) and (name not in saved or saved[name].shape != leaf.shape)
        for name, leaf in checkpoint.by_name(params).items()
    )


def adopt(params: Any, path: str | os.PathLike, adapters: lora.Lora | None = None) -> Any:
    """Replaces parameters by those of a policy (``loading.load``) where name and shape agree. Logs
    which remain. Raises ValueError if nothing agrees, or if ``adapters`` would not train what
    remains, except pre-trained networks."""
    saved = checkpoint.by_name(loading.load(path)["params"])
    leaves = checkpoint.by_name(params)
    adopted = {
        name: jnp.asarray(saved[name], leaf.dtype)
        for name, leaf in leaves.items()
        if name in saved and saved[name].shape == leaf.shape
    }
    missing = [name for name in leaves if name not in adopted]
    new = [f"{name} {tuple(leaves[name].shape)}" for name in missing]
    if not adopted:
        raise ValueError(
            f"no parameter of {path} has name and shape of one of this model's, such as "
            f"{new[0]}: fine-tune with the model section of its config.json"
        )
    if adapters:
        adapters.check_new([name for name in missing if not _is_pretrained(name)], params)
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
    assets = loading.load(path)
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
