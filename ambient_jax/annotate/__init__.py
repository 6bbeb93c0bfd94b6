"""Annotation computes the noise levels at which each step may train.

``annotate.annotate(data, Options(...))`` returns ``Annotations``. Names load on first use.
"""

import importlib
from typing import Any

from ambient_jax import _names

__all__ = ["Annotations", "Options", "annotate"]
_renamed = _names.renamed(__name__, {"units": "ambient_jax.annotate.buckets"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        return _renamed(name)
    return getattr(importlib.import_module("ambient_jax.annotate.annotation"), name)
