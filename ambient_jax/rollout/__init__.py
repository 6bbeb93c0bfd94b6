"""Policies in gymnasium environments: ``rollout`` runs episodes, ``evaluate`` reports on one
checkpoint, ``best`` finds the best of a run's checkpoints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ambient_jax.rollout.checkpoints import best, evaluate
    from ambient_jax.rollout.episodes import Episodes, rollout

_MODULES = {"best": "checkpoints", "evaluate": "checkpoints", "Episodes": "episodes"}
_MODULES["rollout"] = "episodes"
__all__ = ["Episodes", "best", "evaluate", "rollout"]


def __getattr__(name: str) -> Any:
    import importlib  # on first use, as the modules import gymnasium

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
