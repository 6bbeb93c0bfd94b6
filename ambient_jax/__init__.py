"""Ambient Diffusion for robot actions: train on a little good data and a lot of bad data.

The kernels (``losses``, ``mixing``, ...) are imported here; ``Policy`` and the packages ``train``,
``annotate`` and ``evaluate`` on first use, so that ``import ambient_jax`` stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ambient_jax import admission, corruption, losses, mixing, schedules, targets

if TYPE_CHECKING:
    from ambient_jax import annotate, evaluate, train
    from ambient_jax.policy.policy import Policy

__version__ = "0.2.0"
__all__ = ["admission", "corruption", "losses", "mixing", "schedules", "targets"]
__all__ += ["Policy", "annotate", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name == "Policy":
        return importlib.import_module("ambient_jax.policy.policy").Policy
    if name in __all__:
        return importlib.import_module(f"ambient_jax.{name}")
    raise AttributeError(f"module 'ambient_jax' has no attribute {name!r}")
