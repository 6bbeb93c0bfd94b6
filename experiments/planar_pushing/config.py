"""Variants of planar pushing: one policy, trained and rolled out.

    python -m experiments.planar_pushing --config=experiments/planar_pushing/config.py:ambient

ambient   50 target demonstrations and 2000 of the source, these at high noise levels alone
debug     the same code on a few demonstrations and steps
"""

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config
from experiments.planar_pushing.scene import KNOBS


def get_config(variant: str = "ambient") -> ml_collections.ConfigDict:
    """The configuration of a variant; raises ValueError for an unknown one."""
    _checks.one_of("config variant", variant, VARIANTS)
    config = train_config.default()
    config.name = variant
    _base(config)
    VARIANTS[variant](config)
    return config


def _base(config):
    config.data.root = "runs/data/push"
    config.data.sources.target = train_config.source("push_target", "clean", split="train[:50]")
    config.data.sources.source = train_config.source("push_source", "corrupt", sigma_min=0.8)
    config.data.observation = ("state",)
    config.data.padding = "hold"  # actions are positions: at the end the pusher stays
    config.law.name = "ambient"
    config.model = ml_collections.ConfigDict(
        {
            "name": "unet",
            "features": (32, 64, 128),
            "blocks": 1,
            "encoder": {"frequencies": 0, "width": 256, "depth": 2},
        }
    )
    config.schedule.name = "cosine"
    config.objective.prediction = "v"
    config.train.steps = 4000
    config.train.learning_rate = 2e-3
    config.train.checkpoint_every = 500
    config.policy.solver, config.policy.steps = "ddim", 16
    config.task = ml_collections.ConfigDict(
        {
            "name": "planar_pushing",
            # Demonstrations; policies with fewer name a split of their source.
            "target": 150,
            "source": 2000,
            "held_out": 50,  # of each
            "data_seed": 0,
            "gap": 1.0,  # level of the source's physics, see scene.between
            "knobs": KNOBS,  # what the gap is made of
            "scene": {},  # fields of scene.Scene to change
            "episodes": 200,  # rollouts of a policy
            "eval_seed": 0,
        }
    )


def _debug(config):
    config.data.root = "runs/data/push_debug"
    config.data.sources.target.split = "train[:3]"
    config.model.update({"features": (8, 16), "groups": 2})
    config.train.update(dict(steps=40, warmup=5, log_every=20, checkpoint_every=20))
    config.train.batch_size = 32
    config.policy.steps = 4
    config.task.update(dict(target=4, source=6, held_out=0, episodes=4))
    config.task.scene = ml_collections.ConfigDict({"max_steps": 60})


VARIANTS = {"ambient": lambda config: None, "debug": _debug}
