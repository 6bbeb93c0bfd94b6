"""Variants of the general trainer.

    python -m experiments.open_x --config=experiments/open_x/config.py:demo

demo             maze: 100 plans of a convex planner (clean) and 5000 of RRT (corrupt), ambient
                 diffusion
demo_debug       the same on a few plans and steps, in under a minute
rtx, magic_soup, magic_soup_plus, wide
                 mixtures of 11, 25, 27 and 50 Open-X data sets, images and instructions; give
                 --config.data.root, where each lies in a folder of its TFDS name
debug            all 75 data sets of the registry, as small fixtures that the run makes
inputs           rendered tabletops whose actions need the image and the instruction: is each used?
                 Loss against the least that either alone allows; ten minutes on one core
rlds             a template for your own RLDS folders: set data.root and data.sources

Options follow the name, as in magic_soup,size=large,clean=bridge_dataset+bc_z:

size=            small, base (default) or large, see SIZES
clean=           names, joined by +, of the mixture's data sets that are to be learned as they are;
                 the others are corrupt: choose their sigma_min by data.bounds (a file that
                 experiments.annotate makes), each one's own field, or sigma_min=
sigma_min=       of corrupt data sets, until something better is known (0.2)
"""

import ml_collections

from ambient_jax import _checks
from ambient_jax.cli import config_file
from ambient_jax.train import config as train_config


def get_config(variant: str = "demo") -> ml_collections.ConfigDict:
    """The configuration of a variant; raises ValueError for an unknown one."""
    name, options = config_file.choose(variant, VARIANTS, _OPTIONS)
    config = train_config.default()
    config.name = variant.replace(",", "_").replace("=", "-")
    VARIANTS[name](config, **options)
    return config


def _demo(config):
    config.data.root = "runs/data/maze"
    config.data.sources.gcs = train_config.source("maze_gcs", "clean", last_step="keep")
    config.data.sources.rrt = train_config.source(
        "maze_rrt", "corrupt", sigma_min=0.1, last_step="keep"
    )
    config.data.observation = ("state", "goal")
    config.data.padding = "hold"  # actions are positions: at the goal the robot stays
    config.data.delta = ()
    config.model = ml_collections.ConfigDict(
        {"name": "unet", "features": (32, 64, 128), "blocks": 1}
    )
    # Its clock puts more samples near sigma = 1, where the choice of a route is made.
    config.schedule.name = "cosine"
    config.train.steps = 10_000
    config.train.batch_size = 128
    config.objective.prediction = "v"
    config.policy.solver = "ddpm"  # at 50 steps each, smoother than ddim, as successful
    config.policy.steps = 50
    config.task = ml_collections.ConfigDict(
        {
            "name": "maze",
            "clean": 100,  # plans of the convex planner
            "corrupt": 5000,  # plans of RRT
            "data_seed": 0,
            "goals": 200,  # rollouts of the evaluation
            "eval_seed": 1,
        }
    )


def _demo_debug(config):
    _demo(config)
    config.data.root = "runs/data/maze_debug"
    config.model.features = (8, 16)
    config.train.steps = 60
    config.train.warmup = 10
    config.train.log_every = 20
    config.train.checkpoint_every = 30
    config.task.clean, config.task.corrupt, config.task.goals = 4, 40, 8
    config.policy.steps = 5


def _rlds(config):
    config.train.batch_size = 256


SIZES = {
    # U-Net features, ResNet widths, instruction width, condition width
    "debug": ((8, 16), (8, 8), 16, 16),
    "small": ((64, 128, 256), (32, 64, 128, 256), 64, 256),
    "base": ((128, 256, 512), (64, 128, 256, 512), 128, 512),
    "large": ((256, 512, 1024), (64, 128, 256, 512), 256, 1024),
}


def _open_x(config, size):
    """What all mixtures have in common: cameras, instructions, proprioception, and a model."""
    _checks.one_of("size", size, SIZES)
    data, form = config.data, config.data.open_x
    data.placement = "stream"
    data.shuffle_memory = 8.0
    data.normalization = "gaussian"
    data.normalize_per = "source"
    form.hz = 5.0
    form.cameras = ("primary", "wrist")
    form.instruction_bytes = 128
    config.augmentation.resized_crop = 0.8
    config.augmentation.brightness = config.augmentation.contrast = 0.1
    config.augmentation.saturation = 0.1
    config.augmentation.hue = 0.03
    features, widths, language, width = SIZES[size]
    dtype = "float32" if size == "debug" else "bfloat16"
    config.model = ml_collections.ConfigDict({"name": "unet", "features": features, "dtype": dtype})
    config.model.encoder = {
        "name": "multimodal",
        "width": width,
        "vision": {"widths": widths, "group_size": min(16, widths[0])},
        "language": {"width": language},
    }
    config.objective.prediction = "v"
    config.train.steps = 300_000
    config.train.batch_size = 256
    config.train.learning_rate = 3e-4
    config.train.warmup = 2000
    config.train.ema = 0.9999
    config.train.checkpoint_every = 5000
    config.train.keep_every = 50_000


def _mixture(name):
    def variant(config, size="base", clean="", sigma_min="0.2"):
        # The readers of data sets stay out of a config that has none of them.
        from ambient_jax.open_x import registry

        _open_x(config, size)
        if name == "wide":
            config.data.open_x.action_width = 8
        clean = [n for n in clean.split("+") if n]
        _add(config, registry.mixture(name), clean, sigma_min)

    return variant


def _add(config, weights, clean, sigma_min):
    from ambient_jax.open_x import registry

    try:
        sigma_min = float(sigma_min)
    except ValueError:
        raise ValueError(f"sigma_min= is {sigma_min!r}, expected a noise level in [0, 1]") from None
    for name in clean:
        _checks.one_of("clean", name, weights)
    for name, weight in weights.items():
        path = registry.get(name).tfds or name
        corrupt = clean and name not in clean
        bounds = dict(sigma_min=sigma_min) if corrupt else {}
        role = "corrupt" if corrupt else "clean"
        config.data.sources[name] = train_config.source(
            path, role, weight=weight, open_x=name, **bounds
        )


def _debug(config, size="debug", clean="bridge_orig", sigma_min="0.2"):
    from ambient_jax.open_x import fixtures, registry

    _open_x(config, size)
    config.data.root = "runs/data/open_x_fixtures"
    config.data.shuffle_memory = 0.25
    config.data.history, config.data.horizon = 1, 4
    form = config.data.open_x
    form.action_width, form.state_width = 16, 14
    form.cameras = ("primary", "secondary", "wrist")
    form.image_size = (32, 32)
    form.quality = ("success",)
    _add(config, dict.fromkeys(registry.data_sets(), 1.0), clean.split("+"), sigma_min)
    for name, source in config.data.sources.items():
        source.path, source.last_step = fixtures.folder(name), "keep"
    config.train.steps = 100
    config.train.batch_size = 128
    config.train.warmup = 10
    config.train.log_every = 10
    config.train.checkpoint_every = 50
    config.train.keep_every = None
    config.policy.steps, config.policy.execute = 5, 4
    config.task = ml_collections.ConfigDict({"name": "open_x_fixtures"})


def _inputs(config):
    from experiments.open_x import scene

    _open_x(config, "debug")
    data, form = config.data, config.data.open_x
    data.root = "runs/data/inputs"
    data.shuffle_memory = 0.5
    data.normalize_per = "mixture"
    data.history, data.horizon = 1, 4
    form.hz = scene.HZ
    form.cameras = ("primary",)
    form.image_size = (scene.PIXELS, scene.PIXELS)
    form.instruction_bytes = 32
    form.state_width = 2
    # The corrupt arm shakes; at sigma_min that is a quarter of the noise.
    data.sources.steady = train_config.source(
        "inputs_steady/1.0.0", "clean", open_x=scene.SPEC, last_step="keep"
    )
    data.sources.shaky = train_config.source(
        "inputs_shaky/1.0.0", "corrupt", sigma_min=0.5, open_x=scene.SPEC, last_step="keep"
    )
    # Colours are what the instruction speaks of, and a crop would move what the actions go to.
    config.augmentation.resized_crop = None
    config.augmentation.saturation = config.augmentation.hue = 0.0
    config.schedule.name = "cosine"  # near sigma = 1 the object is chosen
    config.model.features = (32, 64)
    config.model.blocks = 1
    config.model.encoder.width = 256
    config.model.encoder.vision = {"widths": (16,), "group_size": 8, "keypoints": 16}
    config.model.encoder.language = {"width": 32, "depth": 1}
    config.train.steps = 8000
    config.train.batch_size = 64
    config.train.learning_rate = 2e-3
    config.train.warmup = 200
    config.train.ema = 0.999
    config.train.checkpoint_every = config.train.keep_every = 1000
    config.policy.execute = 4
    config.task = ml_collections.ConfigDict(
        {
            "name": "open_x_inputs",
            "clean": 3000,  # episodes
            "corrupt": 9000,
            "val": 500,  # held out, clean
            "jitter": 0.002,  # of the corrupt arm's displacements, m
            "data_seed": 0,
            "eval_seed": 1,
        }
    )


_MIXTURES = ("rtx", "magic_soup", "magic_soup_plus", "wide")
_OPTIONS = dict.fromkeys((*_MIXTURES, "debug"), ("size", "clean", "sigma_min"))
VARIANTS = {
    "demo": _demo,
    "demo_debug": _demo_debug,
    **{name: _mixture(name) for name in _MIXTURES},
    "debug": _debug,
    "inputs": _inputs,
    "rlds": _rlds,
}
