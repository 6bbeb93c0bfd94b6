"""Training config of a pushing policy for the study, with the bounds chosen without rollouts.

    python -m ambient_jax.train --config=experiments/delays/policy.py:known --config.seed=0

plain  as ``experiments.which_data`` trains it
known  the same, shown up to 8 known first actions, for real-time chunking

The data are those of ``python -m experiments.planar_pushing``.
"""

import ml_collections

from ambient_jax import _checks
from experiments.planar_pushing import config as pushing


def get_config(variant: str = "known") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    _checks.one_of("config variant", variant, ("plain", "known"))
    config = pushing.get_config("table")
    config.name = f"pushing_{variant}"
    config.task = ml_collections.ConfigDict({"name": ""})
    config.data.sources.source.update({"sigma_min": 0.2, "sigma_max": 0.0})
    config.law.alpha = 0.5
    config.model.prefix = 8 if variant == "known" else 0
    return config
