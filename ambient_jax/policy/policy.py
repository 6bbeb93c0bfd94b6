"""A trained network as a policy: observations in data units to action chunks in data units.

>>> policy = Policy.from_checkpoint("runs/maze/ambient")
>>> chunk = policy({"state": state, "goal": goal}, jax.random.key(0))     # [B, T, d] to [B, H, D]
>>> control = RecedingHorizon(policy, execute=8)                          # N environments
>>> actions = control({"state": now, "goal": goal}, jax.random.key(1))    # [N, d] to [N, 8, D]
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks, schedules, targets
from ambient_jax.policy import solvers
from ambient_jax.policy.control import RecedingHorizon as RecedingHorizon
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import ACTION

Array = jax.Array
Observation = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """Draws action chunks for observation histories; compiled once for each batch size.

    The linen module ``model`` is called as ``model(x_t [B, H, D], sigma [B], {name: [B, T, d]})``,
    with x_t in variance-preserving scale and observations normalised.
    """

    model: Any
    params: Any
    chain: Chain  # of one source (``Chain.for_source``), or a ``Normalizer`` that becomes a chain
    horizon: int  # H, actions in a chunk
    history: int  # T, observations up to the present
    schedule: schedules.Schedule = schedules.vp()
    prediction: str = "eps"
    solver: str = "ddim"  # this and the rest: see ``solvers.solve``
    steps: int = 20
    clip: float | None = None
    eta: float = 0.0

    def __post_init__(self):
        _checks.solver_options(self.solver, self.steps, self.clip, self.eta)
        if isinstance(self.chain, Normalizer):
            object.__setattr__(self, "chain", Chain(self.chain))
        if self.chain.sources:
            raise ValueError(
                f"the normalizer has a map for each of {', '.join(self.chain.sources)}, a "
                "policy needs one: normalizer.for_source(name), or from_checkpoint(source=name)"
            )

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], *, source: str | None = None, **options: Any
    ) -> Policy:
        """The policy of a finished checkpoint, with its moving-average parameters.

        Args:
          path: workdir, its checkpoints folder or one step's folder.
          source: whose statistics normalise, where each source has its own; default: the clean one.
          **options: solver, steps, clip or eta, in place of the config's.

        Raises:
          FileNotFoundError: no finished checkpoint at the path.
          ValueError: an unknown source or option, or a checkpoint that is damaged.
        """
        from ambient_jax.models.denoiser import build_denoiser  # a policy made by hand needs
        from ambient_jax.train import checkpoint  # neither Flax nor Orbax

        for name in options:
            _checks.one_of("policy option", name, ("solver", "steps", "clip", "eta"))
        directory, step = checkpoint.find(path)
        folder = directory / str(step)
        assets = checkpoint.load_policy_assets(folder)
        config, file = assets["config"], folder / "assets" / "metadata"
        with named(file):
            check_config(config, file)
            chain = _chain(assets)
        if source is not None:
            _checks.one_of("source", source, config.data.sources)
        if chain.sources:
            source = source or _clean_source(config, path)
        with named(file):
            chain = chain.for_source(source)
            schedule = config.schedule.to_dict()
            policy = cls(
                model=build_denoiser(config.model, chain.inputs(config.data.history)),
                params=assets["params"],
                chain=chain,
                horizon=config.data.horizon,
                history=config.data.history,
                schedule=schedules.get(schedule.pop("name"), **schedule),
                prediction=config.objective.prediction,
                **{option: config.policy.get(option) for option in ("solver", "steps", "clip")},
            )
            expected = policy.parameter_shapes()
        checkpoint.check_shapes(assets["params"], expected, folder)
        return dataclasses.replace(policy, **options)

    @property
    def normalizer(self) -> Normalizer:
        """The chain's normaliser."""
        return self.chain.normalizer

    @property
    def dims(self) -> dict[str, int]:
        """Numbers a step of each observation, by name."""
        return self.chain.dims

    def parameter_shapes(self) -> Any:
        """Shapes of the parameters that the model has for these observations; nothing is run."""

        def create(key, chunk):
            shapes = self.chain.inputs(self.history)
            rows = {n: jnp.zeros((1, *s.shape), s.dtype) for n, s in shapes.items()}
            rows = self.chain.observe(rows, ready=tuple(self.dims))
            return self.model.init(key, chunk, jnp.zeros(1), rows)["params"]

        chunk = jax.ShapeDtypeStruct((1, self.horizon, self.chain.action_dim), jnp.float32)
        return jax.eval_shape(create, jax.random.key(0), chunk)

    def __call__(self, observation: Observation, key: Array) -> Array:
        """Draws action chunks [B, H, D] in data units, one for each observation history.

        Missing, unknown, misshapen or not finite observations raise a ValueError that names them.

        Args:
          observation: {name: [B, T, d]}, oldest first, data units. In the common form also
            "image_<camera>" uint8 [B, T, h, w, 3] of any size (``frames.resize`` brings it to the
            training's), where a camera may be missing in some rows ("..._mask" [B, T]) or in all
            (left out), and "instruction": B texts ("" for none), one for all, or encoded arrays;
            a state may have the robot's own width.
          key: PRNG key of either type, or a seed, from which row i takes ``fold_in(key, i)``, or
            [B] keys of the rows. A row's chunk depends on its own observation and key alone.
        """
        checked = self.check(observation, (self.history,))
        batch = len(next(iter(checked.values())))
        key = _checks.key(key)
        if key.ndim == 0:
            key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
        elif key.shape != (batch,):
            raise ValueError(
                f"key has {key.size} keys, expected one, or one for each of {batch} rows"
            )
        for name in self.chain.wide:
            normalised = self.normalizer.normalize(f"observation/{name}", checked[name])
            checked[name] = np.asarray(normalised)
        return self._jitted(self.params, checked, key)

    def check(self, observation: Observation, between: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The observations as arrays [B, *between, ...], see ``__call__`` and ``Chain.check``."""
        return self.chain.check(observation, between)

    def chunk(
        self, params: Any, observation: Observation, keys: Array, ready: tuple[str, ...] = ()
    ) -> Array:
        """``__call__`` as a pure function without checks, for use in other jitted code; ``ready``
        names the observations that are normalised already."""
        fields = ("solver", "steps", "schedule", "prediction", "clip", "eta")
        options = {name: getattr(self, name) for name in fields}
        denoise = self.denoiser(params, observation, ready)
        shape = (self.horizon, self.chain.action_dim)
        actions = solvers.solve(denoise, keys, shape, mask=self.action_mask, **options)
        return self.chain.act(actions)

    @property
    def action_mask(self) -> Array | None:
        """[D] bool, dimensions of the action that the robot has; None for all."""
        mask = self.chain.action_mask
        return None if mask is None else jnp.asarray(mask)

    def normalised(self, action: np.ndarray) -> np.ndarray:
        """Recorded actions [..., D] as training has them; 0 where the robot lacks a dimension."""
        action = np.asarray(action)
        action = action if action.dtype == np.float64 else action.astype(np.float32)
        return self.chain.normalise({ACTION: action})[ACTION]

    def denoiser(
        self, params: Any, observation: Observation, ready: tuple[str, ...] = ()
    ) -> Callable[[Array, Array], Array]:
        """``denoise(x_t, sigma)`` of ``solvers.solve``, see ``chunk``."""
        inputs = self.chain.observe(observation, ready)
        variables, decode = {"params": params}, self.model.apply
        if hasattr(self.model, "encode"):  # images are looked at once, not at every step
            inputs = self.model.apply(variables, inputs, method="encode")
            decode = functools.partial(self.model.apply, method="decode")

        def denoise(x_t, sigma):
            sigma = jnp.broadcast_to(sigma, len(x_t)).astype(x_t.dtype)
            return decode(variables, x_t, sigma, inputs)

        return denoise

    @functools.cached_property
    def _jitted(self):
        return jax.jit(functools.partial(self.chunk, ready=self.chain.wide))


def _clean_source(config, path):
    clean = [name for name, s in config.data.sources.items() if s.role == "clean"]
    if len(clean) != 1:
        raise ValueError(
            f"checkpoint {path} normalises each source by itself and has {len(clean)} clean ones: "
            f"give source=, one of {', '.join(config.data.sources)}"
        )
    return clean[0]


_SECTION = ml_collections.ConfigDict
_NEEDED = {
    **{"data.horizon": int, "data.history": int, "data.sources": _SECTION},
    **{"objective.prediction": str, "schedule.name": str, "model.name": str},
    **{"policy.solver": str, "policy.steps": int},
}


@contextlib.contextmanager
def named(file: str | os.PathLike) -> Iterator[None]:
    """Makes an error about a checkpoint's content a ValueError of one line that names its file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(
            f"{file} makes no policy: {text[:300]}; take another step's checkpoint, or the version "
            "that wrote it"
        ) from error


def check_config(config: ml_collections.ConfigDict, file: str | os.PathLike) -> None:
    """Checks a policy's fields of a checkpoint's config (ValueError); warns of unknown fields."""
    from ambient_jax.train import config as config_lib

    for name, expected in _NEEDED.items():
        value: Any = config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, _SECTION) else None
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ValueError(f"its config has {name} = {value!r}, expected {expected.__name__}")
        if expected is int and value < 1:
            raise ValueError(f"its config has {name} = {value}, expected at least 1")
    _checks.one_of("objective.prediction", config.objective.prediction, targets.PREDICTIONS)
    if foreign := config_lib.foreign(config):
        logging.warning(
            "%s has fields that this version does not know, which the policy goes without: %s",
            *(file, ", ".join(foreign)),
        )


def _chain(assets):
    """The chain of a checkpoint, which has the config's action and observations."""
    config, chain = assets["config"], Chain.from_json(assets["statistics"])
    names = ["action"]
    if assets.get("masks"):  # of versions that kept the steps of a chain in the config alone
        from ambient_jax.data import mixture  # needs the data extra

        masks = {
            name: {"action": own["action"], "observation/state": own["state"]}
            for name, own in assets["masks"].items()
        }
        chain = mixture.chain_of(config.data, chain.normalizer, masks)
        chain = chain.cropped(config.augmentation.get("crop"))
    elif not chain.steps:
        names += [f"observation/{name}" for name in config.data.get("observation", ())]
    for name in names:
        if name not in chain.normalizer.shift:
            raise ValueError(f"its statistics have no {name!r}")
    return chain
