"""Policies whose noise levels the classifier chose: no rollout, no sweep.

The annotation of the table's data runs once, in ``<workdir>/annotation``; its bounds files and the
total variation that it measured are what these policies train with.
"""

from __future__ import annotations

import pathlib

import ml_collections

from ambient_jax.annotate import command
from ambient_jax.cli import report
from experiments.annotate import config as annotate_config

GRANULARITIES = ("dataset", "random", "datapoint")


def annotate_data(base: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Runs the annotation if it is missing, and tells ``base.task`` what came out."""
    config = annotate_config.get_config("maze")
    config.data = base.data
    config.task.update(base.task.annotate)
    # The table has built the data, and no policy of it uses sigma_max.
    config.task.update({"build": "", "granularity": GRANULARITIES, "crops": ()})
    folder = workdir / "annotation"
    if not base.task.report_only:
        command.by_classifier(config, str(folder))
    elif not (folder / "report" / "results.json").exists():
        base.task.groups = tuple(group for group in base.task.groups if group != "chosen")
        return
    results = report.read(folder / "report" / "results.json")
    base.task.bounds = str(folder / "bounds")
    base.task.ben_david.sigmas = tuple(results["levels"])
    base.task.ben_david.divergences = tuple(results["total_variation"]["rrt"]["value"])
