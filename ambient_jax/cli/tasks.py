"""Finds tasks by name. A task builds the data of a config and evaluates its policies.

A task has ``build(config)``, which writes absent data sets, and may have
``evaluate(config, workdir)``, which writes ``<workdir>/report/`` of one policy.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from ambient_jax import _checks, _names

_FIELD = "config.task.name"


def get(name: str, short_names: Mapping[str, str] | None = None) -> Any:
    """Returns the task that ``config.task.name`` names; None for the empty name.

    A name is a key of ``short_names`` {short name: module}, a module such as "my_package.my_task",
    or an object of a module such as "my_package.my_module:my_task". Raises ValueError for an
    unknown name, a module that cannot be imported, or a task without ``build``.
    """
    if not name:
        return None
    names = dict(short_names or {})
    path = names.get(name, name)
    if ":" in path:
        task = _names.resolve(_FIELD, path, {})
    elif "." in path:
        try:
            task = importlib.import_module(path)
        except ImportError as error:
            raise ValueError(f"{_FIELD} is {name!r}, which cannot be imported: {error}") from error
    else:
        raise ValueError(
            f"{_FIELD} is {name!r}, expected one of {', '.join([*names, 'package.module'])}"
            f"{_checks.nearest(name, names)}"
        )
    if not callable(getattr(task, "build", None)):
        raise ValueError(f"{_FIELD} is {name!r}, which has no function build(config)")
    return task
