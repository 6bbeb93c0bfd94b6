"""Batches streamed from disk, noise first: element n is a function of (seed, n).

Row r of step s draws (sigma, source) from (seed, s, r), see ``noise_first``, and takes the next
chunk of that source in the row's lane, see ``stream``. So the state of the iterator is the step and
the number of chunks taken from each source in each lane.

A batch of B rows has B / lanes rows of each lane, in order, and a host the rows of its lanes. What
is in a batch does not depend on the number of hosts: a run goes on, exactly, on any number of hosts
that divides its lanes.
"""

from __future__ import annotations

import atexit
import collections
import hashlib
import resource
import weakref
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import grain
import jax
import numpy as np
from absl import logging

from ambient_jax import mixing, schedules
from ambient_jax.data import chunk, device, images, noise_first, options
from ambient_jax.data.mixture import Mixture, open_mixture
from ambient_jax.data.stream import INTERLEAVE, ChunkStream

__all__ = ["Mixture", "open_mixture", "stream_batches"]

_READERS = 2
_OPEN_FILES = 256  # of one lane


def stream_batches(
    mixture: Mixture,
    law: mixing.Law,
    schedule: schedules.Schedule,
    *,
    seed: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    lanes: int | None = None,
    put: Callable[[dict[str, Any]], Any] | None = None,
) -> grain.DatasetIterator:
    """An endless iterator of this host's rows of each batch.

    Batches have what ``device.sample_batch`` returns, as NumPy arrays or as ``put`` makes them; of
    sources in the common form also images, resized, uint8 [B, T, h, w, 3], their masks [B, T],
    "instruction" [B, L] and "quality" {label: [B]}. A thread keeps ``config.prefetch`` of them
    ready; ``get_state()`` is the state after the batch that ``next`` returned last, whatever has
    been prefetched: small, JSON-able, and ``set_state`` continues exactly from there.

    Args:
      mixture: sources, with ``shuffle_window``, ``shuffle_memory`` and ``prefetch`` in their
        config.
      law, schedule: give sigma and P(source | sigma).
      seed: of the run.
      batch_size: B over all hosts.
      process_index, process_count: this host and the number of hosts.
      lanes: parts that the data are dealt in; as many as hosts by default.
      put: applied to each batch in the thread, to send it to devices.

    Raises:
      ValueError: a batch size, window or number of hosts that cannot work; while iterating, data
        that cannot be read, named by episode.
    """
    config = mixture.config
    lanes = process_count if lanes is None else lanes
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index is {process_index}, expected 0 to {process_count - 1} for "
            f"{process_count} hosts"
        )
    if lanes < 1 or lanes % process_count:
        raise ValueError(
            f"the data are dealt in {lanes} lanes, expected a multiple of the {process_count} "
            "hosts: run on a number of hosts that divides it, or set config.data.shards for a new "
            "run"
        )
    if batch_size < 1 or batch_size % lanes:
        raise ValueError(
            f"batch_size is {batch_size}, expected a positive multiple of the {lanes} lanes of "
            f"{process_count} hosts"
        )
    options.check(config)
    batches: grain.IterDataset = _Batches(
        *(_BatchIterator, mixture, law, schedule, seed, batch_size),
        *(process_index, process_count, lanes),
    )
    if mixture.form and mixture.form.cameras:
        batches = _Batches(_Decoded, batches, mixture)
    if put is not None:
        batches = batches.map(put)
    iterator = iter(
        grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=config.prefetch)
    )
    _ITERATORS.add(iterator)
    return iterator


def merge(states: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The states of all hosts at one step as one, which any number of hosts can be set to."""
    states = list(states)
    taken = {lane: counts for state in states for lane, counts in state["taken"].items()}
    return {**states[0], "taken": taken}


def _close_all():
    for iterator in list(_ITERATORS):
        iterator.close()
        # Grain closes once more in __del__, when its own modules are gone.
        iterator.close = lambda: None


# A thread that still reads while the interpreter is taken apart fails noisily, or in XLA.
_ITERATORS: weakref.WeakSet[grain.DatasetIterator] = weakref.WeakSet()
atexit.register(_close_all)


class _Batches(grain.IterDataset):
    def __init__(self, kind, *arguments):
        super().__init__()
        self._kind, self._arguments = kind, arguments

    def __iter__(self):
        return self._kind(*self._arguments)


class _BatchIterator(grain.DatasetIterator):
    """Batches in which images are still encoded, [B, T] of bytes."""

    def __init__(
        self, mixture, law, schedule, seed, batch_size, process_index, process_count, lanes
    ):
        super().__init__()
        config = mixture.config
        self._prepared = mixture
        self._history, self._horizon = config.history, config.horizon
        self._padding = config.padding
        self._rows = batch_size // process_count
        self._cut = mixture.units
        mine = lanes // process_count
        self._lanes = process_index * mine + np.arange(mine)
        self._lane = np.repeat(np.arange(mine), self._rows // mine)  # of each row
        self._executor = futures.ThreadPoolExecutor(_READERS, "ambient-jax-reader")
        self._streams = self._open_streams(seed, lanes)
        self._draws = noise_first.HostDraws(
            jax.random.key(seed),
            process_index * self._rows + np.arange(self._rows),
            law,
            self._cut.sources,
            schedule,
        )
        _, bounded = mixing.resolve(law, self._cut.sources)
        self._bounds = np.asarray(bounded.sigma_min), np.asarray(bounded.sigma_max)
        self._step = 0
        data = [
            (mixture.fingerprints[n], mixture.statistics[n].lengths.tobytes())
            for n in mixture.names
        ]
        # The order of chunks hangs on these: a state means nothing under others.
        self._of = {
            "seed": seed,
            "batch_size": batch_size,
            "lanes": lanes,
            "shuffle_window": config.shuffle_window,
            "shuffle_memory": config.shuffle_memory,
            "sources": hashlib.sha256(repr(data).encode()).hexdigest()[:16],
        }
        self._fresh = True

    def _open_streams(self, seed, lanes):
        windows = _windows(self._prepared, self._cut)
        count = len(windows) * len(self._lanes)
        _allow_open_files(count * 2 + 2 * _OPEN_FILES * len(self._lanes))
        streams = []
        for lane in self._lanes.tolist():
            for u, (k, within) in enumerate(zip(self._cut.owner, self._cut.within, strict=True)):
                of_step = self._cut.of_step[k]
                streams.append(
                    ChunkStream(
                        self._prepared,
                        int(k),
                        window=windows[u],
                        seed=seed,
                        lane=lane,
                        lanes=lanes,
                        executor=self._executor,
                        unit=u,
                        keep=None if of_step is None else of_step == within,
                        interleave=min(INTERLEAVE, max(2, _OPEN_FILES // len(windows))),
                    )
                )
        return np.array(streams, object).reshape(len(self._lanes), -1)

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        sigma, unit = self._draws(self._step)
        if self._fresh:  # the first windows of all sources, side by side
            for lane, u in np.unique(np.stack([self._lane, unit], 1), axis=0):
                self._streams[lane, u].read_ahead()
            self._fresh = False
        batch: dict[str, Any] = {"id": np.empty((self._rows, 3), np.int32)}
        batch["sigma"], batch["source"] = sigma.copy(), self._cut.owner[unit]
        batch["sigma_min"], batch["sigma_max"] = (b[unit] for b in self._bounds)
        batch["id"][:, 0] = batch["source"]
        found: dict[str, np.ndarray] = {}
        for lane, streams in enumerate(self._streams):
            here = np.flatnonzero(self._lane == lane)
            for u in np.unique(unit[here]):
                rows = here[unit[here] == u]
                done = 0
                for window, steps in streams[u].take(len(rows)):
                    self._fill(found, batch["id"], rows[done : done + len(steps)], window, steps)
                    done += len(steps)
        self._step += 1
        return self._finished(batch, found)

    def _fill(self, found, ids, rows, window, steps):
        """Puts chunks into their rows of ``found``, which grows by the arrays that come."""
        start, end = window.start[steps], window.end[steps]
        observation, action, mask = chunk.gather(
            window.steps, steps, start, end, self._history, self._horizon, np, self._padding
        )
        pieces = {f"{chunk.OBSERVATION}{n}": v for n, v in observation.items()}
        pieces |= {"action": action, "mask": mask}
        used = (*pieces, chunk.STILL)
        pieces |= {n: v[steps] for n, v in window.steps.items() if n not in used}
        for name, values in pieces.items():
            if name not in found:
                found[name] = np.empty((self._rows, *values.shape[1:]), values.dtype)
            found[name][rows] = values
        ids[rows, 1] = window.episode[steps]
        ids[rows, 2] = steps - start

    def _finished(self, batch, found):
        observation, quality = {}, {}
        for name, values in found.items():
            if name == "instruction":
                observation[name] = self._prepared.form.encode(list(values))
            elif name.startswith(chunk.OBSERVATION):
                observation[name.removeprefix(chunk.OBSERVATION)] = values
            elif name.startswith("quality/"):
                quality[name.removeprefix("quality/")] = values
            else:
                batch[name] = values
        batch["observation"] = observation
        if quality:
            batch["quality"] = quality
        return device.with_constants(batch, self._prepared.constants, self._history, np)

    def get_state(self) -> dict[str, Any]:
        taken = {
            str(lane): [s.taken for s in streams]
            for lane, streams in zip(self._lanes, self._streams, strict=True)
        }
        return {"step": self._step, "taken": taken, "of": self._of}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in self._of.items():
            if state["of"].get(name) != value:
                raise ValueError(
                    f"the state is that of a stream with {name} {state['of'].get(name)!r}, this "
                    f"one has {value!r}: resume with the same data, batch and lanes"
                )
        for lane in self._lanes:
            if str(lane) not in state["taken"]:
                raise ValueError(
                    f"the state has lanes {', '.join(state['taken'])}, expected also {lane}: give "
                    "the states of all hosts, merged"
                )
        self._step, self._fresh = state["step"], True
        for lane, streams in zip(self._lanes, self._streams, strict=True):
            for stream, taken in zip(streams, state["taken"][str(lane)], strict=True):
                stream.taken = taken

    def close(self) -> None:
        if not self._closed:
            self._executor.shutdown(wait=False, cancel_futures=True)
        super().close()


class _Decoded(grain.DatasetIterator):
    """Images decoded by a pool of threads, some batches ahead of the one that is taken."""

    _AHEAD = 2

    def __init__(self, batches, mixture):
        super().__init__()
        self._batches = iter(batches)
        self._names, self._form = mixture.names, mixture.form
        self._problems = {n: mixture.statistics[n].problems for n in mixture.names}
        self._bgr = {
            camera: np.array([mixture.datasets[n].bgr[camera] for n in mixture.names])
            for camera in self._form.cameras
        }
        self._decoder: images.ImageDecoder | None = None
        self._pending: collections.deque[tuple] = collections.deque()
        self._state = self._batches.get_state()

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        if self._decoder is None:
            self._refuse()
        while len(self._pending) < self._AHEAD:
            batch = next(self._batches)
            self._pending.append((batch, self._submit(batch), self._batches.get_state()))
        batch, pending, self._state = self._pending.popleft()
        decoded, failures = pending.result()
        if failures:
            self._tell(batch, failures)
        observation = batch["observation"]
        shape = next(observation[f"image_{c}"].shape for c in self._form.cameras)
        size = shape[0] * shape[1]
        bad = np.zeros(size * len(self._form.cameras), bool)
        bad[list(failures)] = True
        for i, camera in enumerate(self._form.cameras):
            part, name = slice(i * size, (i + 1) * size), f"image_{camera}"
            there = np.array([bool(blob) for blob in observation[name].flat]) & ~bad[part]
            observation[name] = decoded[part].reshape(*shape, *decoded.shape[1:])
            observation[f"{name}_mask"] = there.reshape(shape)
        return batch

    def _refuse(self):
        """Damaged images that the pass over the data found, before the first batch."""
        for name, problems in self._problems.items():
            found = problems.get("image")
            if found and self._form.policy("image") == "raise":
                index, told = found["examples"][0]
                raise ValueError(
                    f"source {name!r} has damaged images in {found['episodes']} episodes (episode "
                    f"{index}: {told}); mend them, or set config.data.open_x.on_problem.image to "
                    "'skip' or 'keep'"
                )

    def _submit(self, batch):
        blobs, bgr = [], []
        for camera in self._form.cameras:
            found = batch["observation"][f"image_{camera}"]
            blobs += list(found.flat)
            bgr.append(np.repeat(self._bgr[camera][batch["source"]], found.shape[1]))
        if self._decoder is None:
            size, workers = tuple(self._form.image_size), self._form.workers
            self._decoder = images.ImageDecoder(size, workers=workers)
        return self._decoder.submit(blobs, np.concatenate(bgr))

    def _tell(self, batch, failures):
        cameras = self._form.cameras
        rows, history = batch["observation"][f"image_{cameras[0]}"].shape
        for index, reason in failures.items():
            camera, row = cameras[index // (rows * history)], index // history % rows
            source, episode, step = batch["id"][row].tolist()
            step = max(0, step - (history - 1 - index % history))
            told = (
                f"source {self._names[source]!r}, episode {episode}, step {step}: image of the "
                f"{camera} camera cannot be decoded ({reason})"
            )
            if self._form.policy("image") != "keep":
                raise ValueError(
                    f"{told}; mend the data, or set config.data.open_x.on_problem.image to 'keep', "
                    "which masks it, or 'skip', which leaves its episode out"
                )
            logging.log_first_n(logging.WARNING, "%s: it is masked", 100, told)

    def get_state(self) -> dict[str, Any]:
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        self._pending.clear()
        self._batches.set_state(state)
        self._state = state

    def close(self) -> None:
        if not self._closed:
            self._batches.close()
            if self._decoder is not None:
                self._decoder.close()
        super().close()


def _windows(mixture, cut):
    """Steps of each unit's window, in one lane.

    The memory goes to units by their size in the mixture, half of a unit's share to the window in
    use and half to the next. No law and no number of hosts changes it.
    """
    config = mixture.config
    limit = np.full(len(cut.owner), config.shuffle_window)
    if config.shuffle_memory is not None:
        sizes = np.array([mixture.statistics[n].step_bytes for n in mixture.names], np.float64)
        weight = np.asarray(cut.sources.weight, np.float64)
        share = config.shuffle_memory * 2**30 / 2 * weight / weight.sum()
        limit = np.minimum(limit, np.maximum(1, share // sizes[cut.owner]))
    return [int(n) for n in limit]


def _allow_open_files(count):
    """Raises this process's limit of open files where it is too low and may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
