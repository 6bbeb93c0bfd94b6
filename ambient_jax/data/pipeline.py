"""Streams batches from disk, noise first: element n is a function of (seed, n).

Row r of step s draws (sigma, group) from (seed, s, r), see ``noise_first``, and takes the next
chunk of that group in the row's shard, see ``stream``. The iterator's state is the step and the
number of chunks taken from each group in each shard.

A batch of B rows has B / shards rows of each shard, in order; a host has the rows of its shards. So
a run resumes exactly on any number of hosts that divides its shards.
"""

import atexit
import collections
import functools
import hashlib
import resource
import weakref
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import grain
import jax
import numpy as np

from ambient_jax import _checks, mixing, schedules
from ambient_jax.data import chunk, device, images, noise_first
from ambient_jax.data.mixture import Mixture, open_mixture
from ambient_jax.data.stream import INTERLEAVE, ChunkStream

__all__ = ["Mixture", "open_mixture", "stream_batches"]

_READERS = 2
_OPEN_FILES = 256  # open files of one shard


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
    "quality" {label: [B]}. A thread keeps ``config.prefetch`` batches ready. ``get_state()``
    returns the small JSON state after the last batch of ``next``; ``set_state`` continues exactly
    from there.

    Args:
      mixture: sources, with ``shuffle_window``, ``shuffle_memory`` and ``prefetch`` in their
        config.
      law, schedule: give sigma and P(source | sigma).
      seed: seed of the run.
      batch_size: B over all hosts.
      process_index, process_count: this host and the number of hosts.
      shards: parts of the data; as many as hosts by default.
      put: function that the thread applies to a batch, such as sending it to devices.

    Raises:
      ValueError: the batch size, window or number of hosts is impossible; while iterating, data
        cannot be read (the message names the episode).
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
    if mixture.chain.images:
        batches = _Batches(_DecodedBatches, batches, mixture)
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
    """Batches in which images are still encoded, [B, T] of bytes."""

    def __init__(
        self, mixture, law, schedule, seed, batch_size, process_index, process_count, shards
    ):
        super().__init__()
        config = mixture.config
        self._mixture, self._groups = mixture, mixture.groups
        self._history, self._horizon = config.history, config.horizon
        self._rows = batch_size // process_count
        local = shards // process_count
        self._shards = process_index * local + np.arange(local)
        self._shard = np.repeat(np.arange(local), self._rows // local)  # of each row
        self._executor = futures.ThreadPoolExecutor(_READERS, "ambient-jax-reader")
        self._streams = self._open_streams(seed, shards)
        rows, sources = process_index * self._rows + np.arange(self._rows), self._groups.sources
        self._draws = noise_first.HostDraws(jax.random.key(seed), rows, law, sources, schedule)
        _, bounded = mixing.resolve(law, sources)
        self._bounds = np.asarray(bounded.sigma_min), np.asarray(bounded.sigma_max)
        self._step = 0
        prints, statistics = mixture.fingerprints, mixture.statistics
        data = [(prints[n], statistics[n].lengths.tobytes()) for n in mixture.names]
        # The order of chunks depends on these: a state is valid only with the same values.
        self._settings = {"seed": seed, "batch_size": batch_size, "shards": shards}
        self._settings |= {n: config[n] for n in ("shuffle_window", "shuffle_memory")}
        self._settings["sources"] = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
        self._fresh = True

    def _open_streams(self, seed, shards):
        windows, groups = _windows(self._mixture), self._groups
        _allow_open_files(2 * len(self._shards) * (len(windows) + _OPEN_FILES))
        interleave = min(INTERLEAVE, max(2, _OPEN_FILES // len(windows)))
        options = {"seed": seed, "shards": shards, "executor": self._executor}
        options["interleave"] = interleave
        streams = np.empty((len(self._shards), len(windows)), object)
        for i, g in np.ndindex(streams.shape):
            k = int(groups.owner[g])
            of_step = groups.of_step[k]
            keep = None if of_step is None else of_step == groups.within[g]
            place = {"shard": int(self._shards[i]), "group": g, "keep": keep, "window": windows[g]}
            streams[i, g] = ChunkStream(self._mixture, k, **place, **options)
        return streams

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        sigma, group = self._draws(self._step)
        if self._fresh:  # the first windows of all sources, side by side
            for shard, g in np.unique(np.stack([self._shard, group], 1), axis=0):
                self._streams[shard, g].read_ahead()
            self._fresh = False
        batch: dict[str, Any] = {"id": np.empty((self._rows, 3), np.int32)}
        batch["sigma"], batch["source"] = sigma.copy(), self._groups.owner[group]
        batch["sigma_min"], batch["sigma_max"] = (b[group] for b in self._bounds)
        batch["id"][:, 0] = batch["source"]
        fields: dict[str, np.ndarray] = {}
        for shard, streams in enumerate(self._streams):
            rows_of_shard = np.flatnonzero(self._shard == shard)
            for g in np.unique(group[rows_of_shard]):
                rows = rows_of_shard[group[rows_of_shard] == g]
                done = 0
                for window, steps in streams[g].take(len(rows)):
                    self._fill(fields, batch["id"], rows[done : done + len(steps)], window, steps)
                    done += len(steps)
        self._step += 1
        return self._finished(batch, fields)

    def _fill(self, fields, ids, rows, window, steps):
        """Puts chunks into their rows of ``fields``, and adds new fields to it."""
        start, end, padding = window.start[steps], window.end[steps], self._mixture.config.padding
        observation, action, mask = chunk.gather(
            window.steps, steps, start, end, self._history, self._horizon, np, padding
        )
        pieces = {f"{chunk.OBSERVATION}{n}": v for n, v in observation.items()}
        pieces |= {"action": action, "mask": mask}
        cut = (*pieces, chunk.STILL)
        pieces |= {n: v[steps] for n, v in window.steps.items() if n not in cut}
        for name, values in pieces.items():
            if name not in fields:
                fields[name] = np.empty((self._rows, *values.shape[1:]), values.dtype)
            fields[name][rows] = values
        ids[rows, 1] = window.episode[steps]
        ids[rows, 2] = steps - start

    def _finished(self, batch, fields):
        observation, quality = {}, {}
        encoders = self._mixture.chain.encoders()
        for name, values in fields.items():
            if name in encoders:
                observation[name] = encoders[name](list(values))
            elif name.startswith(chunk.OBSERVATION):
                observation[name.removeprefix(chunk.OBSERVATION)] = values
            elif name.startswith("quality/"):
                quality[name.removeprefix("quality/")] = values
            else:
                batch[name] = values
        batch |= {"observation": observation} | ({"quality": quality} if quality else {})
        return device.with_constants(batch, self._mixture.constants, self._history, np)

    def get_state(self) -> dict[str, Any]:
        taken = {
            str(shard): [s.taken for s in streams]
            for shard, streams in zip(self._shards, self._streams, strict=True)
        }
        return {"step": self._step, "taken": taken, "of": self._settings}

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
        self._step, self._fresh = state["step"], True
        for shard, streams in zip(self._shards, self._streams, strict=True):
            for stream, taken in zip(streams, state["taken"][str(shard)], strict=True):
                stream.taken = taken

    def close(self) -> None:
        if not self._closed:
            self._executor.shutdown(wait=False, cancel_futures=True)
        super().close()


class _DecodedBatches(grain.DatasetIterator):
    """Batches whose images are decoded by threads, ahead of the batch in use."""

    _AHEAD = 2

    def __init__(self, batches, mixture):
        super().__init__()
        self._batches = iter(batches)
        self._mixture, self._images = mixture, mixture.chain.images
        self._sources = [mixture.datasets[n] for n in mixture.names]
        self._decoder: images.ImageDecoder | None = None
        self._pending: collections.deque[tuple] = collections.deque()
        self._state = self._batches.get_state()

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        if self._decoder is None:
            for name, source in self._mixture.datasets.items():
                source.refuse_images(self._mixture.statistics[name].problems)
        while len(self._pending) < self._AHEAD:
            batch = next(self._batches)
            self._pending.append((batch, self._submit(batch), self._batches.get_state()))
        batch, pending, self._state = self._pending.popleft()
        decoded, failures = pending.result()
        observation, cameras = batch["observation"], self._images.cameras
        for index, reason in failures.items():
            self._report(batch, index, reason)
        shape = len(cameras), *observation[f"image_{cameras[0]}"].shape
        bad = np.zeros(len(decoded), bool)
        bad[list(failures)] = True
        bad, decoded = bad.reshape(shape), decoded.reshape(*shape, *decoded.shape[1:])
        for i, camera in enumerate(cameras):
            name = f"image_{camera}"
            observation[f"{name}_mask"] = images.are_there(observation[name]) & ~bad[i]
            observation[name] = decoded[i]
        return batch

    def _submit(self, batch):
        blobs, bgr = [], []
        for camera in self._images.cameras:
            encoded = batch["observation"][f"image_{camera}"]
            blobs += list(encoded.flat)
            flipped = np.array([source.bgr.get(camera, False) for source in self._sources])
            bgr.append(np.repeat(flipped[batch["source"]], encoded.shape[1]))
        if self._decoder is None:
            workers = self._mixture.format.workers
            self._decoder = images.ImageDecoder(self._images.size, workers=workers)
        return self._decoder.submit(blobs, np.concatenate(bgr))

    def _report(self, batch, index, reason):
        """Reports an image that cannot be decoded to its source, which may refuse it."""
        cameras = self._images.cameras
        rows, history = batch["observation"][f"image_{cameras[0]}"].shape
        camera, row = cameras[index // (rows * history)], index // history % rows
        k, episode, step = batch["id"][row].tolist()
        step = max(0, step - (history - 1 - index % history))
        self._sources[k].damaged_image(
            f"source {self._mixture.names[k]!r}, episode {episode}, step {step}: image of the "
            f"{camera} camera cannot be decoded ({reason})"
        )

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


def _windows(mixture):
    """Returns the steps of each group's window, in one shard.

    Memory is shared by weight; a group uses half for its window in use and half for the next.
    """
    config, groups = mixture.config, mixture.groups
    limit = np.full(len(groups.owner), config.shuffle_window)
    if config.shuffle_memory is not None:
        sizes = np.array([mixture.statistics[n].step_bytes for n in mixture.names], np.float64)
        weight = np.asarray(groups.sources.weight, np.float64)
        share = config.shuffle_memory * 2**30 / 2 * weight / weight.sum()
        limit = np.minimum(limit, np.maximum(1, share // sizes[groups.owner]))
    return [int(n) for n in limit]


def _allow_open_files(count):
    """Raises this process's limit of open files, if it is too low and may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
