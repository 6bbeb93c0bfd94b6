"""One source's chunks on one host, shuffled: a function of (seed, source, host, position).

An epoch visits the host's episodes in a shuffled order, cut into windows of whole episodes with
some ``window`` chunks; the chunks of a window come in random order. Because the lengths of all
episodes are known, where chunk n lies is arithmetic: the number of chunks taken is the whole state,
and nothing that was read needs to be saved.

Memory is bounded by two windows (the next one is read while the present one is used), a window by
``window`` chunks and one episode. A source that fits in one window is read once.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np

from ambient_jax.data import chunk
from ambient_jax.data.sources import Prepared

# TFRecord shards that are open at once: their episodes take turns.
_INTERLEAVE = 16


@dataclasses.dataclass(frozen=True)
class Window:
    """Steps of some whole episodes, and the order in which their chunks come.

    Attributes:
      steps: "action" [N, D] and "observation/<name>" [N, d], normalised.
      start, end: [N], positions of each step's episode.
      episode: [N], its id.
      order: a permutation of the N positions.
    """

    steps: dict[str, np.ndarray]
    start: np.ndarray
    end: np.ndarray
    episode: np.ndarray
    order: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Plan:
    """An epoch: positions of its episodes in order, and where its windows begin."""

    episodes: np.ndarray
    edges: np.ndarray  # window w has episodes[edges[w] : edges[w + 1]]
    begins: np.ndarray  # chunks before window w


def permutation(size: int, *key: int) -> np.ndarray:
    """A random order of ``size`` things, from non-negative integers.

    Sorts raw bits, which NumPy promises never to change; its own shuffles may, and a run must be
    able to resume under another version.
    """
    bits = np.random.Philox(np.random.SeedSequence(key)).random_raw(size)
    return np.argsort(bits, kind="stable")


class ChunkStream:
    """Chunks of source k that belong to one host, for ever.

    Episodes are dealt to hosts so that all hosts together read each one once an epoch. With
    array_record, host h has the episodes h, h + process_count...; with TFRecord it has a range of
    consecutive ones, so that it reads few shards, each of them in order.

    Attributes:
      size: chunks of this host in an epoch.
      taken: chunks taken so far; set it to move.
    """

    def __init__(
        self,
        prepared: Prepared,
        k: int,
        *,
        window: int,
        seed: int,
        process_index: int,
        process_count: int,
        executor: futures.Executor,
    ):
        self._prepared, self._k = prepared, k
        self._window_size = window
        self._key = (seed % 2**64, k, process_index)
        name = prepared.names[k]
        self._dataset = prepared.datasets[name]
        self._lengths = prepared.statistics[name].lengths
        parts = host_episodes(
            self._lengths, self._dataset.file_format, name, process_index, process_count
        )
        if self._dataset.file_format == "tfrecord":
            ends = np.cumsum(self._dataset.shard_lengths)
            shards = np.searchsorted(ends, parts, side="right")
            self._runs = np.split(parts, np.flatnonzero(np.diff(shards)) + 1)
        else:
            self._runs = [parts]
        self.size = int(self._lengths[parts].sum())
        self._resident = self.size <= window
        self._executor = executor
        self._loading = threading.Lock()
        self._open: dict[int, tuple[Iterator[Any], int]] = {}
        self._ahead: tuple[tuple[int, int], futures.Future[Window]] | None = None
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)
        self._taken = 0
        self._window: Window | None = None
        self._position = 0

    @property
    def taken(self) -> int:
        return self._taken

    @taken.setter
    def taken(self, count: int):
        self._taken, self._window = count, None
        with self._loading:  # files left open would stay so until their shard's turn comes
            self._open.clear()

    def take(self, count: int) -> Iterator[tuple[Window, np.ndarray]]:
        """The next ``count`` chunks as pieces (window, positions in it)."""
        while count:
            if self._window is None:
                self._enter()
            piece = self._window.order[self._position : self._position + count]
            yield self._window, piece
            count -= len(piece)
            self._taken += len(piece)
            self._position += len(piece)
            if self._position == len(self._window.order):
                self._window = None

    def _enter(self):
        epoch, offset = divmod(self._taken, self.size)
        begins = self._plan(epoch).begins
        number = int(np.searchsorted(begins, offset, side="right")) - 1
        here = (epoch, number)
        if self._ahead is not None and self._ahead[0] == here:
            self._window = self._ahead[1].result()
        else:
            self._window = self._load(*here)
        self._position = offset - int(begins[number])
        after = (epoch, number + 1) if number + 1 < len(begins) else (epoch + 1, 0)
        self._ahead = after, self._executor.submit(self._load, *after)

    def _make_plan(self, epoch):
        if self._dataset.file_format == "tfrecord":
            episodes = self._interleaved(epoch)
        else:
            episodes = self._runs[0][permutation(len(self._runs[0]), *self._key, epoch)]
        lengths = self._lengths[episodes]
        begins = np.cumsum(lengths) - lengths
        # Another phase each epoch: else one TFRecord shard would always give the same windows.
        phase = 0 if self._resident else int(permutation(self._window_size, *self._key, epoch)[0])
        edges = np.flatnonzero(np.diff((begins + phase) // self._window_size, prepend=-1))
        return _Plan(episodes, np.append(edges, len(episodes)), begins[edges])

    def _interleaved(self, epoch):
        """Shards in shuffled order, a group of them at a time, one episode of each in turn."""
        slots = permutation(len(self._runs), *self._key, epoch)
        runs = [self._runs[i] for i in slots]
        within = np.concatenate([np.arange(len(r)) for r in runs])
        slot = np.repeat(np.arange(len(runs)), [len(r) for r in runs])
        return np.concatenate(runs)[np.lexsort((slot, within, slot // _INTERLEAVE))]

    def _load(self, epoch: int, number: int) -> Window:
        with self._loading:
            if self._resident:
                unshuffled = self._everything
            else:
                plan = self._plan(epoch)
                unshuffled = self._read(plan.episodes[plan.edges[number] : plan.edges[number + 1]])
        # The 1 keeps this key apart from that of the episodes' order.
        order = permutation(len(unshuffled.order), *self._key, epoch, number, 1)
        return dataclasses.replace(unshuffled, order=order)

    @functools.cached_property
    def _everything(self):
        return self._read(np.concatenate(self._runs))

    def _read(self, episodes) -> Window:
        parts, ids = [], []
        for position in episodes.tolist():
            index, raw = self._episode(position)
            parts.append(self._prepared.read(self._k, index, raw))
            ids.append(index)
        steps = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
        lengths = np.asarray([len(p[chunk.ACTION]) for p in parts])
        ends = np.cumsum(lengths)
        return Window(
            steps,
            np.repeat(ends - lengths, lengths),
            np.repeat(ends, lengths),
            np.repeat(np.asarray(ids, np.int32), lengths),
            np.arange(ends[-1]),
        )

    def _episode(self, position):
        if self._dataset.file_format != "tfrecord":
            return int(self._dataset.episode_ids[position]), self._dataset[position]
        ends = np.cumsum(self._dataset.shard_lengths)
        shard = int(np.searchsorted(ends, position, side="right"))
        episodes, expected = self._open.pop(shard, (None, -1))
        if expected != position:
            start = position - int(ends[shard]) + self._dataset.shard_lengths[shard]
            episodes = self._dataset.stream(shard, start)
        found = next(episodes)
        if position + 1 < ends[shard]:
            self._open[shard] = episodes, position + 1
        return found


def host_episodes(
    lengths: np.ndarray, file_format: str, name: str, process_index: int, process_count: int
) -> np.ndarray:
    """Positions of the episodes that one host reads; hosts are disjoint and together complete.

    Raises:
      ValueError: the source has fewer (not empty) episodes than there are hosts.
    """
    filled = np.flatnonzero(lengths)
    if len(filled) < process_count:
        raise ValueError(
            f"source {name!r} has {len(filled)} episodes for {process_count} hosts: stream it from "
            "fewer hosts, or set config.data.placement to 'device'"
        )
    if file_format == "tfrecord":
        first, last = (len(filled) * (process_index + i) // process_count for i in (0, 1))
        return filled[first:last]
    return filled[process_index::process_count]
