"""Policies on recorded data: ``evaluate(path)`` measures one, ``best(path)`` finds the best."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ambient_jax.evaluate.checkpoints import best, evaluate

__all__ = ["best", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ambient_jax.evaluate import checkpoints  # on first use, as it imports the data packages

    return getattr(checkpoints, name)
