"""Controls a robot in real time: plans in a thread while the last chunk is executed.

>>> with Background(policy, RealTime(), execute=8) as control:           # or a remote policy
>>>     while True:                                                      # at the control rate
>>>         control.observe(robot.observation())                         # {name: [N, d]}
>>>         robot.move(control.act())                                    # [N, D], waits once only
"""

from __future__ import annotations

import collections
import concurrent.futures
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax.policy import chunks
from ambient_jax.policy.control import Histories, Observation


class Background:
    """Returns an action a step, and begins a new chunk in a thread as soon as it may.

    The robots of a batch move in step. A new chunk replaces the old one at the step at which it is
    there, from the action of that step on; the first is waited for. ``RealTime`` freezes as many
    actions as the longest of the last ten chunks took steps, and at most as many as the policy may
    be told (``most_known``).

    Args:
      policy: has ``check``, ``history``, ``horizon`` and a call with an observation and a seed,
        for ``RealTime`` also ``most_known`` and a call with ``known`` and ``weights``: a ``Policy``
        or a remote one.
      strategy: ``Receding`` or ``RealTime``.
      execute: least number of steps from one chunk's beginning to the next one's.
      delay: number of steps that the first chunks are expected to take.
      seed: of all chunks; a chunk's seed is this and its number.
    """

    def __init__(
        self,
        policy: Any,
        strategy: chunks.Receding | chunks.RealTime = chunks.RealTime(),  # noqa: B008
        *,
        execute: int = 8,
        delay: int = 1,
        seed: int = 0,
    ):
        if not isinstance(strategy, chunks.Receding | chunks.RealTime):
            raise ValueError(f"strategy is {strategy}, expected Receding or RealTime")
        _checks.number("execute", execute, 1, policy.horizon, whole=True)
        _checks.number("delay", delay, 0, policy.horizon, whole=True)
        _checks.number("seed", seed, 0, whole=True)
        self.policy, self.strategy, self.execute = policy, strategy, execute
        self.delays = collections.deque([delay], maxlen=10)  # steps that the last chunks took
        self.held = 0  # steps at which the old chunk had ended, and its last action was held
        self._seed, self._number = seed, 0
        self._histories = Histories(policy)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "policy")
        self._forget()

    def _forget(self) -> None:
        self._coming: concurrent.futures.Future | None = None
        self._chunk: Any = None  # [N, H, D]
        self._step = self._begun = self._arrived = self._asked = 0

    def observe(self, observation: Observation) -> None:
        """Adds the newest observation {name: [N, d]}, in data units, once a step."""
        self._histories.observe(observation)

    def act(self) -> np.ndarray:
        """Returns the actions [N, D] of this step, in data units. An error of the policy is raised
        here; the next call begins another chunk."""
        self._histories.check("act()")
        step, self._step = self._step, self._step + 1
        if self._coming and (self._coming.done() or self._chunk is None):
            self._swap(step)
        if self._coming is None and (self._chunk is None or step - self._begun >= self.execute):
            self._begin(step)
        if self._chunk is None:
            self._swap(step)
        stale = self.strategy == chunks.Receding(aligned=False)
        index = step - (self._arrived if stale else self._begun)
        self.held += index >= self.policy.horizon
        return self._chunk[:, min(index, self.policy.horizon - 1)]

    def _begin(self, step):
        given = {}
        if isinstance(self.strategy, chunks.RealTime) and self._chunk is not None:
            frozen = min(max(self.delays), self.policy.most_known)
            passed = step - self._begun, frozen, self.strategy.soft
            known, weights = chunks.remaining(self._chunk, *passed)
            given = {"known": known, "weights": weights}
        seen = dict(self._histories.values)
        seed = int(np.random.SeedSequence([self._seed, self._number]).generate_state(1)[0])
        self._number, self._asked = self._number + 1, step
        self._coming = self._pool.submit(lambda: np.asarray(self.policy(seen, seed, **given)))

    def _swap(self, step):
        coming, self._coming = self._coming, None
        first, self._chunk = self._chunk is None, coming.result()
        self._begun, self._arrived = self._asked, step
        if not first:
            self.delays.append(step - self._begun)

    def reset(self) -> None:
        """Ends the episode: the next ``act`` waits for a chunk again."""
        self._histories.reset()
        self._forget()

    def close(self) -> None:
        """Ends the thread when its chunk is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
