"""A policy that lives in a server, for code that takes a ``Policy``: receding horizon, rollouts."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ambient_jax import _checks
from ambient_jax.policy import inpainting
from ambient_jax.serve.client import Client
from ambient_jax.serve.session import KEY, KNOWN, WEIGHTS
from ambient_jax.transforms.chain import row_count
from ambient_jax.transforms.instructions import as_texts
from ambient_jax.transforms.steps import INSTRUCTION, IS_CLEAN, Images

Array = jax.Array
Observation = Mapping[str, Any]
_CAMERA = "image_"


class RemotePolicy:
    """Asks a server for chunks, a request for each row, with the keys of a local policy.

    It has what ``RecedingHorizon``, ``chunks.Control`` and ``realtime.Background`` ask of a policy,
    and draws the chunks that the policy itself would draw from the same key, to the rounding of a
    batch.

    >>> with RemotePolicy.connect("10.0.0.5", 8000, connections=8) as policy:
    >>>     control = RecedingHorizon(policy, execute=8)

    Args:
      ask: returns the answers to a list of requests, in their order.
      metadata: of the server, see ``Client.metadata``.
    """

    def __init__(
        self, ask: Callable[[list[dict[str, Any]]], Sequence[dict[str, Any]]], metadata: Observation
    ):
        self._ask, self._observations = ask, metadata["observations"]
        shapes = {n: about["shape"] for n, about in self._observations.items()}
        sizes = {n: s[:2] for n, s in shapes.items() if n.startswith(_CAMERA) and len(s) == 3}
        cameras = tuple(n.removeprefix(_CAMERA) for n in sizes)
        size = next(iter(sizes.values()), (1, 1))
        self._images = Images(cameras, (size[0], size[1]))
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
        _checks.number("connections", connections, 1, whole=True)
        with contextlib.ExitStack() as opened:
            clients = [
                opened.enter_context(Client(host, port, **options)) for _ in range(connections)
            ]
            policy = cls(Pool(clients), clients[0].metadata)
            opened.pop_all()
        return policy

    def close(self) -> None:
        """Closes the connections that ``connect`` has opened."""
        if isinstance(self._ask, Pool):
            self._ask.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def check(self, observation: Observation, between: tuple[int, ...]) -> dict[str, Any]:
        """Returns observations as arrays [B, *between, ...], in the order of the metadata.

        As with a policy, a text is repeated and images are resized; a camera that is missing is
        masked. The server checks the rest. ValueError for a wrong name or shape.
        """
        for name in observation:
            _checks.one_of("observation", name, self._observations)
        for name, about in self._observations.items():
            if name not in observation and not about["optional"]:
                raise ValueError(f"observation {name!r} is missing, expected {about['shape']}")
        names = [name for name in self._observations if name in observation]
        arrays = {n: np.asarray(observation[n]) for n in names if n != INSTRUCTION}
        text = observation.get(INSTRUCTION)
        rows = row_count({**arrays, INSTRUCTION: text})
        if not rows:
            raise ValueError("the observation is empty, expected " + ", ".join(self._observations))
        lead, images = (rows, *between), self._images.inputs(1)
        for name, value in arrays.items():
            shape = (*lead, *self._observations[name]["shape"])
            if name == IS_CLEAN and not value.ndim:
                arrays[name] = value = np.broadcast_to(value, shape)
            same = value.ndim == len(shape) and value.shape[: len(lead)] == lead
            if not same and name not in images:
                raise ValueError(f"observation {name!r} has shape {value.shape}, expected {shape}")
        if text is not None:
            encoded = getattr(text, "dtype", np.dtype("U")).kind in "uf"
            arrays[INSTRUCTION] = np.asarray(text if encoded else as_texts(text, rows))
            if len(arrays[INSTRUCTION]) != rows:
                raise ValueError(
                    f"observation {INSTRUCTION!r} has {len(text)} rows, expected {rows}"
                )
        arrays |= self._images.check(arrays, lead)
        return {name: arrays[name] for name in self._observations if name in arrays}

    def __call__(
        self, observation: Observation, key: Array, *, known: Any = None, weights: Any = None
    ) -> np.ndarray:
        """Returns chunks [B, H, D] in data units; arguments as of ``Policy``.

        Raises ValueError if actions are known and the server takes none.
        """
        checked = self.check(observation, (self.history,))
        count = len(next(iter(checked.values())))
        key = _checks.row_keys(key, count)
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
            if INSTRUCTION in one and one[INSTRUCTION].dtype.kind in "SU":
                one[INSTRUCTION] = one[INSTRUCTION].item()
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

        jobs = [self._threads.submit(ask, *c) for c in enumerate(self._clients)]
        concurrent.futures.wait(jobs)  # the next call may use every client
        for job in jobs:
            job.result()
        return answers

    def close(self) -> None:
        """Closes the clients, after the requests in work."""
        self._threads.shutdown()
        for client in self._clients:
            client.close()
