"""The table: ``run(config, workdir)``."""

import functools

from experiments.planar_pushing import classifier_bounds, config, policies, report, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import rollouts
from experiments.table import run as table
from experiments.table.experiment import Experiment

EXPERIMENT = Experiment(
    get_config=config.get_config,
    check=task.check,
    build=task.build,
    annotate=classifier_bounds.annotate,
    policies=policies.rows,
    files=rollouts.simulated,
    simulator=task.simulator,
    rollouts=Rollouts,
    confirm=report.confirm,
    report=report.write,
    baselines=policies.BASELINES.annotate,
)
run = functools.partial(table.run, EXPERIMENT)
