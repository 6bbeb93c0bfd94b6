"""Makes bounds with a noise classifier, as files that training joins, with tables and figures.

python -m experiments.annotate --config=experiments/annotate/config.py:maze
"""

import ml_collections

from ambient_jax import _checks
from ambient_jax.annotate import command
from experiments import launch
from experiments.annotate import known, many, three_points
from experiments.tasks import TASKS


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Runs the job that ``config.task.name`` names."""
    jobs = {"known": known.run, "many": many.run, "three_points": three_points.run}
    _checks.one_of("config.task.name", config.task.name, (*command.JOBS, *jobs))
    if config.task.name in jobs:
        jobs[config.task.name](config, workdir)
    else:
        command.run(config, workdir, TASKS)


if __name__ == "__main__":
    launch.run("annotate", run)
