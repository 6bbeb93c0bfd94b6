"""Batches streamed from disk, noise first: element n is a function of (seed, n).

Row r of step s draws (sigma, source) from (seed, s, r), see ``noise_first``, and takes that
source's next chunk, see ``stream``. So the state of the iterator is the step and the number of
chunks taken from each source.
"""

from __future__ import annotations

import atexit
import hashlib
import weakref
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grain
import jax
import numpy as np

from ambient_jax import mixing, schedules
from ambient_jax.data import chunk, noise_first
from ambient_jax.data.sources import Prepared, prepare
from ambient_jax.data.stream import ChunkStream

__all__ = ["Prepared", "prepare", "stream_batches"]

_READERS = 2


def stream_batches(
    prepared: Prepared,
    law: mixing.Law,
    schedule: schedules.Schedule,
    *,
    seed: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    put: Callable[[dict[str, Any]], Any] | None = None,
) -> grain.DatasetIterator:
    """An endless iterator of this host's rows of each batch.

    Batches have what ``device.sample_batch`` returns, as NumPy arrays or as ``put`` makes them. A
    thread keeps ``config.prefetch`` of them ready; ``get_state()`` is the state after the batch
    that ``next`` returned last, whatever has been prefetched: small, JSON-able, and
    ``set_state`` continues exactly from there.

    Args:
      prepared: sources, with ``shuffle_window`` and ``prefetch`` in their config.
      law, schedule: give sigma and P(source | sigma).
      seed: of the run.
      batch_size: B over all hosts.
      process_index, process_count: this host and the number of hosts.
      put: applied to each batch in the thread, to send it to devices.

    Raises:
      ValueError: a batch size, window or number of hosts that cannot work; while iterating, data
        that cannot be read, named by episode.
    """
    config = prepared.config
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index is {process_index}, expected 0 to {process_count - 1} for "
            f"{process_count} hosts"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}, expected a positive multiple of the {process_count} hosts"
        )
    if config.shuffle_window < 1:
        raise ValueError(
            f"config.data.shuffle_window is {config.shuffle_window}, expected at least 1 chunk"
        )
    if config.prefetch < 0:
        raise ValueError(f"config.data.prefetch is {config.prefetch}, expected at least 0 batches")
    batches: grain.IterDataset = _Batches(
        prepared, law, schedule, seed, batch_size, process_index, process_count
    )
    if put is not None:
        batches = batches.map(put)
    iterator = iter(
        grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=config.prefetch)
    )
    _ITERATORS.add(iterator)
    return iterator


def _close_all():
    for iterator in list(_ITERATORS):
        iterator.close()
        # Grain closes once more in __del__, when its own modules are gone.
        iterator.close = lambda: None


# A thread that still reads while the interpreter is taken apart fails noisily, or in XLA.
_ITERATORS: weakref.WeakSet[grain.DatasetIterator] = weakref.WeakSet()
atexit.register(_close_all)


class _Batches(grain.IterDataset):
    def __init__(self, *arguments):
        super().__init__()
        self._arguments = arguments

    def __iter__(self):
        return _BatchIterator(*self._arguments)


class _BatchIterator(grain.DatasetIterator):
    def __init__(self, prepared, law, schedule, seed, batch_size, process_index, process_count):
        super().__init__()
        config = prepared.config
        self._history, self._horizon = config.history, config.horizon
        self._padding = config.padding
        self._dims = prepared.action_dim, prepared.observation_dims
        self._rows = batch_size // process_count
        self._executor = futures.ThreadPoolExecutor(_READERS, "ambient-jax-reader")
        self._streams = [
            ChunkStream(
                prepared,
                k,
                window=config.shuffle_window,
                seed=seed,
                process_index=process_index,
                process_count=process_count,
                executor=self._executor,
            )
            for k in range(len(prepared.names))
        ]
        self._draws = noise_first.HostDraws(
            jax.random.key(seed),
            process_index * self._rows + np.arange(self._rows),
            law,
            prepared.sources,
            schedule,
        )
        _, bounded = mixing.resolve(law, prepared.sources)
        self._bounds = np.asarray(bounded.sigma_min), np.asarray(bounded.sigma_max)
        self._step = 0
        data = [
            (n, prepared.datasets[n].fingerprint, prepared.statistics[n].lengths.tobytes())
            for n in prepared.names
        ]
        # The order of chunks hangs on these: a state means nothing under others.
        self._of = {
            "seed": seed,
            "batch_size": batch_size,
            "host": f"{process_index} of {process_count}",
            "shuffle_window": config.shuffle_window,
            "sources": hashlib.sha256(repr(data).encode()).hexdigest()[:16],
        }

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        sigma, source = self._draws(self._step)
        batch = self._empty()
        batch["sigma"], batch["source"] = sigma.copy(), source.copy()
        batch["sigma_min"], batch["sigma_max"] = (b[source] for b in self._bounds)
        batch["id"][:, 0] = source
        for k in np.unique(source):
            rows = np.flatnonzero(source == k)
            done = 0
            for window, steps in self._streams[k].take(len(rows)):
                self._fill(batch, rows[done : done + len(steps)], window, steps)
                done += len(steps)
        self._step += 1
        return batch

    def _empty(self):
        size, (action_dim, observation_dims) = self._rows, self._dims
        return {
            "observation": {
                n: np.empty((size, self._history, d), np.float32)
                for n, d in observation_dims.items()
            },
            "action": np.empty((size, self._horizon, action_dim), np.float32),
            "mask": np.empty((size, self._horizon), bool),
            "id": np.empty((size, 3), np.int32),
        }

    def _fill(self, batch, rows, window, steps):
        start, end = window.start[steps], window.end[steps]
        observation, batch["action"][rows], batch["mask"][rows] = chunk.gather(
            window.steps, steps, start, end, self._history, self._horizon, np, self._padding
        )
        for name, values in observation.items():
            batch["observation"][name][rows] = values
        batch["id"][rows, 1] = window.episode[steps]
        batch["id"][rows, 2] = steps - start

    def get_state(self) -> dict[str, Any]:
        return {"step": self._step, "taken": [s.taken for s in self._streams], "of": self._of}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in self._of.items():
            if state["of"].get(name) != value:
                raise ValueError(
                    f"the state is that of a stream with {name} {state['of'].get(name)!r}, this "
                    f"one has {value!r}: resume with the same data, batch and hosts"
                )
        self._step = state["step"]
        for stream, taken in zip(self._streams, state["taken"], strict=True):
            stream.taken = taken

    def close(self) -> None:
        if not self._closed:
            self._executor.shutdown(wait=False, cancel_futures=True)
        super().close()
