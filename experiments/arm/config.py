"""Variants of the 7-DoF motion planning experiment.

    python -m experiments.arm --config=experiments/arm/config.py:quick

quick   the three policies of the paper and a short sweep, one training seed; 30 minutes on 2 cores
table   every policy of the table, three training seeds for the main ones
debug   the same code on a few plans and steps
"""

import ml_collections

from ambient_jax.train import config as train_config
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/arm_table"
    for name, role in (("smooth", "clean"), ("rrt", "corrupt")):
        config.data.sources[name] = train_config.source(f"arm_{name}", role, last_step="keep")
    config.data.observation = ("start", "goal", "hands", "scene")
    config.data.history = 1
    config.data.horizon = 1  # one action, which is the whole plan
    config.model = ml_collections.ConfigDict(
        {
            "name": "experiments.arm.network:PlanDenoiser",
            "width": 384,
            "blocks": 3,
            "encoder": {
                "name": "experiments.arm.network:Encoder",
                "frequencies": 2,
                "width": 384,
                "depth": 2,
            },
        }
    )
    config.objective.prediction = "v"
    # Both the training and the solver's grid must reach levels below the roughness of the plans.
    config.schedule = ml_collections.ConfigDict({"name": "edm", "p_mean": -0.6, "p_std": 1.6})
    config.train.steps = 2000
    config.train.batch_size = 128
    config.train.learning_rate = 2e-3
    config.train.warmup = 200
    config.train.checkpoint_every = 500
    config.policy.solver, config.policy.steps = "ddpm", 30
    config.policy.execute = 1
    config.task = ml_collections.ConfigDict(
        {
            "name": "arm",
            "clean": 50,  # optimised plans
            "corrupt": 2000,  # plans of RRT-Connect
            "held_out": 0,
            "data_seed": 0,
            "seeds": (0, 1, 2),
            "sigma_min": (0.025, 0.05, 0.2, 0.4),
            "alpha": (0.091, 0.6),
            # The main policies' sigma_min and alpha: chosen on other problems than those reported.
            "best": 0.1,
            "share": 0.3,
            "groups": ("main", "sweep", "alpha"),
            "one_seed": ("rrt", "cotrain", "sweep", "alpha"),
            "episodes": 1000,
            "eval_seed": 1,
            "replan": 8,  # steps executed before the next plan, in the closed-loop rows of main
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.seeds = (0,)
    config.task.update(dict(sigma_min=(0.025,), alpha=(0.091,), corrupt=1500, episodes=500))


def _debug(config):
    config.data.root = "runs/data/arm_table_debug"
    config.model.update({"width": 16, "blocks": 1})
    config.model.encoder.update({"width": 16, "depth": 1})
    config.train.update(dict(steps=20, warmup=5, log_every=10, checkpoint_every=10))
    config.train.batch_size, config.policy.steps = 32, 4
    config.task.update(dict(clean=3, corrupt=6, episodes=8, seeds=(0, 1)))
    config.task.update(dict(sigma_min=(0.3,), alpha=(0.5,)))


VARIANTS = {"quick": _quick, "table": lambda config: None, "debug": _debug}
