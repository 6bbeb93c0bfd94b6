"""Packages that only some formats need, imported when a file of such a format is opened."""

import importlib
from typing import Any


def need(name: str, what: str) -> Any:
    """The module of a package; ImportError says what needs it and how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{what} needs the package {name!r} ({error}): pip install 'ambient_jax[formats]'"
        ) from error
