"""The library's launcher with the short names of this folder's tasks."""

from absl import flags

from ambient_jax.cli import launch
from experiments.tasks import TASKS

flags.disclaim_key_flags()  # so that --help of an experiment lists the launcher's


def run(experiment: str, job: launch.Job | None = None) -> None:
    """Runs the command ``python -m experiments.<experiment>``; see ``ambient_jax.cli.launch``."""
    example = f"experiments/{experiment}/config.py:debug"
    launch.run(experiment, job or launch.trains(TASKS), example=example, buckets=job is None)
