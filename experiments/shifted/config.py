"""Variants of the experiment with shifted observations.

    python -m experiments.shifted --config=experiments/shifted/config.py:quick

quick   the main policies and the oracle, one training seed: 15 core minutes
table   every policy, three training seeds for those that claim something: some 60 core minutes
debug   the same code on a few demonstrations and steps
"""

import dataclasses

import ml_collections

from ambient_jax.train import config as train_config
from experiments.planar_pushing.scene import Scene
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/shifted"
    table_config.tabletop(config)
    config.data.observation = ("pusher", "slider")
    clean = train_config.source("shifted_clean", "clean", split="train[:50]", last_step="keep")
    config.data.sources.clean = clean
    # The path and split of a policy's kind of shift take the place of these.
    config.data.sources.source = train_config.source("shifted_moved", "corrupt", last_step="keep")
    # Of clean rows, so many see the observation as policies do, without noise.
    config.observation_noise.clean = 0.7
    config.task = ml_collections.ConfigDict(
        {
            "name": "shifted",
            "clean": 50,  # demonstrations
            "source": 500,  # of every kind of shift
            "held_out": 50,
            "data_seed": 0,
            "kinds": ("moved",),  # of ``shifts.KINDS``
            "more_kinds": (),  # the same of the group more
            "scene": dataclasses.asdict(Scene()),
            "alpha": 0.5,  # share of clean data where the source is admitted
            "dropped": 0.3,  # share of clean rows without observation, of the policies "dropped"
            "adversary": 0.1,  # strength of the reversed gradient
            "tau": 0.05,  # of the classifier that chooses the levels
            # Fields of annotate.training.Options to change, and of ``judge.Judged``.
            "classifier": {"steps": 600, "folds": 2},
            "judged": 1500,  # chunks of the source that the classifier judges
            # Nothing is chosen by rollouts: these starts only report.
            "episodes": 200,
            "eval_seed": 2,
            "seeds": (0, 1, 2),
            "groups": ("main", "told", "oracle", "adversarial", "variants"),
            # Groups and policies that are trained with the first seed only.
            "one_seed": ("oracle", "adversarial", "variants", "more"),
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.seeds = (0,)
    config.task.groups = ("main", "told", "oracle")
    config.model.features = (32, 64)
    config.train.steps, config.train.batch_size = 1500, 64


def _debug(config):
    config.data.root = "runs/data/shifted_debug"
    config.data.sources.clean.split = "train[:3]"
    table_config.tiny(config, 4)
    config.task.update(dict(clean=3, source=4, held_out=1, episodes=4, judged=40))
    config.task.scene.update(dict(position=0.04, angle=0.5, yaw=0.3, max_steps=80))
    config.task.seeds = (0, 1)
    config.task.classifier = {"steps": 20, "folds": 2, "evaluate_every": 20, "features": (8,)}
    config.task.classifier.batch_size = 64


VARIANTS = {"quick": _quick, "table": lambda config: None, "debug": _debug}
