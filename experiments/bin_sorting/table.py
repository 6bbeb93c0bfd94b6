"""The whole table: builds the data, trains and rolls out what is missing, writes the report."""

from __future__ import annotations

import pathlib

import ml_collections
from absl import logging

from ambient_jax.data.paths import expanded
from experiments import checks
from experiments.bin_sorting import config as own
from experiments.bin_sorting import judge, policies, summary, task
from experiments.table import workers


@workers.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Runs the experiment; the same command carries on, policy by policy."""
    checks.same_task(config.task, own.get_config().task)
    task.check(config)  # before the data: what is wrong is told at once
    policies.entries(config.task)
    task.build(config)
    folder = pathlib.Path(expanded(workdir))
    if not workers.run(judge.TABLE, config, folder):
        logging.warning("interrupted: the same command carries on")
        return
    print(summary.write(config, folder))
