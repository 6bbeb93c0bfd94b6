"""Variants of the experiment on recorded teleoperation.

    python -m experiments.humanoid --config=experiments/humanoid/config.py:table \\
        --config.task.recorded=/data/lerobot_g1

table   every policy, three training seeds; an hour on two cores
quick   the main policies, one seed; a quarter of an hour
debug   the same code on motions that it generates, in minutes

``task.recorded`` is any data set of joint positions that the library reads (LeRobot, RLDS) whose
states and actions are those of the same joints.
"""

import dataclasses

import ml_collections

from ambient_jax.train import config as train_config
from experiments.humanoid.corruptions import KINDS, Strengths
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """The configuration of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/humanoid"
    source = lambda name, role: train_config.source(f"humanoid_{name}", role, last_step="keep")  # noqa: E731
    config.data.sources.clean = source("clean", "clean")
    for kind in KINDS:
        config.data.sources[kind] = source(kind, "corrupt")
    config.data.observation = ("state",)
    config.data.normalization = "gaussian"
    config.data.padding = "hold"  # actions are positions: at the end the robot stays
    config.data.delta = ()
    config.model = ml_collections.ConfigDict(
        {
            "name": "unet",
            "features": (96, 128),  # with 32, noise of 26 joints passes badly
            "blocks": 1,
            "encoder": {"frequencies": 0, "width": 128, "depth": 2},
        }
    )
    config.objective.prediction = "v"
    # As in the maze: tremor and steps are small, so low noise levels matter, too.
    config.schedule = ml_collections.ConfigDict({"name": "edm", "p_mean": -0.6, "p_std": 1.6})
    config.train.update(dict(steps=4000, batch_size=64, warmup=100, learning_rate=2e-3))
    config.train.update(dict(log_every=100, checkpoint_every=500))
    config.policy.solver, config.policy.steps = "ddim", 16
    config.task = ml_collections.ConfigDict(
        {
            "name": "humanoid",
            "recorded": "",  # folder of the recorded data set; "": motions that are generated
            "generated": 40,  # of these
            "clean": 20,  # episodes
            "held_out": 17,  # episodes, as recorded, that no policy sees; kinds share the rest
            "data_seed": 0,  # of the split and the corruptions
            "strengths": dataclasses.asdict(Strengths()),
            "field": dict(chunks=20_000, steps=1000),  # of the receptive field's denoiser
            "samples": 1024,  # held-out chunks that each policy is measured on
            "eval_seed": 0,
            "seeds": (0, 1, 2),
            "alpha": (0.5,),
            "groups": ("main", "variants", "more"),
            # Groups and policies that are trained with the first seed only.
            "one_seed": ("variants",),
            # Fields of the annotations' tasks, see ``policies.ANNOTATIONS``.
            "annotate_raw": dict(
                granularity=("dataset", "episode"),
                # Longer, and 20 episodes are known by heart: their held-out loss grows again.
                **dict(steps=300, evaluate_every=20, patience=4, learning_rate=1e-3),
                **dict(batch_size=256, levels=20, draws=1),
                # Locality of 26 joints at once would take hours; see ``recording``.
                **dict(analyses=("spectrum",), compared=2000, crops=()),
            ),
            "annotate_actions": dict(
                granularity=("dataset",),
                **dict(steps=600, evaluate_every=30, patience=4, batch_size=256),
                **dict(levels=20, draws=1, analyses=(), crops=(), compared=2000),
            ),
            "annotate_observed": dict(
                granularity=("dataset",),
                observed=True,
                **dict(encoder=(0, 64, 1), blur=0.05),
                **dict(steps=600, evaluate_every=30, patience=4, batch_size=256),
                **dict(levels=20, draws=1, analyses=(), crops=(), compared=2000),
            ),
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.seeds, config.task.groups = (0,), ("main",)


def _debug(config):
    config.data.root = "runs/data/humanoid_debug"
    table_config.tiny(config, 4)
    config.model.encoder.update({"width": 16})
    config.task.update(dict(generated=26, clean=6, held_out=4, samples=64, seeds=(0, 1)))
    few = dict(folds=2, steps=40, evaluate_every=20, levels=6, draws=1, features=(8, 16))
    few |= dict(batch_size=64, compared=100)
    for name in ("raw", "actions", "observed"):
        config.task[f"annotate_{name}"].update(few)
    config.task.field.update(dict(chunks=500, steps=20))


VARIANTS = {"table": lambda config: None, "quick": _quick, "debug": _debug}
