"""What the configs of the tables share."""

from collections.abc import Callable, Mapping

import ml_collections

from ambient_jax.cli import config_file
from ambient_jax.train import config as train_config

Change = Callable[[ml_collections.ConfigDict], None]
# The last fields of ``config.task``.
PROCESSES = {
    "together": 0,  # policies in one program: 0 is 4 on CPU, all on an accelerator
    "report_only": False,  # train nothing: write the report of what is there
    "workers": 0,  # processes: 0 is one for each CPU core, or one for an accelerator
}


def variant(name: str, variants: Mapping[str, Change], table: Change) -> ml_collections.ConfigDict:
    """Returns the default config, changed by ``table`` and then by the variant of this name.

    Raises:
      ValueError: an unknown name.
    """
    name, _ = config_file.choose(name, variants)
    config = train_config.default()
    config.name = name
    table(config)
    variants[name](config)
    return config


def tabletop(config: ml_collections.ConfigDict) -> None:
    """Sets data, network and training of policies that see a tabletop's state."""
    config.data.observation = ("state",)
    config.data.padding = "hold"  # actions are positions: at the end the robot stays
    config.data.delta = ()
    config.model = ml_collections.ConfigDict(
        {
            "name": "unet",
            "features": (32, 64, 128),
            "blocks": 1,
            # Waves would tell 50 demonstrations apart by where single objects lie.
            "encoder": {"frequencies": 0, "width": 256, "depth": 2},
        }
    )
    config.schedule.name = "cosine"
    config.objective.prediction = "v"
    config.train.steps = 4000
    config.train.learning_rate = 2e-3
    config.train.checkpoint_every = 500
    config.policy.solver, config.policy.steps = "ddim", 16


def tiny(config: ml_collections.ConfigDict, steps: int) -> None:
    """Sets a small network, a short training and a solver of ``steps`` steps."""
    config.model.update({"features": (8, 16), "groups": 2})
    config.train.update(dict(steps=40, warmup=5, log_every=20, checkpoint_every=20))
    config.train.batch_size = 32
    config.policy.steps = steps
