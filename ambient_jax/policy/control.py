"""Runs a policy in closed loop: keeps the histories of N environments and plans periodically."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ambient_jax.transforms.steps import INSTRUCTION

Array = jax.Array
Observation = Mapping[str, Any]


class Histories:
    """The last ``policy.history`` observations of N environments; N is that of the first call."""

    def __init__(self, policy: Any):
        self._policy = policy
        self.values: dict[str, np.ndarray] = {}  # {name: [N, T, d]}, oldest first
        self.fresh = np.zeros(0, bool)  # [N] nothing was observed since the reset

    def observe(self, observation: Observation) -> None:
        """Adds the newest observation {name: [N, d]}, in data units. An episode's first observation
        fills its whole history, as in training."""
        newest = self._policy.check(observation, ())
        count = len(next(iter(newest.values())))
        if not self.values:
            self.fresh = np.ones(count, bool)
            self.values = {name: self._filled(name, v) for name, v in newest.items()}
        elif count != len(self.fresh):
            raise ValueError(
                f"observations of {count} environments came, expected {len(self.fresh)} as "
                "before: use another controller, or reset() all first"
            )
        elif newest.keys() != self.values.keys():
            raise ValueError(
                f"the observation has {', '.join(newest)}, expected the names of the step before: "
                f"{', '.join(self.values)}; reset() all to change them"
            )
        for name, value in newest.items():
            filled = self._filled(name, value)
            if name == INSTRUCTION:
                self.values[name] = filled
                continue
            moved = np.concatenate([self.values[name][:, 1:], value[:, None]], axis=1)
            fresh = self.fresh.reshape(-1, *(1,) * (moved.ndim - 1))
            self.values[name] = np.where(fresh, filled, moved)
        self.fresh[:] = False

    def _filled(self, name, value):
        if name == INSTRUCTION:
            return value
        return np.repeat(value[:, None], self._policy.history, axis=1)

    def check(self, before: str) -> None:
        """Raises ValueError if an environment was not observed since its reset."""
        if not self.values or self.fresh.any():
            where = f" in environment {int(np.argmax(self.fresh))}" if self.values else ""
            raise ValueError(
                f"nothing was observed{where} since the reset: observe() before {before}"
            )

    def reset(self, mask: Any = None) -> np.ndarray:
        """Clears the histories where ``mask`` [N] is True and returns the mask. None clears all;
        their number may then change."""
        if mask is None:
            mask = np.ones(len(self.fresh), bool)
            self.values, self.fresh = {}, np.zeros(0, bool)
            return mask
        mask = np.asarray(mask)
        if mask.dtype != bool or (self.values and mask.shape != self.fresh.shape):
            raise ValueError(
                f"mask is {mask.dtype} {mask.shape}, expected bool ({len(self.fresh)},)"
            )
        if self.values:
            self.fresh |= mask
        return mask


class RecedingHorizon:
    """Runs a policy in N environments: plans H actions and returns the first ``execute``.

    ``policy`` is a ``Policy``, or has its ``check``, ``history``, ``horizon`` and call. Observe
    every environment step, so that the history has the spacing of the training data, and plan after
    every ``execute`` (at most H) steps:

        >>> actions = control(first, key)            # observe and plan
        >>> for k in range(control.execute):
        >>>     control.observe(env.step(actions[:, k]))
        >>> actions = control.plan(next_key)

    ``chunks.Control`` returns one action a step, also where a chunk comes late.
    """

    def __init__(self, policy: Any, execute: int = 8):
        if not 1 <= execute <= policy.horizon:
            raise ValueError(
                f"execute is {execute}, expected 1 to {policy.horizon}, the actions of a chunk"
            )
        self.policy, self.execute = policy, execute
        self._histories = Histories(policy)

    def observe(self, observation: Observation) -> None:
        """Adds the newest observation {name: [N, d]}, in data units, to the histories. An episode's
        first observation fills its whole history, as in training."""
        self._histories.observe(observation)

    def plan(self, key: Array) -> np.ndarray:
        """Returns the next actions [N, execute, D] of every environment, in data units. ``key``
        must be new for every plan; environment i uses ``fold_in(key, i)``."""
        self._histories.check("plan()")
        return np.asarray(self.policy(self._histories.values, key))[:, : self.execute]

    def __call__(self, observation: Observation, key: Array) -> np.ndarray:
        """Calls ``observe``, then ``plan``."""
        self.observe(observation)
        return self.plan(key)

    def reset(self, mask: Any = None) -> None:
        """Clears the history of environments where ``mask`` [N] is True. None clears all of them;
        their number may then change."""
        self._histories.reset(mask)
