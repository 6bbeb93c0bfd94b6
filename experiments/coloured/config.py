"""Variants of the experiment with coloured noise.

    python -m experiments.coloured --config=experiments/coloured/config.py:quick

quick   the classifier's curves and one policy of each colour, one training seed
debug   the same code on a few plans and steps
"""

import ml_collections

from ambient_jax.cli import config_file
from experiments.maze import config as maze
from experiments.table import config as table_config


def get_config(variant: str = "quick") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    name, _ = config_file.choose(variant, VARIANTS)
    config = maze.get_config("debug" if name == "debug" else "table")
    config.name = name
    if name == "quick":
        config.train.steps, config.train.checkpoint_every = 1500, 500
    config.task = ml_collections.ConfigDict(
        {
            "name": "coloured",
            "clean": 100,  # plans of the convex planner
            "corrupt": 5000,  # plans of RRT
            "held_out": 0,
            "data_seed": 0,
            # Exponents a of the noise's spectrum f^-a; "data": that of the clean chunks.
            "colours": (0.0, "data", 1.0, -1.0),
            "tau": 0.05,
            "classifier": {"steps": 800, "folds": 2},  # fields of annotate.training.Options
            "judged": 1500,  # chunks of each side
            "goals": 300,
            "eval_seed": 3,
            "seeds": (0,),
            "groups": ("main",),
            "one_seed": (),
            "solvers": (),
            **table_config.PROCESSES,
        }
    )
    VARIANTS[name](config)
    return config


def _debug(config):
    config.task.update(dict(clean=6, corrupt=40, goals=8, judged=50, colours=(0.0, "data")))
    options = {"steps": 20, "evaluate_every": 20, "features": (8,), "batch_size": 64, "folds": 2}
    config.task.classifier = options


VARIANTS = {"quick": lambda config: None, "debug": _debug}
