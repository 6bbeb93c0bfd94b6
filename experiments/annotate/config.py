"""Variants of the annotation: which noise levels may corrupt data train, decided by a classifier.

    python -m experiments.annotate --config=experiments/annotate/config.py:maze

maze          GCS (clean) against RRT (corrupt), the data of the maze table
debug         the same on a few plans and steps
rlds          your own: --config.data.sources.clean.path=... --config.data.sources.corrupt.path=...
three_points  the thought experiment on {-1, 0, 1}: what units of one bound do to what is learned
"""

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config


def get_config(variant: str = "maze") -> ml_collections.ConfigDict:
    """The configuration of a variant; raises ValueError for an unknown one."""
    _checks.one_of("config variant", variant, VARIANTS)
    config = train_config.default()
    config.name = variant
    # Of the classifier's noise levels: wide, so that it also learns what only low noise shows.
    config.schedule = ml_collections.ConfigDict({"name": "edm", "p_mean": -1.5, "p_std": 2.2})
    config.task = ml_collections.ConfigDict(
        {
            "name": "annotate",
            "granularity": ("dataset", "random", "datapoint"),  # a bounds file for each
            "bucket": 100,  # datapoints in a bucket
            "tau": 0.05,  # sigma_min is where P(clean) passes 0.5 - tau
            "rule": "isotonic",  # or last
            "levels": 16,  # noise levels that P(clean) is measured at
            "distinct": 64,  # levels that bounds are rounded up to
            "draws": 2,  # noise draws of each chunk at each level
            "observed": False,  # whether the classifier also sees the observation
            "folds": 4,
            "steps": 2000,
            "batch_size": 256,
            "evaluate_every": 100,
            "compared": 4000,  # chunks of each role that the total variation is measured on
            "crops": (1, 2, 4, 8),  # widths in actions for sigma_max by locality; () leaves it 0
            "crop_steps": 1000,  # training steps of their classifiers
            "field_chunks": 20_000,  # chunks that the receptive field is measured on
            "field_steps": 3000,  # training steps of its denoiser
        }
    )
    VARIANTS[variant](config)
    return config


def _maze(config):
    config.data.root = "runs/data/maze_table"
    config.data.sources.gcs = train_config.source("maze_gcs", "clean")
    config.data.sources.rrt = train_config.source("maze_rrt", "corrupt")
    config.data.observation = ("state", "goal")
    config.data.padding = "hold"
    counts = dict(clean=100, corrupt=5000, shortcut=5000, held_out=300, data_seed=0)
    config.task.update(dict(build="maze", **counts))


def _debug(config):
    _maze(config)
    config.data.root = "runs/data/maze_debug"
    config.task.update(dict(clean=4, corrupt=40, shortcut=0, held_out=0))
    config.task.update(dict(folds=2, steps=40, levels=5, bucket=20, compared=60, evaluate_every=20))
    config.task.update(dict(crops=(2,), crop_steps=20, field_chunks=200, field_steps=100))


def _rlds(config):
    for role in ("clean", "corrupt"):
        config.data.sources[role] = train_config.source("", role)
    config.task.granularity = ("dataset", "random")


def _three_points(config):
    config.task = ml_collections.ConfigDict(
        {
            "name": "three_points",
            "assignments": ("dataset", "bucket", "datapoint", "ordered"),
            "clean": 50,  # points drawn from {0, 1}
            "corrupt": (10, 100, 1000, 10_000, 100_000),  # from {-1, 0}
            "bucket": 100,
            "tau": (0.05, 0.01),
            "repeats": 200,  # pairs of data sets drawn for each row
            "pairs": 20,  # of which so many are trained on
            "draws": 200_000,  # training draws of each table denoiser
        }
    )


VARIANTS = {"maze": _maze, "debug": _debug, "rlds": _rlds, "three_points": _three_points}
