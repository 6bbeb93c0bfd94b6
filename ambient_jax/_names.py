"""Resolves names of code in a config: a built-in name, or ``package.module:attribute``."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ambient_jax import _checks


def resolve(field: str, name: Any, builtins: Mapping[str, Any]) -> Any:
    """Returns the object that ``name`` refers to.

    Args:
      field: the config field, for messages.
      name: a key of ``builtins``, or ``package.module:attribute`` of code outside the package.
      builtins: the package's objects by name; ``package.module:attribute`` delays the import.

    Raises:
      ValueError: the name is unknown, or its module or attribute cannot be imported.
    """
    if not isinstance(name, str) or ":" not in name:
        _checks.one_of(field, name, builtins)
        if not isinstance(builtins[name], str):
            return builtins[name]
        name = builtins[name]
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{field} is {name!r}, expected package.module:attribute of something importable "
            f"({error})"
        ) from error


def make(field: str, name: Any, builtins: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Calls the object that ``name`` refers to with the options of its config section.

    Raises:
      ValueError: the name or an option is unknown, or the call refuses the options.
    """
    factory = resolve(field, name, builtins)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise ValueError(f"{field} is {name!r}, which cannot be called: {error}") from error
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        allowed = [p for p in parameters if p not in ("parent", "name")]  # these two are Flax's
        for option in options:
            _checks.one_of(f"option of {field} {name!r}", option, allowed or ["(none)"])
    try:
        return factory(**options)
    except TypeError as error:
        raise ValueError(f"{field} {name!r} with options {dict(options)}: {error}") from error


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's ``__getattr__`` whose error states the new name of a renamed attribute."""

    def getattr_of_module(name: str) -> Any:
        if name in names:
            # "from module import name" would replace the text of an AttributeError.
            raise ImportError(f"{module}.{name} is now {names[name]}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattr_of_module
