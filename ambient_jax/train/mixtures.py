"""Data sections of the mixtures of Open X-Embodiment."""

from collections.abc import Collection, Mapping

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config

# Fields of ``config.data.open_x`` that all mixtures have in common.
FORM = {"hz": 5.0, "cameras": ("primary", "wrist"), "instruction_bytes": 128}


def fill(
    data: ml_collections.ConfigDict, name: str, clean: Collection[str] = (), sigma_min: float = 0.2
) -> None:
    """Gives a data section the form and the sources of a mixture, see ``open_x.registry.mixture``.

    ``clean`` are the data sets to learn as they are; the others get ``sigma_min``. If it is empty,
    all are clean. Raises ValueError for an unknown mixture or data set.
    """
    from ambient_jax.open_x import registry  # readers of data, which few configs need

    data.open_x.update(FORM)
    if name == "wide":
        data.open_x.action_width = 8
    add(data, registry.mixture(name), clean, sigma_min)


def add(
    data: ml_collections.ConfigDict,
    weights: Mapping[str, float],
    clean: Collection[str] = (),
    sigma_min: float = 0.2,
) -> None:
    """Adds data sets of the registry to a data section, with their weights; see ``fill``."""
    from ambient_jax.open_x import registry

    for name in clean:
        _checks.one_of("clean", name, weights)
    for name, weight in weights.items():
        corrupt = len(clean) > 0 and name not in clean
        data.sources[name] = train_config.source(
            registry.get(name).tfds or name,
            "corrupt" if corrupt else "clean",
            weight=weight,
            open_x=name,
            sigma_min=sigma_min if corrupt else 0.0,
        )
