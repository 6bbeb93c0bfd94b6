"""Packages that few users need, imported when something needs them."""

import importlib
from typing import Any


class MissingError(ImportError):
    """A package is not installed; the message says what needs it and how to install it."""


def need(name: str, what: str, extra: str, *, otherwise: str = "") -> Any:
    """Returns the module of a package of an extra; raises MissingError if it cannot be imported.
    ``otherwise`` ends the message."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            f"{what} needs the package {name!r} ({error}): pip install 'ambient_jax[{extra}]'"
            f"{otherwise}"
        ) from error
