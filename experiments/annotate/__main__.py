"""Bounds from a noise classifier, as files that training joins, with tables and figures.

python -m experiments.annotate --config=experiments/annotate/config.py:maze
"""

from ambient_jax import _checks
from experiments import launch
from experiments.annotate import annotate, known, labels, three_points


def run(config, workdir):
    """The job that the config's task names."""
    jobs = {"annotate": annotate, "known": known, "labels": labels, "three_points": three_points}
    _checks.one_of("config.task.name", config.task.name, jobs)
    jobs[config.task.name].run(config, workdir)


if __name__ == "__main__":
    launch.run("annotate", run)
