"""Variants of planar pushing.

    python -m experiments.planar_pushing --config=experiments/planar_pushing/config.py:quick

quick     target only, source only, co-training and a short sweep of sigma_min, one training seed
table     every policy of the table, three training seeds (one for those of ``task.one_seed``)
scaling   methods against the number of source demonstrations, at 10 and 50 target demonstrations
debug     the table's code on a few demonstrations and steps
"""

import dataclasses

import ml_collections

from ambient_jax.train import config as train_config
from experiments.planar_pushing.scene import KNOBS, Scene
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/push"
    config.data.sources.target = train_config.source(
        "push_target", "clean", split="train[:50]", last_step="keep"
    )
    config.data.sources.source = train_config.source("push_source", "corrupt", last_step="keep")
    table_config.tabletop(config)
    config.task = ml_collections.ConfigDict(
        {
            "name": "planar_pushing",
            # Demonstrations; policies with fewer name a split of their source.
            "target": 150,
            "source": 2000,
            "held_out": 50,  # of each
            "data_seed": 0,
            "gap": 1.0,  # level of the source's physics, see scene.between
            "knobs": KNOBS,  # physical parameters of the gap
            "scene": dataclasses.asdict(Scene()),
            "episodes": 200,  # rollouts of a policy
            "eval_seed": 0,
            "fresh": 1000,  # more rollouts of the policies picked as best, from other starts
            "seeds": (0, 1, 2),
            "sigma_min": (0.15, 0.3, 0.5, 0.7),
            "alpha": (0.2, 0.5),
            "best": 0.3,  # sigma_min of every policy that is not part of the sweep
            "best_alpha": 0.5,  # the same of re-weighted co-training
            "sigma_max": (0.05, 0.15),  # with the sigma_min "best", for the group omni
            "buckets": (100,),  # datapoints in a bucket, of the group chosen
            "more_buckets": (10, 1000),  # the same of the group buckets
            "strict": 0.02,  # tau of the observing classifier of the groups strict and scaling
            "few": 10,  # target demonstrations of the group few
            # For the group scaling: source and target demonstrations, and methods.
            "sources": (500, 1000, 2000, 4000),
            "targets": (10, 50),
            "methods": (
                *("hard", "low", "random", "soft", "ben_david"),
                *("alpha", "hard_alpha", "low_alpha", "random_alpha"),
            ),
            "bucket": 100,  # datapoints of the method random
            "low": 0.15,  # sigma_min of the method low, which is too low by natural weights
            "groups": (
                *("main", "weighted", "chosen", "soft", "observed", "strict", "shared"),
                *("buckets", "omni", "few", "baselines"),
            ),
            # Groups and policies that are trained with the first seed only.
            "one_seed": ("buckets", "observed", "omni", "few", "scaling", "baselines"),
            # Changes of experiments/annotate/config.py in annotations.
            "annotate": {},
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.seeds = (0,)
    config.task.update(dict(sigma_min=(0.15, 0.3), alpha=(0.5,)))
    config.task.groups = ("main", "weighted")


def _scaling(config):
    config.data.root = "runs/data/push_scaling"  # more demonstrations; most policies use a split
    config.task.source = 4000
    config.task.groups = ("scaling",)


def _debug(config):
    config.data.root = "runs/data/push_debug"
    config.data.sources.target.split = "train[:3]"
    table_config.tiny(config, 4)
    config.task.update(dict(target=4, source=6, held_out=1, episodes=4, fresh=4, few=2))
    # Easy, for short episodes.
    config.task.scene.update(dict(position=0.04, angle=0.5, yaw=0.3, max_steps=80))
    config.task.update(dict(seeds=(0, 1), sigma_min=(0.6,), alpha=(0.5,), sigma_max=(0.2,)))
    config.task.update(dict(buckets=(20,), more_buckets=(40,), bucket=20))
    config.task.update(dict(sources=(3, 6), targets=(2, 4)))
    config.task.annotate = dict(
        folds=2, steps=20, levels=4, compared=60, evaluate_every=20, features=(8,), batch_size=64
    )


VARIANTS = {
    "quick": _quick,
    "table": lambda config: None,
    "scaling": _scaling,
    "debug": _debug,
}
