"""Runs the policy in one thread, on the rows of several robots at once."""

from __future__ import annotations

import collections
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from absl import logging

from ambient_jax import _checks
from ambient_jax.serve.session import KNOWN, WEIGHTS, Row

_IMPL = "threefry2x32"  # the keys of a request are of this kind, whatever JAX's default is


class Answer(NamedTuple):
    """The policy's answer to one row."""

    actions: np.ndarray  # [H, D] float32, data units
    seconds: float  # that the policy took for the batch
    waited: float  # seconds in the queue
    rows: int  # of the batch, without padding


class _Waiting(NamedTuple):
    row: Row
    deliver: Callable[[Answer | Exception], None]
    since: float


def sizes(most: int) -> tuple[int, ...]:
    """Returns the sizes to which batches are padded: powers of four below ``most``, and it."""
    _checks.number("max_batch", most, 1, 4096, whole=True)
    powers = [4**n for n in range(7) if 4**n < most]
    return (*powers, most)


def takes_known(policy: Any) -> bool:
    """Returns whether a policy can be called with known actions."""
    parameters = inspect.signature(policy.__call__).parameters.values()
    return any(p.name == KNOWN or p.kind is p.VAR_KEYWORD for p in parameters)


class Batcher:
    """A thread that takes what waits, pads it to one of a few sizes, and runs the policy.

    A row is answered at once when the device is idle; those that come while it works are the next
    batch. A row's chunk depends on its observation and key alone (to the rounding of a batched
    product), and on its own known actions: rows with and without them are one batch, which then
    runs the function for known actions.

    Args:
      policy: see ``Policy``.
      most: rows in a batch.
      seed: of the keys of requests that have none; None: from the system.
      known: whether rows may have known actions.
    """

    def __init__(self, policy: Any, most: int, seed: int | None = None, known: bool = True):
        self.sizes = sizes(most)
        self._policy, self._known = policy, known
        self._draw = np.random.default_rng(seed)
        self._keys = jax.jit(_row_keys)
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._state = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)

    def start(self) -> None:
        """Compiles the policy for every size, also with known actions, then starts the thread."""
        shapes = self._policy.chain.inputs(self._policy.history)
        for size in tqdm.tqdm(self.sizes, desc="compiling", unit="batch size", leave=False):
            inputs = {n: np.zeros((size, *s.shape), s.dtype) for n, s in shapes.items()}
            checked = self._policy.check(inputs, (self._policy.history,))
            weights = np.eye(1, self._shape[0], dtype="f")[0]  # the first is known
            row = Row({}, known=np.zeros(self._shape, "f"), weights=weights)
            given = [{}, self._given([row] * size)] if self._known else [{}]
            for one in [*given, *given]:  # the second run shows what is left to compile
                self._run(checked, np.zeros((size, 2), np.uint32), np.ones(size, bool), one)
        self._thread.start()

    def submit(self, row: Row, deliver: Callable[[Answer | Exception], None]) -> None:
        """Queues a row; the thread calls ``deliver`` with its answer or error."""
        with self._state:
            if self._closing:
                raise ValueError("the server stops and takes no more requests")
            self._queue.append(_Waiting(row, deliver, time.monotonic()))
            self._state.notify()

    def close(self, timeout: float | None = None) -> None:
        """Ends the thread after what is queued, and waits for it for ``timeout`` seconds."""
        with self._state:
            self._closing = True
            self._state.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _work(self):
        while True:
            with self._state:
                while not self._queue and not self._closing:
                    self._state.wait()
                count = min(len(self._queue), self.sizes[-1])
                waiting = [self._queue.popleft() for _ in range(count)]
            if not waiting:
                return
            for one, answer in zip(waiting, self._answers(waiting), strict=True):
                one.deliver(answer)

    def _answers(self, waiting: Sequence[_Waiting]) -> Sequence[Answer | Exception]:
        begin = time.monotonic()
        try:
            actions = self._run(*self._batch([w.row for w in waiting]))
        except Exception as error:  # of the device: these requests fail, the server goes on
            logging.exception("the policy failed on a batch of %d", len(waiting))
            return [
                RuntimeError(f"the policy failed ({type(error).__name__}), see the server's log")
            ] * len(waiting)
        took = time.monotonic() - begin
        answers: list[Answer | Exception] = []
        for one, chunk in zip(waiting, actions, strict=False):
            if np.isfinite(chunk).all():
                answers.append(Answer(chunk, took, begin - one.since, len(waiting)))
            else:
                answers.append(RuntimeError("the policy's actions for this request are not finite"))
        return answers

    def _batch(self, rows: Sequence[Row]):
        """Returns inputs [B, T, ...], key data [B, 2], which rows have a seed, and known actions;
        B is one of the sizes."""
        padding = next(size for size in self.sizes if size >= len(rows)) - len(rows)
        padded = [*rows, *[rows[0]] * padding]
        inputs = {n: np.concatenate([row.inputs[n] for row in padded]) for n in rows[0].inputs}
        seeded = np.array([row.seed is not None for row in padded])
        data = np.stack([self._key_data(row) for row in padded])
        return inputs, data, seeded, self._given(padded)

    @property
    def _shape(self):
        return self._policy.horizon, self._policy.chain.action_dim

    def _given(self, rows):
        """Returns {} or known actions [B, H, D] and weights [B, H], 0 in rows that have none."""
        if all(row.known is None for row in rows):
            return {}
        none = Row({}, known=np.zeros(self._shape, "f"), weights=np.zeros(self._shape[:1], "f"))
        rows = [none if row.known is None else row for row in rows]
        return {name: np.stack([getattr(row, name) for row in rows]) for name in (KNOWN, WEIGHTS)}

    def _key_data(self, row):
        if row.seed is not None:
            return np.array([0, row.seed], np.uint32)  # that of jax.random.key(seed)
        if row.key is not None:
            return row.key
        return self._draw.integers(0, 2**32, 2, np.uint32)

    def _run(self, inputs, data, seeded, given):
        return np.asarray(self._policy(inputs, self._keys(data, seeded), **given))


def _row_keys(data, seeded):
    """Returns [B] keys of key data [B, 2]: of row 0 of a batch where the data are of a seed."""
    keys = jax.random.wrap_key_data(data, impl=_IMPL)
    first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    return jax.random.wrap_key_data(
        jax.numpy.where(seeded[:, None], jax.random.key_data(first), data), impl=_IMPL
    )
