"""The table: ``run(config, workdir)``."""

import functools

from experiments.bin_sorting import config, policies, report, task
from experiments.bin_sorting.rollout import Rollouts
from experiments.table import rollouts
from experiments.table import run as table
from experiments.table.experiment import Experiment

EXPERIMENT = Experiment(
    get_config=config.get_config,
    check=task.check,
    build=task.build,
    policies=policies.rows,
    files=rollouts.simulated,
    simulator=task.simulator,
    rollouts=Rollouts,
    report=report.write,
    baselines=policies.BASELINES.annotate,
)
run = functools.partial(table.run, EXPERIMENT)
