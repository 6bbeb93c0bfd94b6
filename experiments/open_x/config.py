"""Variants of the general trainer.

    python -m experiments.open_x --config=experiments/open_x/config.py:demo

demo    maze: 100 plans of a convex planner (clean) and 5000 of RRT (corrupt), ambient diffusion
debug   the same on a few plans and steps, in under a minute
rlds    a template for your own RLDS folders: set data.root and data.sources
"""

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config


def get_config(variant: str = "demo") -> ml_collections.ConfigDict:
    """The configuration of a variant; raises ValueError for an unknown one."""
    _checks.one_of("config variant", variant, VARIANTS)
    config = train_config.default()
    config.name = variant
    VARIANTS[variant](config)
    return config


def _demo(config):
    config.data.root = "runs/data/maze"
    config.data.sources.gcs = train_config.source("maze_gcs", "clean")
    config.data.sources.rrt = train_config.source("maze_rrt", "corrupt", sigma_min=0.1)
    config.data.observation = ("state", "goal")
    config.data.padding = "hold"  # actions are positions: at the goal the robot stays
    config.model = ml_collections.ConfigDict(
        {"name": "unet", "features": (32, 64, 128), "blocks": 1}
    )
    # Its clock puts more samples near sigma = 1, where the choice of a route is made.
    config.schedule.name = "cosine"
    config.train.steps = 10_000
    config.train.batch_size = 128
    config.objective.prediction = "v"
    config.policy.solver = "ddpm"  # at 50 steps each, smoother than ddim, as successful
    config.policy.steps = 50
    config.task = ml_collections.ConfigDict(
        {
            "name": "maze",
            "clean": 100,  # plans of the convex planner
            "corrupt": 5000,  # plans of RRT
            "data_seed": 0,
            "goals": 200,  # rollouts of the evaluation
            "eval_seed": 1,
        }
    )


def _debug(config):
    _demo(config)
    config.data.root = "runs/data/maze_debug"
    config.model.features = (8, 16)
    config.train.steps = 60
    config.train.warmup = 10
    config.train.log_every = 20
    config.train.checkpoint_every = 30
    config.task.clean, config.task.corrupt, config.task.goals = 4, 40, 8
    config.policy.steps = 5


def _rlds(config):
    config.train.batch_size = 256


VARIANTS = {"demo": _demo, "debug": _debug, "rlds": _rlds}
