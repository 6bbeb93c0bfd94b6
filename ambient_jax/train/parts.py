"""Builds the parts of a run from its config: data, law, schedule, model, optimizer, train step."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from ambient_jax import mixing, observations, optim, schedules
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import noise_first
from ambient_jax.models import pretrained
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.train import config as config_lib
from ambient_jax.train import layout as layouts
from ambient_jax.train import lora
from ambient_jax.train import state as state_lib
from ambient_jax.train import step as step_lib
from ambient_jax.train.config import build
from ambient_jax.transforms import augment


class Learner(NamedTuple):
    """A model and its training, without data. ``create`` makes the TrainState of step 0, of
    ``shapes``, from a key that all hosts share; ``train_step`` is that of one device."""

    create: Callable[[jax.Array], state_lib.TrainState]
    shapes: state_lib.TrainState
    train_step: Callable


class Parts(NamedTuple):
    """Data, mixing law and noise schedule of a config, and its learner's fields."""

    mixture: mixtures.Mixture
    law: mixing.Law
    schedule: schedules.Schedule
    create: Callable[[jax.Array], state_lib.TrainState]
    shapes: state_lib.TrainState
    train_step: Callable

    def describe(self, config: ml_collections.ConfigDict) -> str:
        """Returns one line about the run, for the log."""
        size = lora.sizes(self.shapes.ema_params)
        trained = ""
        if config.train.lora.rank:
            count = lora.sizes(self.shapes.params[lora.LORA])
            trained = f" ({count / 1e6:.2f}M trained, adapters of rank {config.train.lora.rank})"
        mixture = self.mixture
        sources = ", ".join(
            f"{n} ({'clean' if c else 'corrupt'}, {int(k)} chunks)"
            for n, c, k in zip(mixture.names, mixture.sources.clean, mixture.chunks, strict=True)
        )
        return (
            f"{config.name}: {config.model.name} of {size / 1e6:.2f}M parameters{trained}, "
            f"law {config.law.name}, {config.objective.loss} loss of "
            f"{config.objective.prediction}, batch {config.train.batch_size} on "
            f"{jax.device_count()} devices; sources: {sources}"
        )


def assemble(config: ml_collections.ConfigDict, layout: layouts.Layout | None) -> Parts:
    """Checks the config, opens its data and builds its parts, for one device without a layout. For
    errors see ``trainer.train``."""
    config = config_lib.check(config)
    schedule, law = build(schedules, config.schedule), build(mixing, config.law)
    if reason := mixtures.missing_delta(config.data):
        raise ValueError(reason)
    mixture = mixtures.open_mixture(config.data, law)
    shapes = mixture.observation_shapes, mixture.action_dim, len(mixture.names)
    return Parts(mixture, law, schedule, *make_learner(config, *shapes, layout))


def make_learner(
    config: ml_collections.ConfigDict,
    observation: Mapping[str, jax.ShapeDtypeStruct],
    action_dim: int,
    sources: int,
    layout: layouts.Layout | None,
) -> Learner:
    """Builds model, optimizer and step for shapes of one row, D and the number of sources. Computes
    nothing. Without a layout the step is that of one device."""
    objective = step_lib.Objective(**config.objective, schedule=build(schedules, config.schedule))
    augmentation = augment.Augmentation(**config.augmentation)
    model = build_denoiser(config.model, observation)
    optimizer = optim.make_optimizer(config.train)
    if section := pretrained.section_of(config.model):
        optimizer = optim.at_own_rate(optimizer, pretrained.NAME, section.get("tune", 0.0))

    def apply(params, *inputs):
        return model.apply({"params": params}, *inputs)

    options = {"ema_limit": config.train.ema, "accumulation": config.train.accumulation}
    options |= {"augmentation": augmentation, "axis_name": layout and layout.axis}
    options["prefix"] = model.prefix
    options["observation_noise"] = observation_noise(config, model.noised)
    adapters = lora.of(config.train)
    if adapters:
        lay = layout.lay if layout else lambda tree: tree
        options["merge"] = lambda base, trained: lay(adapters.merge(base, trained))
    lifted = layout.applied(apply) if layout else apply
    train_step = step_lib.make_train_step(objective, lifted, optimizer, **options)

    def create(key):
        rows = {n: jnp.zeros((1, *s.shape), s.dtype) for n, s in observation.items()}
        chunk = jnp.zeros((1, config.data.horizon, action_dim))
        variables = model.init(key, chunk, jnp.zeros(1), augmentation.evaluation(rows))
        params = variables["params"]
        trained = adapters and adapters.adapters(params, noise_first.stream_key(key, "adapters"))
        return state_lib.create(params, optimizer, sources, trained)

    return Learner(create, jax.eval_shape(create, jax.random.key(0)), train_step)


def observation_noise(
    config: ml_collections.ConfigDict, names: tuple[str, ...]
) -> observations.ObservationNoise | None:
    """Returns the noise of the observations ``names``, or None without a name."""
    if not names:
        return None
    sources = config.data.sources.values()
    minimum = tuple(observations.curve(s.get("observation_min", 0.0)) for s in sources)
    levels = observations.Levels(**config.observation_noise)
    return observations.ObservationNoise(names, levels, minimum)
