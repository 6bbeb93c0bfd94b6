"""The default configuration of the command ``python -m ambient_jax.annotate``."""

import dataclasses

import ml_collections

from ambient_jax.annotate.options import SCHEDULE, Options
from ambient_jax.train import config as train_config


def default() -> ml_collections.ConfigDict:
    """Returns a training config whose task is annotation; set at least ``data.sources``.

    ``config.task`` has the fields of ``Options``. ``config.task.build`` may name a module whose
    ``build(config)`` writes the data first.
    """
    config = train_config.default()
    config.name, config.schedule = "annotate", ml_collections.ConfigDict(SCHEDULE)
    config.task = ml_collections.ConfigDict({"name": "annotate", **dataclasses.asdict(Options())})
    return config


def completed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config; one without a task gets the task and schedule of ``default``."""
    if config.task.name:
        return config
    config, base = config.copy_and_resolve_references(), default()
    config.task, config.schedule = base.task, base.schedule
    return config


def labels(label: str) -> ml_collections.ConfigDict:
    """Returns the section ``config.task`` for bounds from a quality label; see ``labels``."""
    rule = dict(threshold=0.5, at_least=0.0, below=0.5, unlabelled=0.2)
    return ml_collections.ConfigDict(dict(name="labels", label=label, **rule))
