"""Streams batches from disk, noise first: element n is a function of (seed, n).

Row r of step s draws (sigma, group) from (seed, s, r), see ``noise_first``, and takes the next
chunk of that group in the row's shard, see ``stream``. The iterator's state is the step and the
number of chunks taken from each group in each shard.

A batch of B rows has B / shards rows of each shard, in order; a host has the rows of its shards. So
a run resumes exactly on any number of hosts that divides its shards.

This process draws and counts; the rows are assembled in it or in others (``assembler``,
``assemblers``), to the same bits.
"""

import atexit
import collections
import functools
import hashlib
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import grain
import jax
import numpy as np

from ambient_jax import _checks, mixing, schedules
from ambient_jax.data import assembler, assemblers, chunk, device, noise_first
from ambient_jax.data.mixture import Mixture, open_mixture

__all__ = ["Mixture", "open_mixture", "stream_batches"]


def stream_batches(
    mixture: Mixture,
    law: mixing.Law,
    schedule: schedules.Schedule,
    *,
    seed: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    shards: int | None = None,
    put: Callable[[dict[str, Any]], Any] | None = None,
) -> grain.DatasetIterator:
    """Returns an endless iterator over this host's rows of each batch.

    Batches have the fields of ``device.sample_batch``, as NumPy arrays or after ``put``, and, if
    sources have them, images uint8 [B, T, h, w, 3] with masks [B, T], "instruction" [B, L] and
    "quality" {label: [B]}. A thread keeps ``config.prefetch`` batches ready, and assembles them or
    has ``config.assemblers`` processes do so, for the same batches. ``get_state()`` returns the
    small JSON state after the last batch of ``next``; ``set_state`` continues exactly from there.

    Args:
      mixture: sources, with ``shuffle_window``, ``shuffle_memory``, ``prefetch`` and maybe
        ``assemblers`` in their config.
      law, schedule: give sigma and P(source | sigma).
      seed: seed of the run.
      batch_size: B over all hosts.
      process_index, process_count: this host and the number of hosts.
      shards: parts of the data; as many as hosts by default.
      put: function that the thread applies to a batch, such as sending it to devices.

    Raises:
      ValueError: the batch size, window or number of hosts or processes is impossible; while
        iterating, data cannot be read (the message names the episode).
      ChildProcessError: while iterating, an assembling process was killed.
    """
    config = mixture.config
    shards = process_count if shards is None else shards
    _checks.number("process_index", process_index, 0, process_count - 1, whole=True)
    if shards < 1 or shards % process_count:
        raise ValueError(
            f"the data are dealt in {shards} shards, expected a multiple of the {process_count} "
            "hosts: run on a number of hosts that divides it, or set config.data.shards for a new "
            "run"
        )
    if batch_size < 1 or batch_size % shards:
        raise ValueError(
            f"batch_size is {batch_size}, expected a positive multiple of the {shards} shards of "
            f"{process_count} hosts"
        )
    options = (seed, batch_size, process_index, process_count, shards)
    batches: grain.IterDataset = _Batches(_BatchIterator, mixture, law, schedule, *options)
    if put is not None:
        batches = batches.map(put)
    iterator = iter(
        grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=config.prefetch)
    )
    _ITERATORS.add(iterator)
    return iterator


def merge(states: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Joins the states of all hosts at one step, for any number of hosts."""
    states = list(states)
    taken = {shard: counts for state in states for shard, counts in state["taken"].items()}
    return {**states[0], "taken": taken}


def _close_all():
    for iterator in list(_ITERATORS):
        iterator.close()
        # Grain closes again in __del__, after its modules are gone.
        iterator.close = lambda: None


# A thread that still reads at interpreter shutdown fails noisily, or in XLA.
_ITERATORS: weakref.WeakSet[grain.DatasetIterator] = weakref.WeakSet()
atexit.register(_close_all)


class _Batches(grain.IterDataset):
    def __init__(self, iterator, *arguments):
        super().__init__()
        self._open = functools.partial(iterator, *arguments)

    def __iter__(self):
        return self._open()


class _BatchIterator(grain.DatasetIterator):
    def __init__(
        self, mixture, law, schedule, seed, batch_size, process_index, process_count, shards
    ):
        super().__init__()
        self._assemble: Any = None  # closed even if the following fails
        config = mixture.config
        self._mixture, self._groups = mixture, mixture.groups
        rows, local = batch_size // process_count, shards // process_count
        plan = assembler.Plan(mixture, seed, rows, process_index * local + np.arange(local), shards)
        self._shards, self._shard = plan.local, plan.shard
        numbers, sources = process_index * rows + np.arange(rows), self._groups.sources
        self._draws = noise_first.HostDraws(jax.random.key(seed), numbers, law, sources, schedule)
        _, bounded = mixing.resolve(law, sources)
        self._bounds = np.asarray(bounded.sigma_min), np.asarray(bounded.sigma_max)
        prints, statistics = mixture.fingerprints, mixture.statistics
        data = [(prints[n], statistics[n].lengths.tobytes()) for n in mixture.names]
        # The order of chunks depends on these: a state is valid only with the same values.
        self._settings = {"seed": seed, "batch_size": batch_size, "shards": shards}
        self._settings |= {n: config[n] for n in ("shuffle_window", "shuffle_memory")}
        self._settings["sources"] = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
        self._step, self._taken = 0, np.zeros((local, len(self._groups.owner)), np.int64)
        self._at = 0, self._taken.copy()  # after the last batch of ``next``
        self._pending: collections.deque[tuple] = collections.deque()
        self._refused = mixture.chain.images is None
        count = config.get("assemblers", 1)
        self._assemble = assemblers.Here(plan) if count == 1 else assemblers.Processes(plan, count)

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        if not self._refused:
            for name, source in self._mixture.datasets.items():
                source.refuse_images(self._mixture.statistics[name].problems)
            self._refused = True
        while len(self._pending) < self._assemble.ahead:
            self._pending.append(self._begin())
        batch, rows, self._at = self._pending.popleft()
        return self._finished(batch, rows())

    def _begin(self):
        sigma, group = self._draws(self._step)
        batch: dict[str, Any] = {"sigma": sigma.copy(), "source": self._groups.owner[group]}
        batch["sigma_min"], batch["sigma_max"] = (b[group] for b in self._bounds)
        rows = self._assemble.submit(group)
        np.add.at(self._taken, (self._shard, group), 1)
        self._step += 1
        return batch, rows, (self._step, self._taken.copy())

    def _finished(self, batch, fields):
        observation, quality = {}, {}
        encoders = self._mixture.chain.encoders()
        for name, values in fields.items():
            if name in encoders:
                observation[name] = values
            elif name.startswith(chunk.OBSERVATION):
                observation[name.removeprefix(chunk.OBSERVATION)] = values
            elif name.startswith("quality/"):
                quality[name.removeprefix("quality/")] = values
            else:
                batch[name] = values
        batch |= {"observation": observation} | ({"quality": quality} if quality else {})
        return device.with_constants(
            batch, self._mixture.constants, self._mixture.config.history, np
        )

    def get_state(self) -> dict[str, Any]:
        step, taken = self._at
        taken = {str(s): counts for s, counts in zip(self._shards, taken.tolist(), strict=True)}
        return {"step": step, "taken": taken, "of": self._settings}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in self._settings.items():
            if state["of"].get(name) != value:
                raise ValueError(
                    f"the state is that of a stream with {name} {state['of'].get(name)!r}, this "
                    f"one has {value!r}: resume with the same data, batch and shards"
                )
        for shard in self._shards:
            if str(shard) not in state["taken"]:
                raise ValueError(
                    f"the state has shards {', '.join(state['taken'])}, expected also {shard}: "
                    "give the states of all hosts, merged"
                )
        self._pending.clear()
        self._step = state["step"]
        self._taken = np.array([state["taken"][str(s)] for s in self._shards], np.int64)
        self._at = self._step, self._taken.copy()
        self._assemble.seek(self._taken)

    def close(self) -> None:
        if not self._closed and self._assemble is not None:
            self._assemble.close()
        super().close()
