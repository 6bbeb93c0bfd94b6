"""Tasks by name: what builds a config's data and evaluates its policies.

A task has ``build(config)``, which writes the data sets that are absent, and may have
``evaluate(config, workdir)``, which leaves ``<workdir>/report/`` of one policy.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ambient_jax import _checks


def get(name: str, short_names: Mapping[str, str] | None = None) -> Any:
    """Returns the task that ``config.task.name`` names; None for the empty name.

    Args:
      name: a key of ``short_names``, a module as in "my_package.my_task", or an object in a module
        as in "my_package.my_module:my_task".
      short_names: {short name: module}; an experiment's command has them, the library has none.

    Raises:
      ValueError: an unknown short name, no such module or object, or no ``build`` in it.
    """
    names = dict(short_names or {})
    if not name:
        return None
    if "." not in name and ":" not in name and name not in names:
        expected = (*names, "my_package.my_task")
        raise ValueError(
            f"config.task.name is {name!r}, expected one of {', '.join(expected)} (a module of "
            f"your own){_checks.nearest(name, names)}"
        )
    path, _, attribute = names.get(name, name).partition(":")
    task = _module(path, name)
    for part in attribute.split(".") if attribute else ():
        if not hasattr(task, part):
            raise ValueError(
                f"config.task.name is {name!r}: {path} has no {part!r}"
                f"{_checks.nearest(part, vars(task))}"
            )
        task = getattr(task, part)
    if not callable(getattr(task, "build", None)):
        raise ValueError(f"config.task.name is {name!r}: it has no function build(config)")
    return task


def _module(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and f"{path}.".startswith(f"{error.name}."):
            raise ValueError(
                f"config.task.name is {name!r}: there is no module {error.name!r}; start the "
                "command where it is, or set PYTHONPATH"
            ) from error
        raise
