"""Gymnasium environments of a rollout: made by name, and stepped one seeded episode at a time."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax._packages import MissingError
from ambient_jax.rollout.video import Video

try:
    import gymnasium
except ImportError as error:
    raise MissingError(
        f"rollouts need the package gymnasium ({error}): pip install 'ambient_jax[rollout]'"
    ) from error

SUCCESS = ("is_success", "success")  # keys of an info, the first that an environment has
VECTORIZATIONS = ("sync", "async")


@dataclasses.dataclass(frozen=True)
class MakeEnv:
    """Makes the environment of a gymnasium id, such as "gym_pusht/PushT-v0"; can be pickled.

    ``module`` is imported first, to register the id ("module:id" does so too); ``kwargs`` go to the
    environment. Raises ValueError, by a call, if there is no such environment or it refuses them.
    """

    env: str
    module: str = ""
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    render_mode: str = ""

    def __call__(self) -> gymnasium.Env:
        if self.module:
            try:
                importlib.import_module(self.module)
            except ImportError as error:
                raise ValueError(
                    f"env_module is {self.module!r}, expected a module to import ({error})"
                ) from error
        kwargs = dict(self.kwargs)
        if self.render_mode:
            kwargs.setdefault("render_mode", self.render_mode)
        try:
            return gymnasium.make(self.env, disable_env_checker=True, **kwargs)
        except (gymnasium.error.Error, ImportError) as error:
            raise ValueError(
                f"env is {self.env!r}, expected an id that gymnasium knows, 'module:id', or "
                f"env_module= the module that registers it ({type(error).__name__}: {error})"
            ) from error
        except TypeError as error:
            raise ValueError(
                f"environment {self.env} does not take the arguments {kwargs} ({error})"
            ) from error

    def rendering(self) -> MakeEnv:
        """Returns the same with render_mode "rgb_array", for videos."""
        return dataclasses.replace(self, render_mode="rgb_array")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    ``flags`` are the values of success that the environment gave, by key (``SUCCESS`` or the key
    asked for): whether it was true at any step. ``infos`` are the numbers of its last info.
    """

    reward: float  # sum
    best_reward: float  # largest of a step
    length: int  # steps
    terminated: bool  # by the environment, not by a limit on the time
    outside: int  # steps whose action was outside of the action space
    flags: dict[str, bool]
    infos: dict[str, float]


class Held(gymnasium.Wrapper):
    """Environment number ``index`` of those that a vector environment steps together.

    ``reset`` with a seed begins an episode; without one everything stays as it is. After the
    episode's last step, whose info has its ``outcome``, it ignores actions and repeats its last
    observation, so that the vector environment never resets it and no step is counted that belongs
    to no episode. ``reset(options={"videos": {index: path}})`` writes the episode's video.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        index: int,
        success: str = "",
        clip: bool = False,
        max_steps: int | None = None,
    ):
        super().__init__(env)
        self._index, self._clip, self._limit = index, clip, max_steps or math.inf
        self._keys = (success,) if success else SUCCESS
        self._observation: Any = None
        self._over = True
        self._video: Video | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is None:
            return self._observation, {}
        path = (options or {}).get("videos", {}).get(self._index)
        self._observation, _ = self.env.reset(seed=seed)
        self._over, self._length, self._outside = False, 0, 0
        self._reward, self._best = 0.0, -math.inf
        self._flags: dict[str, bool] = {}
        hz = float(self.env.metadata.get("render_fps") or 10)
        self._video = Video(path, hz) if path else None
        self._film()
        return self._observation, {}

    def step(self, action: Any) -> Any:
        if self._over:
            return self._observation, 0.0, False, False, {}
        self._outside += not self.action_space.contains(action)
        if self._clip:
            action = np.clip(action, self.action_space.low, self.action_space.high)  # type: ignore[attr-defined]
        self._observation, reward, terminated, truncated, info = self.env.step(action)
        self._reward, self._best = self._reward + float(reward), max(self._best, float(reward))
        self._length += 1
        for key in self._keys:
            if key in info:
                self._flags[key] = self._flags.get(key, False) or _flag(key, info[key])
        self._film()
        if not terminated and not truncated and self._length < self._limit:
            return self._observation, float(reward), False, False, {}
        self._over = True
        if self._video:
            self._video.close()
        outcome = Outcome(
            reward=self._reward,
            best_reward=self._best,
            length=self._length,
            terminated=bool(terminated),
            outside=self._outside,
            flags=self._flags,
            infos=_numbers(info),
        )
        return self._observation, float(reward), False, False, {"outcome": outcome}

    def _film(self) -> None:
        if self._video:
            self._video.add(self.env.render())


def _flag(key: str, value: Any) -> bool:
    if np.size(value) != 1:
        raise ValueError(
            f"info[{key!r}] has shape {np.shape(value)}, expected one boolean: name another key "
            "of the info with success="
        )
    return bool(np.asarray(value).item())


def _numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """Returns the single numbers of an info."""
    numbers = {}
    for name, value in info.items():
        if isinstance(value, bool | int | float | np.number | np.bool_ | np.ndarray):
            if np.size(value) == 1 and np.asarray(value).dtype.kind in "biuf":
                numbers[str(name)] = float(np.asarray(value).item())
    return numbers


def vectorised(
    make_env: Callable[[], gymnasium.Env],
    count: int,
    vectorization: str = "sync",
    **options: Any,
) -> gymnasium.vector.VectorEnv:
    """Returns ``count`` environments in one vector environment, each of them ``Held``.

    Args:
      make_env: makes one; for "async" it must be picklable.
      count: N.
      vectorization: "sync" steps them one after another in this process, "async" each in a process
        of its own, which is faster where a step takes longer than a millisecond.
      **options: success, clip and max_steps of ``Held``.
    """
    _checks.one_of("vectorization", vectorization, VECTORIZATIONS)
    makers = [_Make(make_env, index, tuple(options.items())) for index in range(count)]
    if vectorization == "sync":
        return gymnasium.vector.SyncVectorEnv(makers)
    # JAX has threads, which a forked process would not have.
    return gymnasium.vector.AsyncVectorEnv(makers, context="spawn")


@dataclasses.dataclass(frozen=True)
class _Make:
    make_env: Callable[[], gymnasium.Env]
    index: int
    options: tuple[tuple[str, Any], ...]

    def __call__(self) -> Held:
        return Held(self.make_env(), self.index, **dict(self.options))
