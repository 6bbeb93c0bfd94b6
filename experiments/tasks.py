"""Short names of the tasks here, for ``config.task.name``; see ``ambient_jax.cli.tasks``.

Those of ``paper_pushing``, ``planar_pushing`` and ``pusht`` are evaluated by their tables alone.
"""

from typing import Any

from ambient_jax.cli import tasks

TASKS = {
    "arm": "experiments.arm.task",
    "bin_sorting": "experiments.bin_sorting.task",
    "maze": "experiments.maze.task",
    "open_x_fixtures": "experiments.open_x.fixtures",
    "open_x_inputs": "experiments.open_x.inputs",
    "paper_pushing": "experiments.paper_pushing.task",
    "planar_pushing": "experiments.planar_pushing.task",
    "pusht": "experiments.pusht.task",
}


def get(name: str) -> Any:
    """Returns the task that has this short name, or that it names as ``package.module``."""
    return tasks.get(name, TASKS)
