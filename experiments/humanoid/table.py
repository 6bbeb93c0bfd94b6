"""The table: ``run(config, workdir)``."""

import functools

from experiments.humanoid import config, policies, report, task
from experiments.table import run as table
from experiments.table.experiment import Experiment

EXPERIMENT = Experiment(
    get_config=config.get_config,
    check=task.check,
    build=task.build,
    annotate=policies.annotate,
    policies=policies.rows,
    files=task.files,
    simulator=task.simulator,
    rollouts=task.Measures,
    report=report.write,
)
run = functools.partial(table.run, EXPERIMENT)
