"""The config of a training run: every field with its default and meaning, and its check."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from ambient_jax import _checks, mixing, observations, optim, schedules
from ambient_jax.train import lora, weights_and_biases

# Sections whose fields depend on their name; the builder of each checks them.
_OPEN = ("law", "schedule", "model", "task")
# First seed of rollouts that choose a checkpoint. Those that judge it begin at 0; the experiments'
# demonstrations begin at 1 000 000, and their evaluations at 700 000.
CHOOSING_SEED = 500_000
RENAMED = {"data.lanes": "data.shards"}  # fields of older versions


def default() -> ml_collections.ConfigDict:
    """Returns a full config; experiments change some of its fields."""
    config = ml_collections.ConfigDict()
    config.name = "default"
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    config.data.root = ""  # folder that relative source paths start from
    config.data.sources = ml_collections.ConfigDict()  # name -> source(...)
    config.data.bounds = ""  # bounds file of corrupt sources without their own
    config.data.history = 2  # T: observations up to the present
    config.data.horizon = 16  # H: actions from the present on
    config.data.padding = "mask"  # actions past an episode's end: mask them, or "hold": stand still
    # For "hold": action dimensions that are displacements, zero when still; () if none is.
    config.data.delta = config_dict.placeholder(tuple)
    # Names under steps/observation; "is_clean" is the role of the source, and a policy asks for 1.
    config.data.observation = ("state",)
    config.data.action = "action"  # name under steps
    # bounds (min..max to -1..1), gaussian, quantiles (1 % .. 99 % to -1..1), none
    config.data.normalization = "bounds"
    config.data.normalize_per = "mixture"  # or per "source", or per "group" of sources
    # A range below this is noise and not stretched to -1..1; 0: stretch all. In units of the data.
    config.data.least_range = 1e-4
    # Lone glitches (data.normalizer): "leave_out" or "keep" in the maps. Training uses them anyway.
    config.data.outliers = "leave_out"
    config.data.placement = "device"  # device: all data in its memory; stream: from disk
    config.data.order = "noise_first"  # or data_first, with importance weights (device only)
    # When streaming:
    config.data.shuffle_window = 10_000  # steps of a source that are shuffled together
    # Limit on the memory of all windows of a shard in GiB; larger windows shrink.
    config.data.shuffle_memory = config_dict.placeholder(float)
    # Parts of the data; a run resumes on any number of hosts that divides it. None: one a host.
    config.data.shards = config_dict.placeholder(int)
    config.data.prefetch = 4  # batches
    # Processes of a host that assemble its batches; 1: this one. More need as many shards (or
    # sources) on the host.
    config.data.assemblers = 1

    # The common form of sources with open_x, see open_x.common_form.CommonForm.
    config.data.open_x = ml_collections.ConfigDict()
    config.data.open_x.hz = config_dict.placeholder(float)  # control rate; None: the source's
    config.data.open_x.rotation = "rpy"  # encoding in the action: rpy, rotvec, quat, rot6d
    config.data.open_x.cameras = ()  # some of primary, secondary, wrist
    config.data.open_x.image_size = (224, 224)  # height, width
    config.data.open_x.instruction_bytes = 0  # length of instructions as text; 0: none
    config.data.open_x.embeddings = ""  # .npz file of instruction embeddings, in place of bytes
    config.data.open_x.action_width = 7  # actions and states are padded to these, and masked
    config.data.open_x.state_width = 8  # 0: no states
    config.data.open_x.quality = ()  # labels in the batch
    config.data.open_x.workers = 1  # threads of a host that decode images
    config.data.open_x.on_problem = ml_collections.ConfigDict()
    for name in ("version", "rate", "shard", "episode", "image", "camera"):
        stops = name in ("version", "shard", "episode", "image")
        config.data.open_x.on_problem[name] = "raise" if stops else "keep"
    for name in ("instruction", "flag", "last_step"):
        config.data.open_x.on_problem[name] = "keep"

    # Augmentation of camera images on the device, see transforms.augment.Augmentation.
    config.augmentation = ml_collections.ConfigDict()
    config.augmentation.crop = config_dict.placeholder(tuple)  # (height, width)
    config.augmentation.resized_crop = config_dict.placeholder(float)  # least share of the area
    config.augmentation.brightness = 0.0
    config.augmentation.contrast = 0.0
    config.augmentation.saturation = 0.0
    config.augmentation.hue = 0.0

    # Law of the level of the observations' noise (observations.Levels), used if config.model
    # names observations as noised; observation_min of a source is its least level.
    config.observation_noise = ml_collections.ConfigDict({"clean": 0.5, "dropped": 0.0})

    config.law = ml_collections.ConfigDict({"name": "ambient"})  # mixing.LAWS and its options
    config.schedule = ml_collections.ConfigDict({"name": "vp"})  # schedules.SCHEDULES and options
    config.model = ml_collections.ConfigDict({"name": "unet"})  # models.denoiser and its sizes

    config.objective = ml_collections.ConfigDict()
    config.objective.loss = "denoising"  # or ambient (only x_min is used)
    config.objective.prediction = "eps"  # x0, eps, v, velocity
    config.objective.weighting = "unit"  # weighting of the ambient loss: unit, buffered
    config.objective.buffer = 4.0

    config.train = ml_collections.ConfigDict()
    config.train.steps = 20_000
    # Allows a workdir's run more steps than it began with, see train.runs.
    config.train.extend = False
    config.train.batch_size = 128  # over all devices of all hosts
    config.train.accumulation = 1  # micro-batches per update
    # Splits parameters, their average and moments over all devices, see train.layout.
    config.train.fsdp = False
    config.train.learning_rate = 1e-3
    config.train.warmup = 500  # steps
    config.train.weight_decay = 1e-6
    config.train.b1 = 0.95
    config.train.b2 = 0.999
    config.train.clip_norm = 1.0
    config.train.ema = 0.999  # largest decay
    config.train.log_every = 100  # steps
    config.train.checkpoint_every = 1000  # steps
    config.train.keep = 2  # newest checkpoints
    config.train.keep_every = config_dict.placeholder(int)  # also keep multiples of this step
    # Fine-tuning: workdir, checkpoint, policy folder or hf://user/name of the first (EMA)
    # parameters, where name and shape agree.
    config.train.init_from = ""
    # Maps to unit size: those of that checkpoint, "base", or of the new "data".
    config.train.init_maps = "base"
    # Low-rank adapters of the base (train.lora), which alone are trained. Rank 0: all parameters.
    config.train.lora = ml_collections.ConfigDict({"rank": 0, "alpha": 16.0})
    # Patterns of parameters, such as "backbone/attention_*/kernel": adapted kernels, (): those of
    # the denoiser; and what is trained whole, such as "backbone/out/*".
    config.train.lora.update({"kernels": (), "whole": ()})
    config.train.wandb = ""  # project on Weights & Biases that also gets the metrics
    # Recorded chunks that pictures of samples show at each checkpoint (train.pictures); 0: none.
    config.train.pictures = 0
    # Their split, such as "val" or "train[90%:]"; "": the training's.
    config.train.pictures_split = ""

    # Rollouts at each checkpoint (rollout.training), of which the best becomes the best checkpoint.
    # The fields are flags of python -m ambient_jax.rollout; env "": none.
    names = ("env", "env_kwargs", "observation", "success")
    config.rollouts = ml_collections.ConfigDict(dict.fromkeys(names, ""))
    config.rollouts.update({"episodes": 10, "seed": CHOOSING_SEED})

    config.policy = ml_collections.ConfigDict()
    config.policy.solver = "ddim"  # ddpm, ddim, heun
    config.policy.steps = 20
    config.policy.clip = config_dict.placeholder(float)  # bound on normalised x0_hat; None = none
    config.policy.execute = 8  # actions run before planning again

    # The task of an experiment: builds absent data, evaluates at the end.
    config.task = ml_collections.ConfigDict({"name": ""})
    return config


def source(
    path: str,
    role: str,
    *,
    split: str = "train",
    weight: float = 1.0,
    sigma_min: float = 0.0,
    sigma_max: float | None = None,
    bounds: str = "",
    open_x: str | Mapping[str, Any] = "",
    last_step: str = "",
    format: str = "",
    group: str = "",
    observation_min: float | tuple[tuple[float, float], ...] = 0.0,
) -> ml_collections.ConfigDict:
    """Returns the section of a source of data.

    Args:
      path: its folder, in RLDS or another format (``data.storage``).
      role: "clean" or "corrupt".
      split: such as "train[:90%]".
      weight: multiplies its number of chunks.
      sigma_min, sigma_max: bounds of all its steps.
      bounds: file with the bounds of every step, instead.
      open_x: its conversion to the common form: a registry row or a spec (``open_x.spec``).
      last_step: the action of a step with ``is_last``: "drop" for a filler, as RLDS defines it (the
        default for RLDS); "keep" for a real action, as many converters store it.
      group: its robot and control mode, such as "franka, joints": sources of one group share the
        maps to unit size if ``data.normalize_per`` is "group".
      observation_min: least level of the observations' noise at which its steps are used, or pairs
        (sigma, level), see ``observations``; needs ``config.model.noised``.
      format: "rlds" for fields as they are stored, whatever format the folder has (the default),
        "open_x" for the common form (the default with open_x), or ``package.module:Class`` of a
        ``data.source.Format``.
    """
    fields = {"path": path, "split": split, "role": role, "weight": weight, "sigma_min": sigma_min}
    fields |= {"sigma_max": config_dict.placeholder(float), "bounds": bounds}
    fields |= {"last_step": last_step, "format": format}
    section = ml_collections.ConfigDict(fields)
    if group:
        section.group = group
    if observation_min:
        section.observation_min = observation_min
    section.sigma_max = sigma_max
    section.open_x = open_x if isinstance(open_x, str) else ml_collections.ConfigDict(open_x)
    return section


class Checked(ml_collections.FrozenConfigDict):
    """A frozen config that ``check`` accepted."""


def check(config: ml_collections.ConfigDict) -> Checked:
    """Returns a frozen copy of a valid config, or raises ValueError; each part checks its section.
    Reads no data and uses no devices."""
    if isinstance(config, Checked):
        return config
    # Imported here, as writing a config needs neither readers of data nor networks.
    from ambient_jax.data import mixture as mixtures
    from ambient_jax.models.denoiser import build_denoiser
    from ambient_jax.train import pictures, step
    from ambient_jax.transforms import augment

    _check_section("config", config, default())
    _check_name(config.name)
    _checks.number("config.seed", config.seed, 0, 2**32 - 1, whole=True)
    _check_train(config.train)
    optim.check(config.train)
    pictures.check(config)
    _checks.one_of("config.train.init_maps", config.train.init_maps, ("base", "data"))
    with _section("config.data: "):
        shapes = mixtures.check(config.data)
    for name, module in (("law", mixing), ("schedule", schedules)):
        with _section(f"config.{name}: "):
            if ":" not in config[name].name:  # all options of built-in ones are numbers
                _check_numbers(name, config[name])
            schedule = build(module, config[name])
    with _section("config.objective."):
        step.Objective(**config.objective, schedule=schedule)
    with _section("config.observation_noise."):
        observations.Levels(**config.observation_noise)
    with _section("config.augmentation: "):
        augmentation = augment.Augmentation(**config.augmentation)
        if config.data.open_x.cameras:
            augmentation.check_size(config.data.open_x.image_size)
    with _section("config.model: "):
        model = build_denoiser(config.model, shapes)
    if model.prefix >= config.data.horizon:
        raise ValueError(
            f"config.model.prefix is {model.prefix}, expected fewer known actions than the "
            f"{config.data.horizon} of a chunk (config.data.horizon)"
        )
    for name, source in config.data.sources.items():
        if source.get("observation_min") and not model.noised:
            raise ValueError(
                f"config.data.sources.{name}.observation_min is {source.observation_min}, but no "
                "observation is noised: set config.model.noised to their names, such as ('state',)"
            )
    policy = config.policy
    with _section("config.policy."):
        _checks.solver_options(policy.solver, policy.steps, policy.clip)
        _checks.number("execute", policy.execute, 1, whole=True)
    if policy.execute > config.data.horizon:
        raise ValueError(
            f"config.policy.execute is {policy.execute}, expected at most the "
            f"{config.data.horizon} actions of a chunk (config.data.horizon)"
        )
    return Checked(config)


def build(module: Any, section: ml_collections.ConfigDict) -> Any:
    """Builds a schedule or a law from its config section, ``{"name": ..., **options}``."""
    options = section.to_dict()
    return module.get(options.pop("name"), **options)


@contextlib.contextmanager
def _section(prefix):
    """Adds the section of the config to the error of a part."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        message = message if message.startswith("config.") else f"{prefix}{message}"
        raise ValueError(message) from error


def _check_name(name):
    if not name or name != name.strip() or name in (".", "..") or set(name) & set("/\\\0\n\r"):
        raise ValueError(
            f"config.name is {name!r}, expected a plain name of a folder, without / and spaces "
            "around it; --workdir says where the folder is"
        )


def _check_train(train):
    for name in ("steps", "batch_size", "accumulation", "log_every", "checkpoint_every", "keep"):
        _checks.number(f"config.train.{name}", train[name], 1, 2**31 - 1, whole=True)
    every, keep_every = train.checkpoint_every, train.keep_every
    if keep_every is not None and (keep_every < 1 or keep_every % every):
        raise ValueError(
            f"config.train.keep_every is {keep_every}, expected a multiple of "
            f"checkpoint_every, {every}: only those steps are saved"
        )
    if train.batch_size % train.accumulation:
        raise ValueError(
            f"config.train.accumulation is {train.accumulation}, expected a divisor of batch_size, "
            f"{train.batch_size}: it is the number of parts of a batch"
        )
    weights_and_biases.check(train.wandb)
    lora.of(train)


def _check_numbers(name, section):
    """All options of laws and schedules are numbers, or tuples of them."""
    for option, value in section.items():
        if option != "name" and value is not None:
            for number in value if isinstance(value, tuple | list) else (value,):
                _checks.number(f"config.{name}.{option}", number)


def _check_section(path, section, expected):
    for name in section:
        if name not in expected:
            if new := RENAMED.get(f"{path}.{name}".removeprefix("config.")):
                raise ValueError(f"{path}.{name} has a new name: set config.{new}")
            raise ValueError(
                f"{path}.{name} is no field of a training run, expected one of "
                f"{', '.join(sorted(expected))}{_checks.nearest(name, expected)}"
            )
    for name, value in expected.items():
        if name not in section:
            raise ValueError(
                f"{path}.{name} is missing: start from ambient_jax.train.config.default()"
            )
        field = section[name]
        if isinstance(value, ml_collections.ConfigDict):
            if not isinstance(field, ml_collections.ConfigDict):
                raise ValueError(f"{path}.{name} is {field!r}, expected a section of fields")
            if name not in (*_OPEN, "sources"):
                _check_section(f"{path}.{name}", field, value)
            elif name in _OPEN and "name" not in field:
                raise ValueError(f"{path}.{name}.name is missing: it says which {name} to use")
            elif name in _OPEN and not isinstance(field.name, str):
                raise ValueError(f"{path}.{name}.name is {field.name!r}, expected a name (str)")
        elif value is not None or field is not None:
            _check_type(f"{path}.{name}", field, expected.get_type(name), value)


def _check_type(path, value, expected, default):
    example = "" if default is None else f" such as {default!r}"
    fits = isinstance(value, (expected, int) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):  # a bool is an int
        hint = f"; one name is ({value!r},)" if expected is tuple and isinstance(value, str) else ""
        raise ValueError(
            f"{path} is {value!r} ({type(value).__name__}), expected {expected.__name__}{example}"
            f"{hint}"
        )
    if expected is float and math.isnan(value):
        raise ValueError(f"{path} is nan, expected a number{example}")


def foreign(
    config: ml_collections.ConfigDict, expected: Mapping | None = None, prefix: str = ""
) -> list[str]:
    """Returns dotted names of fields that are not ``expected`` (default: ``default()``). It skips
    sections with other checks (sources, model, law, ...)."""
    names, expected = [], default() if expected is None else expected
    for name, value in config.items():
        if name not in expected:
            names += [f"{prefix}{name}"] if f"{prefix}{name}" not in RENAMED else []
        elif isinstance(value, ml_collections.ConfigDict) and name not in (*_OPEN, "sources"):
            names += foreign(value, expected[name], f"{prefix}{name}.")
    return names
