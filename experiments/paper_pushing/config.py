"""Variants of the paper's pushing.

    python -m experiments.paper_pushing --config=experiments/paper_pushing/config.py:quick

quick         target only, co-training, ambient and the upper bound from the state, one seed; half
              an hour on two cores
table         the sweeps from the state (the oracle of the pictures), an upper bound, three seeds of
              what is compared
below         target only, and the source below three levels of sigma_max, one seed
chosen        the same with bounds by a classifier, per data set, per datapoint and in buckets
pixels        target only, co-training and ambient from two cameras, three seeds
pixels_quick  the same with one seed, 6000 steps and 200 fresh starts; half an hour on two cores
pixels_below  from two cameras: the source only where that ambient policy does not use it, and the
              upper bound with one seed
pixels_sweep  from two cameras: sigma_min by a classifier (per data set with three seeds), and a
              smaller share of target data
debug         the code of ``table`` on a few demonstrations and steps
debug_pixels  the same of ``pixels``
"""

import dataclasses

import ml_collections

from ambient_jax.train import config as train_config
from experiments.paper_pushing import cameras
from experiments.paper_pushing.data import SPEC
from experiments.paper_pushing.env import PaperScene
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/paper"
    config.data.sources.target = train_config.source(
        "paper_target", "clean", split="train[:50]", last_step="keep"
    )
    config.data.sources.source = train_config.source("paper_source", "corrupt", last_step="keep")
    table_config.tabletop(config)
    config.policy.steps = 10
    config.task = ml_collections.ConfigDict(
        {
            "name": "paper_pushing",
            # Demonstrations; policies with fewer name a split of their source.
            "target": 2000,
            "source": 2000,
            "held_out": 50,  # of each
            "images_target": 0,  # with pictures
            "images_source": 0,
            "data_seed": 0,
            "scene": dataclasses.asdict(PaperScene()),
            "episodes": 100,  # rollouts of a policy, by which the best of a sweep is picked
            "eval_seed": 0,
            "fresh": 200,  # rollouts of the policies that are compared, from other starts
            "seeds": (0, 1, 2),
            "sigma_min": (0.15, 0.3, 0.5),
            "alpha": (0.2, 0.5),
            "best": 0.3,  # sigma_min of every policy that is not part of the sweep
            "best_alpha": 0.5,  # the same of re-weighted co-training
            "sigma_max": (),  # with the sigma_min "best", for the group omni
            "below": (0.15, 0.3, 0.6),  # sigma_max of a source that trains nothing above it
            "upper": 2000,  # target demonstrations of the group upper
            "buckets": (100,),  # datapoints in a bucket, of the group chosen
            "more_buckets": (),
            "strict": 0.02,  # tau of the observing classifier of the groups strict and shared
            "few": 10,  # target demonstrations of the group few
            "groups": ("main", "weighted", "upper"),  # or single policies
            # Groups and policies that are trained with the first seed only.
            "one_seed": ("source", "cotrain", "weighted", "upper", "chosen", "shared"),
            # The encoder of poses, with which the policies act from pictures, see seen.
            "sight": {"steps": 4000, "rounds": 1, "batch": 32, "seed": 0},
            "annotate": {},  # changes of experiments/annotate/config.py in annotations
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.task.update(dict(seeds=(0,), episodes=50, sigma_min=(0.3,), alpha=(0.5,)))
    ambient = "ambient_0.3", "ambient_0.3_alpha_0.5"
    config.task.groups = ("target", "alpha_0.5", *ambient, "target_upper")


def _below(config):
    config.task.update(dict(seeds=(0,), episodes=50))
    config.task.groups = ("target", *(f"below_{level:g}" for level in config.task.below))


def _chosen(config):
    config.task.groups = ("main", "weighted", "upper", "chosen", "shared", "strict")


def _pixels(config):
    config.data.root = "runs/data/paper_pixels"
    config.data.history, config.data.delta = 1, None
    config.data.placement, config.data.shuffle_window = "stream", 50_000
    pictures = dict(open_x=SPEC, last_step="keep")
    for name, role, split in (("target", "clean", "train[:50]"), ("source", "corrupt", "train")):
        config.data.sources[name] = train_config.source(
            f"paper_images_{name}", role, split=split, **pictures
        )
    form = dict(cameras=("primary", "wrist"), image_size=(cameras.PIXELS, cameras.PIXELS))
    config.data.open_x.update(form | dict(action_width=2, state_width=2, workers=0))
    crop = cameras.PIXELS - 4
    config.augmentation.update(dict(crop=(crop, crop), brightness=0.05, contrast=0.05))
    encoder = {"name": "experiments.paper_pushing.network:CameraEncoder"}
    config.model.encoder = ml_collections.ConfigDict(encoder)
    config.train.update(dict(steps=8000, batch_size=64))
    config.task.update(dict(target=0, source=0, held_out=0, images_target=50, images_source=2000))
    # Nothing is chosen here: the levels are those of the policies from the state.
    config.task.update(dict(episodes=20, fresh=500, sigma_min=(0.3,), alpha=(0.5,), one_seed=()))
    config.task.groups = ("target", "alpha_0.5", "ambient_0.3_alpha_0.5")
    config.task.together = 1


def _pixels_below(config):
    _pixels(config)
    config.task.update(dict(images_target=2000, one_seed=("target_upper",)))
    config.task.groups = ("below_0.3_alpha_0.5", "target_upper")


def _pixels_sweep(config):
    _pixels(config)
    config.task.update(dict(episodes=100, alpha=(0.2, 0.5)))
    finer, other = (
        ("datapoint_alpha_0.5", "random_100_alpha_0.5"),
        ("alpha_0.2", "ambient_0.3_alpha_0.2"),
    )
    config.task.one_seed = (*finer, *other)
    config.task.groups = ("dataset_alpha_0.5", *config.task.one_seed)


def _pixels_quick(config):
    _pixels(config)
    config.train.steps = 6000
    config.task.update(dict(seeds=(0,), fresh=200))


def _debug(config):
    config.data.root = "runs/data/paper_debug"
    config.data.sources.target.split = "train[:3]"
    table_config.tiny(config, 4)
    _easy(config)
    config.task.update(dict(target=4, source=6, held_out=1, seeds=(0, 1), upper=4))
    config.task.update(dict(sigma_min=(0.6,), best=0.6, alpha=(0.5,)))


def _debug_pixels(config):
    _pixels(config)
    config.data.root = "runs/data/paper_debug_pixels"
    config.data.sources.target.split = "train[:3]"
    config.model.update(dict(features=(8, 16), groups=2))
    config.model.encoder.widths = (4, 4, 4)
    config.train.update(dict(steps=20, warmup=5, log_every=10, checkpoint_every=10, batch_size=16))
    config.policy.steps = 2
    _easy(config)
    config.task.update(dict(images_target=3, images_source=4, sigma_min=(0.6,), best=0.6))
    config.task.groups = ("target", "ambient_0.6")


def _easy(config):
    """Sets few and short episodes."""
    config.task.update(dict(episodes=4, fresh=4, few=2))
    config.task.sight.update(dict(steps=4, rounds=1, batch=8))
    config.task.scene.update(dict(position=0.04, angle=0.5, yaw=0.3, max_steps=150, back=0.05))


VARIANTS = {
    "quick": _quick,
    "table": lambda config: None,
    "below": _below,
    "chosen": _chosen,
    "pixels": _pixels,
    "pixels_quick": _pixels_quick,
    "pixels_below": _pixels_below,
    "pixels_sweep": _pixels_sweep,
    "debug": _debug,
    "debug_pixels": _debug_pixels,
}
