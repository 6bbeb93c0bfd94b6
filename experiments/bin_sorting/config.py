"""Variants of bin sorting; each trains one policy and rolls it out.

    python -m experiments.bin_sorting --config=experiments/bin_sorting/config.py:correct

correct    50 correct demonstrations alone
expert     250 correct demonstrations: what the motions of five times the data are worth
debug      the same code on a few demonstrations and steps
"""

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config


def get_config(variant: str = "correct") -> ml_collections.ConfigDict:
    """The configuration of a variant; raises ValueError for an unknown one."""
    _checks.one_of("config variant", variant, VARIANTS)
    config = train_config.default()
    config.name = variant
    _base(config)
    VARIANTS[variant](config)
    return config


def _base(config):
    config.data.root = "runs/data/bins"
    config.data.sources.correct = train_config.source("bins_correct", "clean")
    config.data.observation = ("state",)
    config.data.padding = "hold"  # actions are positions: at the end the gripper stays
    config.law.name = "filtering"
    config.model = ml_collections.ConfigDict(
        {
            "name": "unet",
            "features": (32, 64, 128),
            "blocks": 1,
            # Waves would let it tell 50 demonstrations apart by where the other blocks lie.
            "encoder": {"frequencies": 0, "width": 256, "depth": 2},
        }
    )
    config.schedule.name = "cosine"
    config.objective.prediction = "v"
    config.train.steps = 4000
    config.train.learning_rate = 2e-3
    config.policy.solver, config.policy.steps = "ddim", 16
    config.task = ml_collections.ConfigDict(
        {
            "name": "bin_sorting",
            "correct": 50,  # demonstrations of each rule
            "arbitrary": 200,
            "opposite": 200,
            "held_out": 50,  # of each rule
            "data_seed": 0,
            "scene": {},  # fields of scene.Scene to change
            "episodes": 100,  # rollouts of a policy
            "eval_seed": 0,
        }
    )


def _expert(config):
    config.data.root = "runs/data/bins_expert"
    config.task.update(dict(correct=250, arbitrary=0, opposite=0))


def _debug(config):
    config.data.root = "runs/data/bins_debug"
    config.model.update({"features": (8, 16), "groups": 2})
    config.train.update(dict(steps=40, warmup=5, log_every=20, checkpoint_every=20))
    config.train.batch_size = 32
    config.policy.steps = 4
    config.task.update(dict(correct=3, arbitrary=3, opposite=3, held_out=0, episodes=4))
    config.task.scene = ml_collections.ConfigDict({"red": 1, "blue": 1, "max_steps": 120})


VARIANTS = {"correct": lambda config: None, "expert": _expert, "debug": _debug}
