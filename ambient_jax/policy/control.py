"""Runs a policy in closed loop: keeps the histories of N environments and plans periodically."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ambient_jax.transforms.steps import INSTRUCTION

Array = jax.Array
Observation = Mapping[str, Any]


class RecedingHorizon:
    """Runs a policy in N environments: plans H actions and returns the first ``execute``.

    ``policy`` is a ``Policy``, or has its ``check``, ``history``, ``horizon`` and call. Observe
    every environment step, so that the history has the spacing of the training data, and plan after
    every ``execute`` (at most H) steps:

        >>> actions = control(first, key)            # observe and plan
        >>> for k in range(control.execute):
        >>>     control.observe(env.step(actions[:, k]))
        >>> actions = control.plan(next_key)
    """

    def __init__(self, policy: Any, execute: int = 8):
        if not 1 <= execute <= policy.horizon:
            raise ValueError(
                f"execute is {execute}, expected 1 to {policy.horizon}, the actions of a chunk"
            )
        self.policy, self.execute = policy, execute
        self._history: dict[str, np.ndarray] = {}
        self._fresh = np.zeros(0, bool)

    def observe(self, observation: Observation) -> None:
        """Adds the newest observation {name: [N, d]}, in data units, to the histories. An episode's
        first observation fills its whole history, as in training."""
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
            if name == INSTRUCTION:
                self._history[name] = filled
                continue
            moved = np.concatenate([self._history[name][:, 1:], value[:, None]], axis=1)
            fresh = self._fresh.reshape(-1, *(1,) * (moved.ndim - 1))
            self._history[name] = np.where(fresh, filled, moved)
        self._fresh[:] = False

    def _filled(self, name, value):
        if name == INSTRUCTION:
            return value
        return np.repeat(value[:, None], self.policy.history, axis=1)

    def plan(self, key: Array) -> np.ndarray:
        """Returns the next actions [N, execute, D] of every environment, in data units. ``key``
        must be new for every plan; environment i uses ``fold_in(key, i)``."""
        if not self._history or self._fresh.any():
            where = f" in environment {int(np.argmax(self._fresh))}" if self._history else ""
            raise ValueError(
                f"nothing was observed{where} since the reset: observe() before plan()"
            )
        return np.asarray(self.policy(self._history, key))[:, : self.execute]

    def __call__(self, observation: Observation, key: Array) -> np.ndarray:
        """Calls ``observe``, then ``plan``."""
        self.observe(observation)
        return self.plan(key)

    def reset(self, mask: Any = None) -> None:
        """Clears the history of environments where ``mask`` [N] is True. None clears all of them;
        their number may then change."""
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
