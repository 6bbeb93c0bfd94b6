"""Annotation: the noise levels at which each datum may train.

``annotate.annotate(data, Options(...))`` gives ``Annotations``; both load when they are first used.
"""

import importlib
from typing import Any

__all__ = ["Annotations", "Options", "annotate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("ambient_jax.annotate.annotation"), name)
