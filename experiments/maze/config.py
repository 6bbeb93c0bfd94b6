"""Variants of the maze experiment.

    python -m experiments.maze --config=experiments/maze/config.py:quick

quick   the four policies of the talk and a short sweep of sigma_min, one training seed
table   every policy of the table, three training seeds; hours on a CPU
debug   the same code on a few plans and steps
"""

import ml_collections

from ambient_jax.train import config as train_config
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/maze_table"
    for name, role in (("gcs", "clean"), ("rrt", "corrupt")):
        config.data.sources[name] = train_config.source(f"maze_{name}", role, last_step="keep")
    config.data.observation = ("state", "goal")
    config.data.padding = "hold"  # actions are positions: at the goal the robot stays
    config.data.delta = ()
    config.model = ml_collections.ConfigDict(
        {"name": "unet", "features": (32, 64, 128), "blocks": 1}
    )
    config.objective.prediction = "v"
    # RRT's jitter is a hundredth of the normalised range: both the training and the solver's grid
    # must reach noise levels below that, which cosine's fiftieth step (0.04) does not.
    config.schedule = ml_collections.ConfigDict({"name": "edm", "p_mean": -0.6, "p_std": 1.6})
    config.train.steps = 3_500
    config.train.learning_rate = 4e-3
    config.train.checkpoint_every = 500
    config.policy.solver, config.policy.steps = "ddpm", 50
    config.task = ml_collections.ConfigDict(
        {
            "name": "maze",
            "clean": 100,  # plans of the convex planner
            "corrupt": 5000,  # plans of RRT
            "shortcut": 5000,  # plans of shortcut RRT
            "few": 50,  # clean plans of the policies "with 50"
            "held_out": 300,  # RRT and GCS plans that no policy sees, for the loss per noise level
            "data_seed": 0,
            "seeds": (0, 1, 2),
            "sigma_min": (0.002, 0.005, 0.03, 0.1, 0.2, 0.4, 0.7, 0.9, 0.99, 0.998),
            "alpha": (0.1, 0.5),
            "best": 0.1,  # sigma_min of every policy that is not part of the sweep
            "groups": (
                *("main", "sweep", "chosen", "variants", "alpha", "few", "shortcut", "baselines"),
            ),
            # Groups and policies that are trained with the first seed only.
            "one_seed": (
                *("few", "shortcut", "soft", "loss_x0", "loss_eps", "baselines"),
                *("chosen_random", "chosen_datapoint"),
            ),
            # Fields of experiments/annotate/config.py:maze to change for chosen and baselines.
            "annotate": {},
            # Sample sizes of Ben-David's bound: plans, as the steps of one are not independent.
            "ben_david": {"n_clean": 100, "n_corrupt": 5000},
            "goals": 1000,
            "eval_seed": 1,
            # Beside the policy's solver, for the policies of the group main.
            "solvers": (("ddpm", 100), ("ddim", 100), ("ddim", 20)),
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.seeds = (0,)
    config.task.sigma_min = (0.03, 0.1, 0.4)
    config.task.groups, config.task.shortcut = ("main", "sweep"), 0
    config.task.solvers = (("ddim", 100),)


def _debug(config):
    config.data.root = "runs/data/maze_table_debug"
    table_config.tiny(config, 5)
    config.task.update(dict(clean=6, corrupt=40, shortcut=40, few=3, held_out=6, goals=24))
    config.task.seeds = (0, 1)
    config.task.update(dict(sigma_min=(0.1, 0.5), alpha=(0.3,), solvers=(("ddim", 5),)))
    config.task.annotate = dict(
        folds=2, steps=20, levels=4, bucket=20, compared=60, evaluate_every=20
    )


VARIANTS = {"quick": _quick, "table": lambda config: None, "debug": _debug}
