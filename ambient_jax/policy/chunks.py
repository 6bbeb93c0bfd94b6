"""One action a step from chunks that come late: what to execute, and what the next chunk knows.

>>> control = Control(policy, RealTime(), execute=8, delay=4)             # N environments
>>> for step in range(200):
>>>     control.observe(observation)                                      # {name: [N, d]}
>>>     actions = control.act(jax.random.fold_in(key, step))              # [N, D], data units
>>>     observation = env.step(actions)

A chunk is begun every ``execute`` steps from the newest observation and arrives ``delay`` steps
later; until then the old chunk's remaining actions are executed. An episode's first chunk arrives
at once, as a robot waits for it. The strategies differ in what they do with chunks:

=============  ==================================================================================
``Receding``   executes the newest chunk, from the action of the present step on
``Ensemble``   averages all chunks that have an action for the present step (ACT, Zhao et al. 2023,
               https://arxiv.org/abs/2304.13705); needs ``execute`` well below H to have several
``RealTime``   samples the new chunk such that it continues the old one (real-time chunking, Black
               et al. 2025, https://arxiv.org/abs/2506.07339), see ``inpainting``
=============  ==================================================================================

Actions must mean the same in whichever chunk they are: positions or each step's own displacement,
not displacements from the chunk's first observation.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax.policy.control import Histories, Observation


@dataclasses.dataclass(frozen=True)
class Receding:
    """Executes the newest chunk that has arrived.

    ``aligned``: skips the actions of the steps for which it came too late. If not, it starts with
    the chunk's first action, ``delay`` steps late.
    """

    aligned: bool = True


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Averages chunks by weights exp(-rate i), i = 0 for the oldest."""

    rate: float = 0.01

    def __post_init__(self):
        _checks.number("rate", self.rate, 0, below=True)


@dataclasses.dataclass(frozen=True)
class RealTime:
    """Executes the newest chunk, which is sampled with the old chunk's remaining actions as known.

    The policy's call takes ``known`` and ``weights``. ``soft``: the actions after the delay are
    known with decaying weight; if not, only those that will have been executed are known.
    """

    soft: bool = True


Strategy = Receding | Ensemble | RealTime
STRATEGIES: dict[str, type] = {"receding": Receding, "ensemble": Ensemble, "real_time": RealTime}


def mask(horizon: int, frozen: int, known: int) -> np.ndarray:
    """Returns weights [horizon] of known actions: 1 for the first ``frozen``, then decaying up to
    the ``known``-th, then 0 (equation 5 of real-time chunking)."""
    i = np.arange(horizon)
    c = np.clip((known - i) / (known - frozen + 1), 0, 1)
    return np.where(i < frozen, 1, c * np.expm1(c) / np.expm1(1)).astype(np.float32)


def remaining(
    chunk: np.ndarray, passed: int, frozen: int, soft: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the actions [N, H, D] of a chunk from ``passed`` on, and weights [N, H] of a mask.

    The last action fills up, with weight 0. At most as many are frozen as there are.
    """
    count, horizon = chunk.shape[:2]
    left = max(horizon - passed, 0)
    index = np.minimum(np.arange(horizon) + passed, horizon - 1)
    frozen = min(frozen, left)
    weights = mask(horizon, frozen, left if soft else frozen)
    return chunk[:, index], np.tile(weights, (count, 1))


class Control:
    """Runs a policy in N environments with a simulated inference delay, see the module.

    ``policy`` is a ``Policy``, or has its ``check``, ``history``, ``horizon`` and call; without
    ``most_known`` all actions may be known. Deterministic: environment i's actions depend on its
    own observations, the keys and i only.

    Args:
      policy: of which action chunks are drawn.
      strategy: what is done with chunks.
      execute: steps from one chunk's beginning to the next one's.
      delay: steps until a chunk arrives; with ``execute`` at most H. Only ``Ensemble`` can begin a
        chunk before the last one has arrived (``delay`` > ``execute``).

    Raises:
      ValueError: for other numbers.
    """

    def __init__(
        self,
        policy: Any,
        strategy: Strategy = Receding(),  # noqa: B008
        *,
        execute: int = 8,
        delay: int = 0,
    ):
        horizon = policy.horizon
        _checks.number("execute", execute, 1, horizon, whole=True)
        most = horizon - execute
        most = most if isinstance(strategy, Ensemble) else min(execute, most)
        if not 0 <= delay <= most:
            raise ValueError(
                f"delay is {delay} with execute {execute}, expected 0 to {most}: the old chunk of "
                f"{horizon} actions lasts for execute + delay steps, and the next is begun after "
                "the last has arrived"
            )
        known = getattr(policy, "most_known", horizon)
        if isinstance(strategy, RealTime) and delay > known:
            raise ValueError(
                f"delay is {delay} with RealTime, expected at most {known}, the known actions that "
                "the model saw in training (config.model.prefix)"
            )
        self.policy, self.strategy, self.execute, self.delay = policy, strategy, execute, delay
        self._histories = Histories(policy)
        self._step = np.zeros(0, int)  # [N] of its episode
        self._begun = np.zeros((0, 0), int)  # [N, K] step at which a chunk was begun, newest first
        self._chunks: Any = None  # [N, K, H, D]
        self._seen = False
        self.arrived = np.zeros(0, bool)  # [N] whether the last actions are the first of a chunk

    def observe(self, observation: Observation) -> None:
        """Adds the newest observation {name: [N, d]}, in data units, once a step."""
        self._histories.observe(observation)
        if len(self._step) != len(self._histories.fresh):
            count, kept = len(self._histories.fresh), -(-self.policy.horizon // self.execute)
            self._step, self._chunks = np.zeros(count, int), None
            self._begun = np.full((count, kept), -1)
        self._seen = True

    def act(self, key: Any) -> np.ndarray:
        """Returns the actions [N, D] of the present step, in data units. ``key`` must be new at
        every step; a chunk of environment i uses ``fold_in(key, i)``."""
        self._histories.check("act()")
        if not self._seen:
            raise ValueError("nothing was observed since the last act(): observe() before act()")
        due = self._step % self.execute == 0
        if due.any():  # with all environments, so that the batch has one size
            self._begin(due, key)
        # Steps since a chunk was begun, and the step from which on it is there.
        age = self._step[:, None] - self._begun
        late = np.where(self._begun == 0, 0, self.delay)
        there = (self._begun >= 0) & (age >= late) & (age < self.policy.horizon)
        rows = np.arange(len(age))
        if isinstance(self.strategy, Ensemble):
            rank = there[:, ::-1].cumsum(1)[:, ::-1] - 1  # 0 for the oldest
            weights = np.where(there, np.exp(-self.strategy.rate * rank), 0)
            weights /= weights.sum(1, keepdims=True)
            index = np.clip(age, 0, self.policy.horizon - 1)
            each = self._chunks[rows[:, None], np.arange(age.shape[1]), index]
            actions = (weights[..., None] * each).sum(1).astype(each.dtype)
        else:
            newest = there.argmax(1)
            aligned = not isinstance(self.strategy, Receding) or self.strategy.aligned
            index = age[rows, newest] - (0 if aligned else late[rows, newest])
            actions = self._chunks[rows, newest, index]
        self.arrived = (there & (age == late)).any(1)
        self._step, self._seen = self._step + 1, False
        return actions

    def _begin(self, due, key):
        given, old = {}, due & (self._step > 0)
        if isinstance(self.strategy, RealTime) and old.any():
            passed = (self.execute, self.delay, self.strategy.soft)
            known, weights = remaining(self._chunks[:, 0], *passed)
            given = {"known": known, "weights": np.where(old[:, None], weights, 0)}
        chunk = np.asarray(self.policy(self._histories.values, key, **given))
        if self._chunks is None:
            self._chunks = np.repeat(np.zeros_like(chunk)[:, None], self._begun.shape[1], 1)
        begun = np.concatenate([self._step[:, None], self._begun[:, :-1]], 1)
        chunks = np.concatenate([chunk[:, None], self._chunks[:, :-1]], 1)
        self._begun = np.where(due[:, None], begun, self._begun)
        self._chunks = np.where(due[:, None, None, None], chunks, self._chunks)

    def reset(self, mask: Any = None) -> None:
        """Ends the episodes of environments where ``mask`` [N] is True. None ends all of them;
        their number may then change."""
        everything = mask is None
        mask = self._histories.reset(mask)
        if everything:
            self._step = np.zeros(0, int)
        elif len(self._step):
            self._step = np.where(mask, 0, self._step)
            self._begun = np.where(mask[:, None], -1, self._begun)
