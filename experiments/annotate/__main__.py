"""Bounds from a noise classifier, as files that training joins, with tables and figures.

python -m experiments.annotate --config=experiments/annotate/config.py:maze
"""

from experiments import launch
from experiments.annotate import annotate, known, three_points


def run(config, workdir):
    """The job that the config's task names."""
    jobs = {"annotate": annotate.run, "known": known.run, "three_points": three_points.run}
    jobs[config.task.name](config, workdir)


if __name__ == "__main__":
    launch.run("annotate", run)
