"""The table: ``run(config, workdir)``."""

import functools

from experiments.paper_pushing import config, policies, report, task
from experiments.paper_pushing.rollout import Rollouts
from experiments.planar_pushing import classifier_bounds
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
)
run = functools.partial(table.run, EXPERIMENT)
