"""Variants of the experiment with shifted observations.

    python -m experiments.shifted --config=experiments/shifted/config.py:quick

quick   every episode's camera elsewhere, one training seed: some 25 minutes on two cores
table   also one camera moved, three training seeds for what claims something: some 75 core minutes
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
    config.train.steps = 3000
    clean = train_config.source("shifted_clean", "clean", split="train[:50]", last_step="keep")
    config.data.sources.clean = clean
    # The path and split of a policy's kind of shift take the place of these.
    config.data.sources.source = train_config.source("shifted_moved", "corrupt", last_step="keep")
    config.task = ml_collections.ConfigDict(
        {
            "name": "shifted",
            "clean": 50,  # demonstrations
            "source": 500,  # of every kind of shift
            "held_out": 50,
            "data_seed": 0,
            # Of ``shifts.NAMES``; all but the first have the methods ``policies.MORE`` only.
            "kinds": ("bumped", "bumped_aligned", "moved", "jitter"),
            "scene": dataclasses.asdict(Scene()),
            "alpha": 0.5,  # share of clean data where the source is admitted
            # Noise level of the action up to which a policy knows what to do without observation:
            # its loss is the same to 1% (results/README.md).
            "low": 0.1,
            # Of clean rows, so many see their observation without noise where it gets noise.
            "undisturbed": 0.9,
            "adversary": 0.1,  # strength of the reversed gradient
            "tau": 0.05,  # of the classifier that chooses the levels of the policies "ambient"
            # Largest excess of the loss of ``clean_noised`` at the levels of the policies "noised"
            # and "dropped".
            "excess": 0.05,
            # Fields of annotate.training.Options to change, and of ``judge.Judged``.
            "classifier": {"steps": 600, "folds": 2},
            "judged": 1500,  # chunks of the source that the classifier judges
            # These starts report; the length of the training was chosen on others (eval_seed 7).
            "episodes": 200,
            "eval_seed": 3,
            "seeds": (0, 1, 2),
            "groups": (
                *("main", "oracle", "bumped_aligned_as_is", "baselines", "moved_told"),
                *("variants", "moved_as_is", "jitter_as_is", "jitter_noised"),
            ),
            # Groups and policies that are trained with the first seed only.
            "one_seed": (
                *("variants", "clean_noised", "bumped_low", "moved_as_is"),
                *("jitter_as_is", "jitter_noised"),
            ),
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.kinds = ("bumped", "bumped_aligned")
    config.task.seeds = (0,)
    config.task.groups = ("main", "oracle", "bumped_aligned_as_is", "baselines")
    config.task.one_seed = ()


def _debug(config):
    config.data.root = "runs/data/shifted_debug"
    config.data.sources.clean.split = "train[:3]"
    table_config.tiny(config, 4)
    config.task.update(dict(clean=3, source=4, held_out=1, episodes=4, judged=40))
    config.task.scene.update(dict(position=0.04, angle=0.5, yaw=0.3, max_steps=80))
    config.task.seeds = (0, 1)
    config.task.groups = (*config.task.groups, "more")
    config.task.classifier = {"steps": 20, "folds": 2, "evaluate_every": 20, "features": (8,)}
    config.task.classifier.batch_size = 64


VARIANTS = {"quick": _quick, "table": lambda config: None, "debug": _debug}
