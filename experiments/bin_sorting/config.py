"""Variants of bin sorting.

    python -m experiments.bin_sorting --config=experiments/bin_sorting/config.py:quick

quick     the policies of the talk and a short sweep of sigma_max, one training seed
opposite  correct demonstrations alone, co-training and omni with opposite ones, three seeds
table     every policy of the table, three training seeds; hours on a CPU
debug     the same code on a few demonstrations and steps
"""

import dataclasses

import ml_collections

from ambient_jax.train import config as train_config
from experiments.bin_sorting.scene import Scene
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/bins"
    for name in ("correct", "arbitrary", "opposite"):
        role = "clean" if name == "correct" else "corrupt"
        config.data.sources[name] = train_config.source(f"bins_{name}", role, last_step="keep")
    config.data.sources.correct.split = "train[:50]"
    table_config.tabletop(config)
    config.policy.execute = 4  # notices a missed block sooner; all policies but one gain by it
    config.task = ml_collections.ConfigDict(
        {
            "name": "bin_sorting",
            # Demonstrations of each rule. Correct ones beyond the split of the sources are for the
            # row of the table that measures their value.
            "correct": 250,
            "arbitrary": 200,
            "opposite": 200,
            "held_out": 50,  # of each rule
            "data_seed": 0,
            "scene": dataclasses.asdict(Scene()),
            "episodes": 100,  # rollouts of a policy
            "eval_seed": 0,
            "seeds": (0, 1, 2),
            "sigma_max": (0.24, 0.5, 0.7, 0.85, 0.9, 0.95),
            "sigma_max_opposite": (0.5, 0.9),
            "sigma_min": (0.95, 0.99),  # with the sigma_max "best", for the group variants
            "alpha": (0.5, 0.8),
            # sigma_max by the classifier of ``experiments.annotate ...:bins``, without rollouts.
            "chosen": 0.67,
            "best": 0.8,  # sigma_max of every policy outside of the sweeps
            "groups": (
                *("main", "chosen", "variants", "sweep", "alpha", "more", "opposite", "baselines"),
            ),
            # Groups and policies that are trained with the first seed only.
            "one_seed": ("variants", "alpha", "more", "opposite", "baselines"),
            # Changes of experiments/annotate/config.py:bins for the group baselines.
            "annotate": {},
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.seeds = (0,)
    config.task.sigma_max = (0.24, 0.5, 0.9)
    config.task.groups = ("main", "sweep")


def _opposite(config):
    config.task.sigma_max_opposite = (0.7,)
    omni = ("omni_opposite_0.7", "omni_opposite_0.8")
    config.task.groups = ("correct", "cotrain_opposite", *omni)
    config.task.one_seed = ()


def _debug(config):
    config.data.root = "runs/data/bins_debug"
    config.data.sources.correct.split = "train[:3]"
    table_config.tiny(config, 4)
    config.task.update(dict(correct=4, arbitrary=3, opposite=3, held_out=0, episodes=4))
    config.task.update(dict(seeds=(0, 1), sigma_max=(0.4,), sigma_max_opposite=(0.4,)))
    config.task.update(dict(sigma_min=(0.9,), alpha=(0.5,)))
    config.task.annotate = dict(
        folds=2, steps=20, levels=4, compared=60, evaluate_every=20, features=(8,), batch_size=64
    )
    config.task.scene.update(dict(red=1, blue=1, max_steps=120))


VARIANTS = {
    "quick": _quick,
    "opposite": _opposite,
    "table": lambda config: None,
    "debug": _debug,
}
