"""The table: ``run(config, workdir)``."""

import functools

from experiments.planar_pushing.rollout import Rollouts
from experiments.shifted import config, excess, judge, policies, report, task
from experiments.table import rollouts
from experiments.table import run as table
from experiments.table.experiment import Experiment

EXPERIMENT = Experiment(
    get_config=config.get_config,
    check=task.check,
    build=task.build,
    annotate=judge.annotate,
    policies=policies.rows,
    files=rollouts.simulated,
    simulator=task.simulator,
    rollouts=Rollouts,
    report=report.write,
    baselines=excess.annotate,
)
run = functools.partial(table.run, EXPERIMENT)
