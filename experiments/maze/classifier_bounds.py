"""Bounds of the RRT data that a classifier chose."""

from __future__ import annotations

import pathlib

import ml_collections

from experiments.annotate import config as annotate_config
from experiments.table import annotations

GRANULARITIES = {"dataset": "data set", "random": "random bucket", "datapoint": "datapoint"}
NAME = "rrt"  # of the annotation, and of the source


def annotate(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, annotations.Annotation]:
    """The annotation in ``<workdir>/annotation``, made if the group ``chosen`` needs it."""
    if "chosen" not in config.task.groups:
        return {}
    options = annotate_config.get_config("maze")
    options.data = config.data
    options.task.update(config.task.annotate)
    # The table has built the data, and no policy of it uses sigma_max.
    options.task.update({"build": "", "granularity": tuple(GRANULARITIES), "crops": ()})
    sizes = config.task.ben_david.n_clean, config.task.ben_david.n_corrupt
    given = options, workdir / "annotation", NAME, sizes
    annotation = annotations.run(*given, report_only=config.task.report_only)
    return {NAME: annotation} if annotation else {}
