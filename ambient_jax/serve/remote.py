"""A policy that lives in a server, for code that takes a ``Policy``: receding horizon, rollouts."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ambient_jax import _checks
from ambient_jax.policy import inpainting
from ambient_jax.serve.client import Client
from ambient_jax.serve.session import KEY, KNOWN, WEIGHTS
from ambient_jax.transforms.steps import INSTRUCTION

Array = jax.Array
Observation = Mapping[str, Any]


class RemotePolicy:
    """Asks a server for chunks, a request for each row, with the keys of a local policy.

    It has what ``RecedingHorizon``, ``chunks.Control`` and ``realtime.Background`` ask of a policy,
    and draws the chunks that the policy itself would draw from the same key, to the rounding of a
    batch.

    >>> policy = RemotePolicy.connect("10.0.0.5", 8000, connections=8)
    >>> control = RecedingHorizon(policy, execute=8)

    Args:
      ask: returns the answers to a list of requests, in their order.
      metadata: of the server, see ``Client.metadata``.
    """

    def __init__(
        self, ask: Callable[[list[dict[str, Any]]], Sequence[dict[str, Any]]], metadata: Observation
    ):
        self._ask, self._observations = ask, metadata["observations"]
        self.history, self.horizon = metadata["history"], metadata["horizon"]
        self.action_dim = metadata["action_dim"]
        self._real_time = metadata.get("real_time", False)
        self.most_known = metadata.get("most_known", self.horizon)  # actions of weight 1

    @classmethod
    def connect(
        cls, host: str = "127.0.0.1", port: int = 8000, *, connections: int = 8, **options: Any
    ) -> RemotePolicy:
        """Returns the policy of a server, over connections that share its rows; ``options`` are
        those of ``Client``."""
        clients = [Client(host, port, **options) for _ in range(connections)]
        return cls(Pool(clients), clients[0].metadata)

    def check(self, observation: Observation, between: tuple[int, ...]) -> dict[str, Any]:
        """Returns observations as arrays [B, *between, ...]; ValueError for a wrong name or shape.

        The server checks the rest.
        """
        for name, about in self._observations.items():
            if name not in observation and not about["optional"]:
                raise ValueError(f"observation {name!r} is missing, expected {about['shape']}")
        checked: dict[str, Any] = {}
        for name, value in observation.items():
            _checks.one_of("observation", name, self._observations)
            shape = self._observations[name]["shape"]
            if name == INSTRUCTION:
                checked[name] = np.asarray(value)
                continue
            checked[name] = value = np.asarray(value)
            if (
                value.ndim != 1 + len(between) + len(shape)
                or value.shape[1:][: len(between)] != between
            ):
                expected = ", ".join(map(str, ("B", *between, *shape)))
                raise ValueError(
                    f"observation {name!r} has shape {value.shape}, expected ({expected})"
                )
        return checked

    def __call__(
        self, observation: Observation, key: Array, *, known: Any = None, weights: Any = None
    ) -> np.ndarray:
        """Returns chunks [B, H, D] in data units; arguments as of ``Policy``.

        Raises ValueError if actions are known and the server takes none.
        """
        checked = self.check(observation, (self.history,))
        count = max(len(value) for value in checked.values() if value.ndim)
        key = _checks.key(key)
        if not key.ndim:
            key = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(count))
        shape = count, self.horizon, self.action_dim
        given = inpainting.check(known, weights, shape, self.most_known)
        if given and not self._real_time:
            raise ValueError(
                "the server takes no known actions (it was started with --noreal_time, or is of an "
                "older version): use another strategy than RealTime"
            )
        return self.chunks(checked, np.asarray(jax.random.key_data(key)), **given)

    def chunks(
        self,
        observation: Mapping[str, np.ndarray],
        data: np.ndarray,
        known: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns chunks [B, H, D] of arrays [B, T, ...], the rows' key data [B, 2] and known
        actions [B, H, D] with their weights [B, H]; uses no JAX, so that a callback may call it."""
        requests = []
        for row, key in enumerate(data):
            one = {n: v[row] if v.ndim else v for n, v in observation.items()}
            if INSTRUCTION in one and one[INSTRUCTION].dtype.kind == "U":
                one[INSTRUCTION] = str(one[INSTRUCTION])
            one[KEY] = np.asarray(key)
            if known is not None and weights is not None and weights[row].any():
                one |= {KNOWN: known[row], WEIGHTS: weights[row]}
            requests.append(one)
        return np.stack([answer["actions"] for answer in self._ask(requests)])


class Pool:
    """Shares requests among clients, one thread for each."""

    def __init__(self, clients: Sequence[Any]):
        self._clients = list(clients)
        self._threads = concurrent.futures.ThreadPoolExecutor(len(self._clients), "client")

    def __call__(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the answers in the order of the requests."""
        answers: list[Any] = [None] * len(requests)

        def ask(first, client):
            for i in range(first, len(requests), len(self._clients)):
                answers[i] = client.infer(requests[i])

        for job in [self._threads.submit(ask, *c) for c in enumerate(self._clients)]:
            job.result()
        return answers

    def close(self) -> None:
        """Closes the clients."""
        for client in self._clients:
            client.close()
        self._threads.shutdown()
