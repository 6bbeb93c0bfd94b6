"""Runs one robot from a policy server: plans in a thread while the last chunk is executed.

It needs NumPy and ``client.py`` beside it, so that a robot's computer can have both without JAX:

>>> with Client("10.0.0.5", 8000) as client, Robot(client, execute=8) as robot:
>>>     while True:                                                      # at the control rate
>>>         move(robot.act({"state": state, "image_wrist": frame}))      # [D], data units
"""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Mapping
from typing import Any

import numpy as np

_ONCE = ("instruction", "prompt", "is_clean")  # have no history


class Robot:
    """Returns an action a step, and asks for a new chunk in a thread as soon as it may.

    It is for one robot without JAX what ``policy.realtime.Background`` is for policies: a new chunk
    replaces the old one at the step at which it is there, from the action of that step on. The
    first chunk is waited for. With real-time chunking (Black et al. 2025,
    https://arxiv.org/abs/2506.07339) a new chunk continues the old one: it knows the actions that
    will have been executed until it arrives, as many as the longest of the last ten chunks took
    steps.

    Args:
      client: a ``Client`` that nothing else uses.
      execute: least number of steps from one chunk's beginning to the next one's.
      delay: number of steps that the first chunks are expected to take.
      real_time: whether new chunks continue old ones; None: if the server can.
      soft: whether the old actions after the delay are known as well, with decaying weight.
      seed: of all chunks, 0 or above; a chunk's seed is made of this and its number, as in
        ``Background``. None: the server draws.

    Raises:
      ValueError: for other numbers, or if ``real_time`` is more than the server can.
    """

    def __init__(
        self,
        client: Any,
        *,
        execute: int = 8,
        delay: int = 1,
        real_time: bool | None = None,
        soft: bool = True,
        seed: int | None = None,
    ):
        told = client.metadata
        self.horizon, self.history = told["horizon"], told.get("history", 1)
        for name, value, low in (("execute", execute, 1), ("delay", delay, 0)):
            if not low <= value <= self.horizon:
                raise ValueError(f"{name} is {value}, expected {low} to {self.horizon} steps")
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}, expected 0 or above, or None")
        can = bool(told.get("real_time", False))
        if real_time and not can:
            raise ValueError(
                "the server takes no known actions: start it without --noreal_time, or give "
                "real_time=False"
            )
        self.execute, self.soft = execute, soft
        self.real_time = can if real_time is None else real_time
        self.delays = collections.deque([delay], maxlen=10)  # steps that the last chunks took
        self.held = 0  # steps at which the old chunk had ended, and its last action was held
        self._client, self._seed, self._number = client, seed, 0
        self._most = told.get("most_known", self.horizon)  # actions of weight 1
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "robot")
        self._forget()

    def _forget(self) -> None:
        self._coming: concurrent.futures.Future | None = None
        self._chunk: Any = None  # [H, D]
        self._seen: collections.deque = collections.deque(maxlen=self.history)
        self._step = self._begun = self._asked = 0

    def act(self, observation: Mapping[str, Any]) -> np.ndarray:
        """Returns the action [D] of this step, in data units.

        Args:
          observation: the newest one, {name: [d]}, as ``Client.infer`` takes it. The robot keeps
            the policy's history, which an episode's first observation fills.

        An error of the client is raised here; the next call asks for another chunk.
        """
        seen = {n: v if _once(n) else np.array(v) for n, v in observation.items()}
        if self._seen and set(seen) != set(self._seen[-1]):
            raise ValueError(
                f"the observation has {', '.join(sorted(seen))}, expected the names of the step "
                f"before: {', '.join(sorted(self._seen[-1]))}; reset() begins an episode"
            )
        self._seen.extend([seen] * (1 if self._seen else self.history))
        step, self._step = self._step, self._step + 1
        if self._coming and (self._coming.done() or self._chunk is None):
            self._swap(step)
        if self._coming is None and (self._chunk is None or step - self._begun >= self.execute):
            self._begin(step)
        if self._chunk is None:
            self._swap(step)
        index = step - self._begun
        self.held += index >= self.horizon
        return self._chunk[min(index, self.horizon - 1)]

    def _begin(self, step):
        request = dict(self._seen[-1])
        if self.history > 1:
            names = [name for name in request if not _once(name)]
            request |= {name: np.stack([one[name] for one in self._seen]) for name in names}
        if self._seed is not None:
            seeds = np.random.SeedSequence([self._seed, self._number])
            request["seed"] = int(seeds.generate_state(1)[0])
        if self.real_time and self._chunk is not None:
            passed = step - self._begun, min(max(self.delays), self._most), self.soft
            request["known"], request["weights"] = remaining(self._chunk, *passed)
        self._number, self._asked = self._number + 1, step
        self._coming = self._pool.submit(lambda: self._client.infer(request)["actions"])

    def _swap(self, step):
        coming, self._coming = self._coming, None
        first, self._chunk = self._chunk is None, coming.result()
        self._begun = self._asked
        if not first:
            self.delays.append(step - self._begun)

    def reset(self) -> None:
        """Ends the episode: the next ``act`` waits for a chunk again."""
        self._forget()

    def close(self) -> None:
        """Ends the thread when its chunk is there; the client stays open."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _once(name):
    return name.removeprefix("observation/") in _ONCE


def remaining(
    chunk: np.ndarray, passed: int, frozen: int, soft: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the actions [H, D] of a chunk from ``passed`` on, and their weights [H].

    The first ``frozen`` weigh 1, then the weight decays to the chunk's end (0 at once if not
    ``soft``): equation 5 of real-time chunking. The last action fills up, with weight 0.
    """
    steps, left = np.arange(len(chunk)), max(len(chunk) - passed, 0)
    frozen = min(frozen, left)
    known = left if soft else frozen
    c = np.clip((known - steps) / (known - frozen + 1), 0, 1)
    weights = np.where(steps < frozen, 1, c * np.expm1(c) / np.expm1(1)).astype(np.float32)
    return chunk[np.minimum(steps + passed, len(chunk) - 1)], weights
