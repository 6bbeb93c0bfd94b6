"""Names of a config that stand for code: a built-in one, or ``package.module:attribute``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ambient_jax import _checks


def resolve(what: str, name: Any, builtins: Mapping[str, Any]) -> Any:
    """Returns what ``name`` stands for.

    Args:
      what: the config field, for messages.
      name: a key of ``builtins``, or ``package.module:attribute`` of code outside the package.
      builtins: what the package has, by name; as ``package.module:attribute`` where it should be
        imported only if it is used.

    Raises:
      ValueError: an unknown name, or a module or attribute that cannot be imported.
    """
    if not isinstance(name, str) or ":" not in name:
        _checks.one_of(what, name, builtins)
        if not isinstance(builtins[name], str):
            return builtins[name]
        name = builtins[name]
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{what} is {name!r}, expected package.module:attribute of something importable "
            f"({error})"
        ) from error
