"""The table: ``run(config, workdir)``."""

import functools

from experiments.arm import config, policies, report, task
from experiments.arm.rollout import Rollouts
from experiments.table import run as table
from experiments.table.experiment import Experiment

EXPERIMENT = Experiment(
    get_config=config.get_config,
    check=task.check,
    build=task.build,
    policies=policies.rows,
    files=report.files,
    simulator=task.simulator,
    rollouts=Rollouts,
    report=report.write,
)
run = functools.partial(table.run, EXPERIMENT)
