"""Episodes on disk to batches, noise first; knows nothing of training."""

_MOVED = {"augment": "ambient_jax.transforms", "instructions": "ambient_jax.transforms"}


def __getattr__(name: str):
    if name in _MOVED:
        raise ImportError(f"ambient_jax.data.{name} has moved: import {_MOVED[name]}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
