"""The table: ``run(config, workdir)``."""

import functools

from experiments.maze import config, policies, report, task
from experiments.maze.rollout import Rollouts
from experiments.table import run as table
from experiments.table.experiment import Experiment

EXPERIMENT = Experiment(
    get_config=config.get_config,
    check=task.check,
    build=task.build,
    annotate=policies.annotate,
    policies=policies.rows,
    files=report.files,
    simulator=task.simulator,
    rollouts=Rollouts,
    report=report.write,
    baselines=policies.BASELINES.annotate,
)
run = functools.partial(table.run, EXPERIMENT)
