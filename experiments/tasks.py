"""Tasks by name: what builds an experiment's data and evaluates its policies.

A task is a module with ``build(config)``, which writes the RLDS data where they are absent. Most
have ``evaluate(config, workdir)``, too, which leaves ``<workdir>/report/`` of one policy; those of
``planar_pushing`` are evaluated by its table alone.
"""

import importlib
from types import ModuleType

from ambient_jax import _checks

_MODULES = {
    "bin_sorting": "experiments.bin_sorting.task",
    "maze": "experiments.maze.task",
    "open_x_fixtures": "experiments.open_x.fixtures",
    "open_x_inputs": "experiments.open_x.inputs",
    "planar_pushing": "experiments.planar_pushing.task",
}


def get(name: str) -> ModuleType | None:
    """The task's module, None for the empty name. Raises ValueError for an unknown one."""
    if not name:
        return None
    _checks.one_of("config.task.name", name, _MODULES)
    return importlib.import_module(_MODULES[name])
