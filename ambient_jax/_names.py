"""Names of a config that stand for code: a built-in one, or ``package.module:attribute``."""

import importlib
import inspect
from collections.abc import Callable, Mapping
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


def make(what: str, name: Any, builtins: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Calls what ``name`` stands for with the options of its config section.

    Raises:
      ValueError: an unknown name or option, or options that the thing refuses.
    """
    factory = resolve(what, name, builtins)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is {name!r}, which cannot be called: {error}") from error
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [p for p in parameters if p not in ("parent", "name")]  # these two are Flax's
        for option in options:
            _checks.one_of(f"option of {what} {name!r}", option, known or ["(none)"])
    try:
        return factory(**options)
    except TypeError as error:
        raise ValueError(f"{what} {name!r} with options {dict(options)}: {error}") from error


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` whose error gives the new name of what was renamed or moved."""

    def getattr_of_module(name: str) -> Any:
        if name in names:
            # Not AttributeError, whose text "from module import name" would replace by its own.
            raise ImportError(f"{module}.{name} is now {names[name]}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattr_of_module
