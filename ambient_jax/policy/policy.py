"""A trained network as a policy: observations in data units to action chunks in data units.

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
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks, schedules
from ambient_jax.data.normalizer import Normalizer
from ambient_jax.policy import solvers

if TYPE_CHECKING:  # it needs the readers of data sets, which a plain policy does not
    from ambient_jax.policy.form import FormOfSource

Array = jax.Array
Observation = Mapping[str, Any]
_PREFIX = "observation/"
_WITHOUT_HISTORY = ("instruction",)


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """Draws action chunks for observation histories; compiled once for each batch size.

    Attributes:
      model: linen module called as ``model(x_t [B, H, D], sigma [B], {name: [B, T, d]})``, with x_t
        in variance-preserving scale and observations normalised.
      params: its parameters.
      normalizer: of "action" and of each "observation/<name>"; one map (see ``for_source``).
      horizon: H, actions in a chunk.
      history: T, observations up to the present.
      schedule, prediction: as in training.
      solver, steps, clip, eta: see ``solvers.solve``.
      form: what policies of the common form (``data.open_x``) see and do beyond that; None else.
    """

    model: Any
    params: Any
    normalizer: Normalizer
    horizon: int
    history: int
    schedule: schedules.Schedule = schedules.vp()
    prediction: str = "eps"
    solver: str = "ddim"
    steps: int = 20
    clip: float | None = None
    eta: float = 0.0
    form: FormOfSource | None = None

    def __post_init__(self):
        _checks.solver_options(self.solver, self.steps, self.clip, self.eta)
        if self.normalizer.sources:
            raise ValueError(
                f"the normalizer has a map for each of {', '.join(self.normalizer.sources)}, a "
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
          ValueError: an unknown source or option, no default for the source, or a checkpoint that
            is damaged or makes no policy.
        """
        from ambient_jax.models.denoiser import build_denoiser  # a policy made by hand needs
        from ambient_jax.policy import stored  # neither Flax nor Orbax
        from ambient_jax.train import checkpoint

        for name in options:
            _checks.one_of("policy option", name, ("solver", "steps", "clip", "eta"))
        directory, step = checkpoint.find(path)
        assets = checkpoint.load_policy_assets(directory / str(step))
        config, form = assets["config"], None
        file = directory / str(step) / "assets" / "metadata"
        with stored.named(file):
            stored.check(config, file)
            normalizer = stored.normalizer(assets["statistics"], config)
        if source is not None:
            _checks.one_of("source", source, config.data.sources)
        if normalizer.sources or assets.get("masks"):
            source = source or _clean_source(config, path)
        with stored.named(file):
            normalizer = normalizer.for_source(source)
            if assets.get("masks"):
                from ambient_jax.policy.form import form_of_source

                form = form_of_source(config, assets["masks"][source])
            schedule = config.schedule.to_dict()
            solver = {k: config.policy.get(k) for k in ("solver", "steps", "clip")}
            policy = cls(
                model=build_denoiser(config.model, form.shapes if form else None),
                params=assets["params"],
                normalizer=normalizer,
                horizon=config.data.horizon,
                history=config.data.history,
                schedule=schedules.get(schedule.pop("name"), **schedule),
                prediction=config.objective.prediction,
                form=form,
                **solver,
            )
            expected = policy.parameter_shapes()
        checkpoint.check_shapes(assets["params"], expected, directory / str(step))
        return dataclasses.replace(policy, **options)

    @functools.cached_property
    def dims(self) -> dict[str, int]:
        """Numbers a step of each observation, by name."""
        return {
            name.removeprefix(_PREFIX): shift.shape[-1]
            for name, shift in self.normalizer.shift.items()
            if name.startswith(_PREFIX)
        }

    def parameter_shapes(self) -> Any:
        """Shapes of the parameters that the model has for these observations; nothing is run."""

        def create(key, chunk):
            rows = {n: jnp.zeros((1, self.history, d)) for n, d in self.dims.items()}
            if self.form:
                more = {n: jnp.zeros((1, *s.shape), s.dtype) for n, s in self.form.shapes.items()}
                rows = self.form.augmentation.evaluation(more | rows)
            return self.model.init(key, chunk, jnp.zeros(1), rows)["params"]

        width = self.normalizer.shift["action"].shape[-1]
        chunk = jax.ShapeDtypeStruct((1, self.horizon, width), jnp.float32)
        return jax.eval_shape(create, jax.random.key(0), chunk)

    def __call__(self, observation: Observation, key: Array) -> Array:
        """Draws one action chunk for each observation history.

        Args:
          observation: {name: [B, T, d]}, oldest first, data units. In the common form also
            "image_<camera>" uint8 [B, T, h, w, 3] of any size (``data.images.resize`` brings it to
            the training's), where a camera may be missing in some rows (its "_mask" [B, T]) or in
            all (left out), and "instruction", B texts ("" for none), one for all, or as the encoder
            takes them; a state may have the robot's own width.
          key: PRNG key of either kind, or a seed, from which row i takes ``fold_in(key, i)``, or
            [B] keys of the rows. A row's chunk depends on its own observation and key, not on the
            rows beside it.

        Returns:
          Actions [B, H, D], data units.

        Raises:
          ValueError: missing, unknown or misshapen observations, or one that is not finite, which
            the message names with its row.
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
        for name in self._wide:
            checked[name] = self.normalizer.normalize(_PREFIX + name, checked[name])
        return self._jitted(self.params, checked, key)

    def check(self, observation: Observation, between: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The observations as float32 of shape [B, *between, d] each; see ``__call__``.

        Those whose range is small beside their values stay float64.
        """
        form = self.form
        known = (*self.dims, *(form.shapes if form else ()))
        for name in observation:
            _checks.one_of("observation", name, known)
        checked, batch = {}, None
        for name, d in self.dims.items():
            if name not in observation:
                raise ValueError(
                    f"observation {name!r} is missing, expected {', '.join(known)}; came "
                    f"{', '.join(observation) or 'nothing'}"
                )
            dtype = np.float64 if name in self._wide else np.float32
            value = np.asarray(observation[name], dtype)
            value = form.widened(name, value, d) if form else value
            batch = value.shape[:1] if batch is None else batch
            if value.ndim != len(between) + 2 or value.shape != (*batch, *between, d):
                want = ", ".join(map(str, (*(batch or ("B",)), *between, d)))
                raise ValueError(f"observation {name!r} has shape {value.shape}, expected ({want})")
            bad = ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
            if bad.any():
                raise ValueError(
                    f"observation {name!r} of environment {int(np.argmax(bad))} is not finite "
                    f"({int(bad.sum())} of {len(value)} environments): "
                    f"{value[np.argmax(bad)].tolist()}"
                )
            checked[name] = value
        return form.check(observation, checked, between) if form else checked

    @functools.cached_property
    def _wide(self) -> tuple[str, ...]:
        """Observations that float32 cannot hold before the shift is taken away."""
        shift = {name: self.normalizer.shift[_PREFIX + name] for name in self.dims}
        return tuple(n for n, v in shift.items() if (v != v.astype(np.float32)).any())

    def chunk(
        self, params: Any, observation: Observation, keys: Array, ready: tuple[str, ...] = ()
    ) -> Array:
        """``__call__`` as a pure function, without checks: for use inside other jitted code.

        ``ready`` names the observations that are normalised already.
        """
        actions = solvers.solve(
            self.denoiser(params, observation, ready),
            keys,
            (self.horizon, self.normalizer.shift["action"].shape[-1]),
            solver=self.solver,
            steps=self.steps,
            schedule=self.schedule,
            prediction=self.prediction,
            clip=self.clip,
            mask=self.form and jnp.asarray(self.form.dims),
            eta=self.eta,
        )
        actions = self.normalizer.unnormalize("action", actions)
        return jnp.where(self.form.dims, actions, 0) if self.form else actions

    def normalised(self, action: np.ndarray) -> np.ndarray:
        """Recorded actions [..., D] in data units as training has them: 0 where the robot has no
        such dimension."""
        action = np.asarray(action)
        wide = action.dtype == np.float64
        unit = self.normalizer.normalize("action", action if wide else action.astype(np.float32))
        unit = unit.astype(np.float32)
        return np.where(self.form.dims, unit, np.float32(0)) if self.form else unit

    def denoiser(
        self, params: Any, observation: Observation, ready: tuple[str, ...] = ()
    ) -> Callable[[Array, Array], Array]:
        """``denoise(x_t, sigma)`` of ``solvers.solve`` for observations in data units, but for
        those that are normalised already (``ready``)."""
        raw = set(self.dims) - set(ready)
        normalised = {
            name: self.normalizer.normalize(_PREFIX + name, value) if name in raw else value
            for name, value in observation.items()
        }
        if self.form and "state" in normalised:  # 0 where the robot has none, as in training
            there = jnp.asarray(normalised["state_mask"]) > 0
            normalised["state"] = jnp.where(there, normalised["state"], 0)
        if self.form:
            normalised = self.form.augmentation.evaluation(normalised)
        variables, decode = {"params": params}, self.model.apply
        if hasattr(self.model, "encode"):  # images are looked at once, not at every step
            normalised = self.model.apply(variables, normalised, method="encode")
            decode = functools.partial(self.model.apply, method="decode")

        def denoise(x_t, sigma):
            sigma = jnp.broadcast_to(sigma, len(x_t)).astype(x_t.dtype)
            return decode(variables, x_t, sigma, normalised)

        return denoise

    @functools.cached_property
    def _jitted(self):
        return jax.jit(functools.partial(self.chunk, ready=self._wide))


def _clean_source(config, path):
    clean = [name for name, s in config.data.sources.items() if s.role == "clean"]
    if len(clean) != 1:
        raise ValueError(
            f"checkpoint {path} normalises each source by itself and has {len(clean)} clean ones: "
            f"give source=, one of {', '.join(config.data.sources)}"
        )
    return clean[0]


class RecedingHorizon:
    """Runs a policy in N environments: keeps their histories, plans H actions, hands out a few.

    Give it every observation (``observe``, one environment step at a time), so that the history has
    the spacing of the training data, and a plan after every ``execute`` steps:

        >>> actions = control(first, key)            # observe and plan
        >>> for k in range(control.execute):
        >>>     control.observe(env.step(actions[:, k]))
        >>> actions = control.plan(next_key)

    Args:
      policy: a ``Policy``, or anything with its ``check``, ``history``, ``horizon`` and call.
      execute: actions of each chunk that are run before planning again, at most H.
    """

    def __init__(self, policy: Policy, execute: int = 8):
        if not 1 <= execute <= policy.horizon:
            raise ValueError(
                f"execute is {execute}, expected 1 to {policy.horizon}, the actions of a chunk"
            )
        self.policy, self.execute = policy, execute
        self._history: dict[str, np.ndarray] = {}
        self._fresh = np.zeros(0, bool)

    def observe(self, observation: Observation) -> None:
        """Takes in the newest observation {name: [N, d]}, data units.

        The first one of an episode fills its whole history, as in training.

        Raises:
          ValueError: as ``Policy.__call__``, or another number of environments than before.
        """
        newest = self.policy.check(observation, ())
        count = len(next(iter(newest.values())))
        if not self._history:
            self._fresh = np.ones(count, bool)
            self._history = {name: self._filled(name, v) for name, v in newest.items()}
        elif count != len(self._fresh):
            raise ValueError(
                f"observations of {count} environments came, expected {len(self._fresh)} as "
                "before: use another RecedingHorizon, or reset() all first"
            )
        for name, value in newest.items():
            filled = self._filled(name, value)
            if name in _WITHOUT_HISTORY:
                self._history[name] = filled
                continue
            moved = np.concatenate([self._history[name][:, 1:], value[:, None]], axis=1)
            fresh = self._fresh.reshape(-1, *(1,) * (moved.ndim - 1))
            self._history[name] = np.where(fresh, filled, moved)
        self._fresh[:] = False

    def _filled(self, name, value):
        if name in _WITHOUT_HISTORY:
            return value
        return np.repeat(value[:, None], self.policy.history, axis=1)

    def plan(self, key: Array) -> np.ndarray:
        """The next actions [N, execute, D] of every environment, data units.

        Args:
          key: a new key for every plan; environment i takes ``fold_in(key, i)``.

        Raises:
          ValueError: when an environment has no observation since it was reset.
        """
        if not self._history or self._fresh.any():
            where = f" in environment {int(np.argmax(self._fresh))}" if self._history else ""
            raise ValueError(
                f"nothing was observed{where} since the reset: observe() before plan()"
            )
        return np.asarray(self.policy(self._history, key))[:, : self.execute]

    def __call__(self, observation: Observation, key: Array) -> np.ndarray:
        """``observe``, then ``plan``."""
        self.observe(observation)
        return self.plan(key)

    def reset(self, mask: Any = None) -> None:
        """Forgets the history of environments where ``mask`` [N] is True; None = of all.

        After ``reset()`` the number of environments may change.
        """
        if mask is None:
            self._history, self._fresh = {}, np.zeros(0, bool)
            return
        mask = np.asarray(mask)
        if mask.dtype != bool or (self._history and mask.shape != self._fresh.shape):
            raise ValueError(
                f"mask is {mask.dtype} {mask.shape}, expected bool ({len(self._fresh)},)"
            )
        if self._history:
            self._fresh |= mask
