"""Variants of PushT.

    python -m experiments.pusht --config=experiments/pusht/config.py:quick

quick     clean only, co-training and a short sweep of sigma_min, one training seed
table     clean only, co-training and the sweep, three training seeds
images    clean only, co-training and ambient with images, one training seed
debug     the code of all groups on a few demonstrations and steps
"""

import ml_collections

from ambient_jax.train import config as train_config
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _table)


def _table(config):
    config.data.root = "runs/data/pusht"
    config.data.sources.steady = train_config.source(
        "pusht_steady", "clean", split="train[:50]", last_step="keep"
    )
    config.data.sources.shaky = train_config.source("pusht_shaky", "corrupt", last_step="keep")
    table_config.tabletop(config)
    encoder = {"name": "experiments.pusht.network:MotionEncoder", "frequencies": 2}
    network = {"name": "experiments.pusht.network:Residual", "width": 256, "blocks": 3}
    config.model = ml_collections.ConfigDict({**network, "encoder": encoder})
    config.data.observation = ("relative",)
    config.train.update(dict(steps=4000, checkpoint_every=500, warmup=200, learning_rate=1e-3))
    config.policy.steps, config.policy.execute = 10, 4
    config.task = ml_collections.ConfigDict(
        {
            "name": "pusht",
            # Demonstrations; policies with fewer name a split of their source.
            "steady": 100,
            "shaky": 1000,
            "held_out": 20,  # of each
            "data_seed": 0,
            "tremor": 12.0,  # of the shaky hand, px
            "content": 0.9,  # coverage at which the shaky hand leaves the T
            "max_steps": 300,  # time limit of rollouts: the benchmark's
            "episodes": 200,  # rollouts of a policy
            "eval_seed": 0,
            "fresh": 200,  # more rollouts of the policies picked as best, from other starts
            "seeds": (0, 1, 2),
            "sigma_min": (0.1, 0.2, 0.4),
            "alpha": (0.5,),
            # For the group images; share and level are those of its mixtures.
            "image": {
                "shaky": 300,
                "steps": 2000,
                "alpha": 0.5,
                "sigma_min": 0.2,
                "encoder": {"widths": (16, 32, 32), "width": 256, "depth": 2},
            },
            "groups": ("main",),  # see policies
            # Groups and policies that are trained with the first seed only.
            "one_seed": ("shaky", "images"),
            **table_config.PROCESSES,
        }
    )


def _quick(config):
    config.data.root = "runs/data/pusht_quick"
    config.task.update(dict(shaky=300, seeds=(0,), sigma_min=(0.2, 0.4)))


def _images(config):
    config.task.update(dict(seeds=(0,), groups=("images",)))


def _debug(config):
    config.data.root = "runs/data/pusht_debug"
    config.data.sources.steady.split = "train[:3]"
    config.model.update(dict(width=16, blocks=1))
    config.train.update(dict(steps=40, batch_size=32, warmup=5, log_every=20, checkpoint_every=20))
    config.policy.steps = 4
    config.task.update(dict(steady=4, shaky=5, held_out=1, episodes=4, fresh=4, max_steps=40))
    config.task.update(dict(seeds=(0, 1), sigma_min=(0.4,)))
    config.task.groups = ("main", "weighted", "shaky", "images")
    config.task.image.update(dict(shaky=4, steps=40, sigma_min=0.4))
    config.task.image.encoder.update(dict(widths=(4, 4, 4), width=16, depth=1))


VARIANTS = {
    "quick": _quick,
    "table": lambda config: None,
    "images": _images,
    "debug": _debug,
}
