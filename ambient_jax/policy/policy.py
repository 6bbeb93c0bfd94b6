"""A policy maps observations in data units to action chunks in data units with a trained network.

>>> policy = Policy.from_checkpoint("runs/maze/ambient")
>>> chunk = policy({"state": state, "goal": goal}, jax.random.key(0))     # [B, T, d] to [B, H, D]
>>> control = RecedingHorizon(policy, execute=8)                          # N environments
>>> actions = control({"state": now, "goal": goal}, jax.random.key(1))    # [N, d] to [N, 8, D]
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks, schedules
from ambient_jax.models import prefix as prefixes
from ambient_jax.policy import checkpoint, solvers
from ambient_jax.policy import inpainting as inpainting_lib
from ambient_jax.policy.control import RecedingHorizon as RecedingHorizon
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import ACTION

Array = jax.Array
Observation = Mapping[str, Any]
_OPTIONS = ("solver", "steps", "clip", "eta", "inpainting")  # which training does not settle


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """Draws action chunks for observation histories; compiles once for each batch size.

    It calls the linen module ``model`` as ``model(x_t [B, H, D], sigma [B], {name: [B, T, d]})``,
    with x_t in variance-preserving scale and normalised observations.
    """

    model: Any
    params: Any
    chain: Chain  # of one source (``Chain.for_source``), or a ``Normalizer`` that becomes a chain
    horizon: int  # H, actions in a chunk
    history: int  # T, observations up to the present
    schedule: schedules.Schedule = schedules.vp()
    prediction: str = "eps"
    solver: str = "ddim"  # this and the next three: see ``solvers.solve``
    steps: int = 20
    clip: float | None = None
    eta: float = 0.0
    # Of known actions; None: "trained" if the model has a ``prefix``, or else "guidance".
    inpainting: inpainting_lib.Inpainting | None = None

    def __post_init__(self):
        _checks.solver_options(self.solver, self.steps, self.clip, self.eta)
        if not isinstance(self.inpainting, inpainting_lib.Inpainting | None):
            raise ValueError(
                f"inpainting is {self.inpainting!r}, expected policy.inpainting.Inpainting(method)"
            )
        if self.how.method == "trained" and not getattr(self.model, "prefix", 0):
            raise ValueError(
                "inpainting is 'trained', but the model saw no known actions in training: expected "
                "another method, or a model trained with config.model.prefix above 0"
            )
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
        """Loads the policy of a finished checkpoint, with its moving-average parameters.

        Args:
          path: workdir, its checkpoints folder or one step's folder; or a policy folder, which
            needs neither Orbax nor the data, also as "hf://user/name" or "hf://user/name@revision".
          source: source whose statistics normalise, if each has its own; default: the clean one.
          **options: solver, steps, clip or eta, in place of the config's, and inpainting.

        Raises:
          FileNotFoundError: there is no finished checkpoint at the path.
          OSError: the hub does not answer, or refuses.
          ValueError: the source or an option is unknown, or the checkpoint is damaged.
        """
        from ambient_jax.models.denoiser import build_denoiser  # only here, so that the class
        from ambient_jax.train import loading  # itself needs neither Flax nor Orbax

        for name in options:
            _checks.one_of("policy option", name, _OPTIONS)
        assets = loading.load(path)
        config, file = assets["config"], assets["file"]
        with checkpoint.named(file):
            checkpoint.check_config(config, file)
            chain = checkpoint.chain(assets)
        if source is not None:
            _checks.one_of("source", source, config.data.sources)
        if chain.sources:
            source = source or checkpoint.clean_source(config, path)
        with checkpoint.named(file):
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
        loading.check_shapes(assets, expected)
        return dataclasses.replace(policy, **options)

    def with_params(self, params: Any) -> Policy:
        """Returns the policy with other parameters, such as those of another step's checkpoint. The
        two share what is compiled."""
        other = dataclasses.replace(self, params=params)
        vars(other)["_jitted"] = self._jitted  # of the parameters it uses their shapes only
        return other

    @property
    def normalizer(self) -> Normalizer:
        """Returns the chain's normaliser."""
        return self.chain.normalizer

    @property
    def dims(self) -> dict[str, int]:
        """Returns the width of each observation, by name."""
        return self.chain.dims

    def parameter_shapes(self) -> Any:
        """Returns the shapes of the model's parameters for these observations; runs nothing."""

        def create(key, chunk):
            shapes = self.chain.inputs(self.history)
            rows = {n: jnp.zeros((1, *s.shape), s.dtype) for n, s in shapes.items()}
            rows = self.chain.observe(rows, ready=tuple(self.dims))
            return self.model.init(key, chunk, jnp.zeros(1), rows)["params"]

        chunk = jax.ShapeDtypeStruct((1, self.horizon, self.chain.action_dim), jnp.float32)
        return jax.eval_shape(create, jax.random.key(0), chunk)

    def __call__(
        self, observation: Observation, key: Array, *, known: Any = None, weights: Any = None
    ) -> Array:
        """Draws action chunks [B, H, D] in data units, one for each observation history.

        Missing, unknown, misshapen or not finite observations raise a ValueError that names them.

        Args:
          observation: {name: [B, T, d]}, oldest first, data units. The common form also has
            "image_<camera>" uint8 [B, T, h, w, 3] of any size (``frames.resize`` resizes it as in
            training) and "instruction": B texts ("" for none), one text for all, or encoded arrays.
            A camera may be missing in some rows ("..._mask" [B, T]) or in all (omit it). A state
            may have the robot's width.
          key: PRNG key of either type, or a seed, from which row i uses ``fold_in(key, i)``, or
            [B] keys of the rows. A row's chunk depends only on its observation and key.
          known: actions [B, H, D] in data units with which the chunks agree as far as ``weights``
            [B, H] in [0, 1] say: those of weight 1 are returned as they are, those of weight 0 are
            not used, see ``inpainting``. Calls with known actions share one compiled function.
        """
        checked = self.prepared(observation)
        batch = len(next(iter(checked.values())))
        key = _checks.row_keys(key, batch)
        shape = (batch, self.horizon, self.chain.action_dim)
        given = inpainting_lib.check(known, weights, shape, self.most_known)
        return self._jitted(self.params, checked, key, **given)

    def check(self, observation: Observation, between: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Returns observations as arrays [B, *between, ...]; see ``__call__``, ``Chain.check``."""
        return self.chain.check(observation, between)

    def prepared(self, observation: Observation) -> dict[str, np.ndarray]:
        """Returns checked observations [B, T, ...] for ``chunk`` and ``denoiser``. Those that are
        ``chain.wide`` are normalised, on the host as in training: give ``ready=chain.wide``."""
        checked = self.check(observation, (self.history,))
        for name in self.chain.wide:
            normalised = self.normalizer.normalize(f"observation/{name}", checked[name])
            checked[name] = np.asarray(normalised, np.float32)
        return checked

    def chunk(
        self,
        params: Any,
        observation: Observation,
        keys: Array,
        ready: tuple[str, ...] = (),
        *,
        known: Array | None = None,
        weights: Array | None = None,
    ) -> Array:
        """Draws chunks like ``__call__``, but is pure and has no checks, for other jitted code.
        ``ready`` names the observations that are already normalised."""
        fields = ("solver", "steps", "schedule", "prediction", "clip", "eta")
        options = {name: getattr(self, name) for name in fields}
        shape, mask = (self.horizon, self.chain.action_dim), self.action_mask
        if known is None or weights is None:
            denoise = self.denoiser(params, observation, ready)
            return self.chain.act(solvers.solve(denoise, keys, shape, mask=mask, **options))
        unit, how, seen = self.normalizer.normalize(ACTION, known), self.how, None
        if how.method == "trained":
            weights = (weights >= 1).astype(known.dtype)
            seen = prefixes.join(unit, weights > 0)
        denoise = self.denoiser(params, observation, ready, seen)
        weights = jnp.where(True if mask is None else mask, weights[..., None], 0.0)
        if how.method != "trained":
            denoise = inpainting_lib.guide(
                denoise, unit, weights, prediction=self.prediction, how=how
            )
        actions = self.chain.act(solvers.solve(denoise, keys, shape, mask=mask, **options))
        return weights * known + (1 - weights) * actions

    @property
    def how(self) -> inpainting_lib.Inpainting:
        """Returns how known actions enter a sample."""
        default = "trained" if getattr(self.model, "prefix", 0) else "guidance"
        return self.inpainting or inpainting_lib.Inpainting(default)

    @property
    def most_known(self) -> int:
        """Returns how many actions of a chunk may be known with weight 1."""
        return self.model.prefix if self.how.method == "trained" else self.horizon

    @property
    def action_mask(self) -> Array | None:
        """Returns which dimensions of the action the robot has, [D] bool; None for all."""
        mask = self.chain.action_mask
        return None if mask is None else jnp.asarray(mask)

    def normalised(self, action: np.ndarray) -> np.ndarray:
        """Normalises recorded actions [..., D] as training does; 0 where a dimension is missing."""
        action = np.asarray(action)
        action = action if action.dtype == np.float64 else action.astype(np.float32)
        return self.chain.normalise({ACTION: action})[ACTION]

    def denoiser(
        self,
        params: Any,
        observation: Observation,
        ready: tuple[str, ...] = (),
        known: Array | None = None,
    ) -> Callable[[Array, Array], Array]:
        """Returns ``denoise(x_t, sigma)`` for ``solvers.solve``; see ``chunk``. ``known``: what
        ``models.prefix.join`` returns, for a network trained with a prefix."""
        inputs = self.chain.observe(observation, ready)
        if known is not None:
            inputs = {**inputs, prefixes.KNOWN: known}
        variables, decode = {"params": params}, self.model.apply
        if hasattr(self.model, "encode"):  # encode images once, not at every step
            inputs = self.model.apply(variables, inputs, method="encode")
            decode = functools.partial(self.model.apply, method="decode")

        def denoise(x_t, sigma):
            sigma = jnp.broadcast_to(sigma, x_t.shape[0]).astype(x_t.dtype)
            return decode(variables, x_t, sigma, inputs)

        return denoise

    @functools.cached_property
    def _jitted(self):
        return jax.jit(functools.partial(self.chunk, ready=self.chain.wide))
