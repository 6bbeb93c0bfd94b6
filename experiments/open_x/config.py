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

size=            small, base (default), large or xl, see SIZES
clean=           names, joined by +, of the mixture's data sets that are to be learned as they are;
                 the others are corrupt: choose their sigma_min by data.bounds (a file that
                 experiments.annotate makes), each one's own field, or sigma_min=
sigma_min=       of corrupt data sets, until something better is known (0.2)
"""

import ml_collections

from ambient_jax import _checks
from ambient_jax.cli import config_file
from ambient_jax.train import config as train_config
from ambient_jax.train import mixtures


def get_config(variant: str = "demo") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
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
    config.model = ml_collections.ConfigDict(dict(name="unet", features=(32, 64, 128), blocks=1))
    # Its clock puts more samples near sigma = 1, where the choice of a route is made.
    config.schedule.name = "cosine"
    config.train.update(dict(steps=10_000, batch_size=128))
    config.objective.prediction = "v"
    config.policy.solver = "ddpm"  # at 50 steps each, smoother than ddim, as successful
    config.policy.steps = 50
    # Plans of the convex planner and of RRT; rollouts of the evaluation.
    task = dict(clean=100, corrupt=5000, data_seed=0, goals=200, eval_seed=1)
    config.task = ml_collections.ConfigDict({"name": "maze", **task})


def _demo_debug(config):
    _demo(config)
    config.data.root = "runs/data/maze_debug"
    config.model.features = (8, 16)
    config.train.update(dict(steps=60, warmup=10, log_every=20, checkpoint_every=30))
    config.task.update(dict(clean=4, corrupt=40, goals=8))
    config.policy.steps = 5


def _rlds(config):
    config.train.batch_size = 256


SIZES = {
    # U-Net features (or the transformer's sizes), ResNet widths, instruction and condition width
    "debug": ((8, 16), (8, 8), 16, 16),
    "small": ((64, 128, 256), (32, 64, 128, 256), 64, 256),
    "base": ((128, 256, 512), (64, 128, 256, 512), 128, 512),
    "large": ((256, 512, 1024), (64, 128, 256, 512), 256, 1024),
    "xl": (dict(width=1536, depth=24, heads=24), (64, 128, 256, 512), 256, 1024),
}


def _open_x(config, size):
    """Sets options of all mixtures: cameras, instructions, proprioception, and a model."""
    _checks.one_of("size", size, SIZES)
    data, form = config.data, config.data.open_x
    data.placement, data.shuffle_memory = "stream", 8.0
    data.normalization, data.normalize_per = "gaussian", "source"
    form.update(mixtures.FORM)
    colours = dict(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.03)
    config.augmentation.update(dict(resized_crop=0.8, **colours))
    sizes, widths, language, width = SIZES[size]
    dtype = "float32" if size == "debug" else "bfloat16"
    model = dict(name="unet", features=sizes) if isinstance(sizes, tuple) else None
    model = model or dict(name="transformer", **sizes)
    config.model = ml_collections.ConfigDict(model | {"dtype": dtype})
    config.train.fsdp = size == "xl"  # 1.0 billion parameters: 16 GB of state
    config.model.encoder = {
        "name": "multimodal",
        "width": width,
        "vision": {"widths": widths, "group_size": min(16, widths[0])},
        "language": {"width": language},
    }
    config.objective.prediction = "v"
    config.train.update(dict(steps=300_000, batch_size=256, learning_rate=3e-4, warmup=2000))
    config.train.update(dict(ema=0.9999, checkpoint_every=5000, keep_every=50_000))


def _mixture(name):
    def variant(config, size="base", clean="", sigma_min="0.2"):
        _open_x(config, size)
        clean = [n for n in clean.split("+") if n]
        mixtures.fill(config.data, name, clean, _level(sigma_min))

    return variant


def _level(sigma_min):
    try:
        return float(sigma_min)
    except ValueError:
        raise ValueError(f"sigma_min= is {sigma_min!r}, expected a noise level in [0, 1]") from None


def _debug(config, size="debug", clean="bridge_orig", sigma_min="0.2"):
    from ambient_jax.open_x import fixtures, registry

    _open_x(config, size)
    config.data.root = "runs/data/open_x_fixtures"
    config.data.update(dict(shuffle_memory=0.25, history=1, horizon=4))
    form = dict(action_width=16, state_width=14, image_size=(32, 32), quality=("success",))
    config.data.open_x.update(dict(cameras=("primary", "secondary", "wrist"), **form))
    everything = dict.fromkeys(registry.data_sets(), 1.0)
    mixtures.add(config.data, everything, clean.split("+"), _level(sigma_min))
    for name, source in config.data.sources.items():
        source.path, source.last_step = fixtures.folder(name), "keep"
    config.train.update(dict(steps=100, batch_size=128, warmup=10, log_every=10))
    config.train.update(dict(checkpoint_every=50, keep_every=None))
    config.policy.steps, config.policy.execute = 5, 4
    config.task = ml_collections.ConfigDict({"name": "open_x_fixtures"})


def _inputs(config):
    from experiments.open_x import scene

    _open_x(config, "debug")
    data, form = config.data, config.data.open_x
    data.root, data.normalize_per = "runs/data/inputs", "mixture"
    data.update(dict(shuffle_memory=0.5, history=1, horizon=4))
    form.update(dict(hz=scene.HZ, cameras=("primary",), image_size=(scene.PIXELS,) * 2))
    form.update(dict(instruction_bytes=32, state_width=2))
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
    config.model.features, config.model.blocks, config.model.encoder.width = (32, 64), 1, 256
    config.model.encoder.vision = {"widths": (16,), "group_size": 8, "keypoints": 16}
    config.model.encoder.language = {"width": 32, "depth": 1}
    config.train.update(dict(steps=8000, batch_size=64, learning_rate=2e-3, warmup=200))
    config.train.update(dict(ema=0.999, checkpoint_every=1000, keep_every=1000))
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
