"""Streams one group's chunks in one shard, shuffled by (seed, group, shard, position).

Episodes are dealt to shards, which together read each episode once an epoch; a host has some of the
shards. An epoch visits the shard's episodes in a shuffled order, cut into windows of whole episodes
with about ``window`` steps; the chunks of a window come in random order. The lengths of all
episodes are known, so the number of chunks taken is the whole state.

Memory holds two windows (the next one is read while the current one is used), each of ``window``
steps and one episode. Data that fit in one window are read once.
"""

import dataclasses
import functools
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np

from ambient_jax.data import chunk
from ambient_jax.data.mixture import Mixture

# Number of files read in order at once; their episodes alternate.
INTERLEAVE = 16


@dataclasses.dataclass(frozen=True)
class Window:
    """Steps of some whole episodes, and the order of their chunks."""

    steps: dict[str, np.ndarray]  # [N, ...] each, see ``mixture.Mixture.read_all``
    start: np.ndarray  # [N], of each step's episode, as ``end``
    end: np.ndarray
    episode: np.ndarray  # [N], its id
    order: np.ndarray  # positions of the chunks


@dataclasses.dataclass(frozen=True)
class _Plan:
    """An epoch: positions of its episodes in order, and where its windows begin."""

    episodes: np.ndarray
    edges: np.ndarray  # window w has episodes[edges[w] : edges[w + 1]]
    begins: np.ndarray  # chunks before window w


def permutation(size: int, *key: int) -> np.ndarray:
    """Returns a random order of 0 ... ``size`` - 1, from non-negative integers ``key``.

    It sorts raw bits, which are the same in all versions of NumPy, unlike its shuffles: a run may
    resume with another version.
    """
    bits = np.random.Philox(np.random.SeedSequence(key)).random_raw(size)
    return np.argsort(bits, kind="stable")


class ChunkStream:
    """Yields endless chunks of one group in one shard.

    Shard s has the episodes s, s + shards, ...; if files are read in order (TFRecord, LeRobot v3),
    it has a range of consecutive episodes, to read few files. With fewer episodes than shards, it
    has every shards-th step.

    Attributes:
      size: chunks in an epoch of this shard.
      taken: number of chunks taken so far; set it to move.
    """

    def __init__(
        self,
        mixture: Mixture,
        k: int,
        *,
        window: int,
        seed: int,
        shard: int = 0,
        shards: int = 1,
        executor: futures.Executor,
        group: int | None = None,
        keep: np.ndarray | None = None,
        interleave: int = INTERLEAVE,
    ):
        """Opens no file yet.

        Args:
          mixture, k: the sources, and the number of this source.
          window: number of steps that are shuffled together.
          seed: seed of the run.
          shard, shards: this shard, and the number of shards.
          executor: reads ahead.
          group: number of the group; by default k.
          keep: [N] bool, the steps of the source that belong to the group; None for all.
          interleave: number of files read in order at once.

        Raises:
          ValueError: there are fewer steps than shards.
        """
        self._mixture, self._k, self._keep = mixture, k, keep
        self._window_size, self._interleave = window, interleave
        self._key = (seed % 2**64, k if group is None else group, shard)
        name = mixture.names[k]
        self._dataset = mixture.datasets[name]
        self._lengths = mixture.statistics[name].lengths
        self._first = np.cumsum(self._lengths) - self._lengths
        self._ends = np.cumsum(self._dataset.shard_lengths)  # positions, of each file
        self._in_order = self._dataset.in_order
        parts, self._keep = deal(self._lengths, keep, self._in_order, name, shard, shards)
        self._counts = self._lengths
        if self._keep is not None:
            total = np.append(0, np.cumsum(self._keep))
            self._counts = total[self._first + self._lengths] - total[self._first]
        self._runs = [parts]
        if self._in_order:
            files = np.searchsorted(self._ends, parts, side="right")
            self._runs = np.split(parts, np.flatnonzero(np.diff(files)) + 1)
        self.size = int(self._counts[parts].sum())
        self._resident = int(self._lengths[parts].sum()) <= window
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
        with self._loading:  # open files would otherwise stay open until their next use
            self._open.clear()

    def take(self, count: int) -> Iterator[tuple[Window, np.ndarray]]:
        """Yields the next ``count`` chunks as pieces (window, positions in it)."""
        while count:
            window = self._window or self._enter()
            piece = window.order[self._position : self._position + count]
            yield window, piece
            count -= len(piece)
            self._taken += len(piece)
            self._position += len(piece)
            if self._position == len(window.order):
                self._window = None

    def read_ahead(self) -> None:
        """Starts to read the first window of ``take``."""
        place, _ = self._place()
        self._ahead = place, self._executor.submit(self._load, *place)

    def _place(self):
        epoch, offset = divmod(self._taken, self.size)
        begins = self._plan(epoch).begins
        number = int(np.searchsorted(begins, offset, side="right")) - 1
        return (epoch, number), offset - int(begins[number])

    def _enter(self):
        place, self._position = self._place()
        epoch, number = place
        ready = self._ahead is not None and self._ahead[0] == place
        self._window = window = self._ahead[1].result() if ready else self._load(*place)
        last = number + 1 == len(self._plan(epoch).begins)
        after = (epoch + 1, 0) if last else (epoch, number + 1)
        self._ahead = after, self._executor.submit(self._load, *after)
        return window

    def _make_plan(self, epoch):
        if self._in_order:
            episodes = self._interleaved(epoch)
        else:
            episodes = self._runs[0][permutation(len(self._runs[0]), *self._key, epoch)]
        lengths, counts = self._lengths[episodes], self._counts[episodes]
        reads = np.cumsum(lengths) - lengths
        begins = np.cumsum(counts) - counts
        # Each epoch has another phase, or a file that is read in order would give the same windows.
        phase = 0 if self._resident else int(permutation(self._window_size, *self._key, epoch)[0])
        edges = np.flatnonzero(np.diff((reads + phase) // self._window_size, prepend=-1))
        return _Plan(episodes, np.append(edges, len(episodes)), begins[edges])

    def _interleaved(self, epoch):
        """Orders files at random, several at a time, and alternates their episodes."""
        slots = permutation(len(self._runs), *self._key, epoch)
        runs = [self._runs[i] for i in slots]
        within = np.concatenate([np.arange(len(r)) for r in runs])
        slot = np.repeat(np.arange(len(runs)), [len(r) for r in runs])
        return np.concatenate(runs)[np.lexsort((slot, within, slot // self._interleave))]

    def _load(self, epoch: int, number: int) -> Window:
        with self._loading:
            if self._resident:
                unshuffled = self._everything
            else:
                plan = self._plan(epoch)
                unshuffled = self._read(plan.episodes[plan.edges[number] : plan.edges[number + 1]])
        # The 1 makes this key differ from that of the episodes' order.
        order = permutation(len(unshuffled.order), *self._key, epoch, number, 1)
        return dataclasses.replace(unshuffled, order=unshuffled.order[order])

    @functools.cached_property
    def _everything(self):
        return self._read(np.concatenate(self._runs))

    def _read(self, episodes) -> Window:
        parts, ids, keep = [], [], []
        for position in episodes.tolist():
            index, raw = self._episode(position)
            parts.append(self._mixture.read_all(self._k, index, raw))
            ids.append(index)
            if self._keep is not None:
                first = self._first[position]
                keep.append(self._keep[first : first + self._lengths[position]])
        steps = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
        lengths = np.asarray([len(p[chunk.ACTION]) for p in parts])
        ends = np.cumsum(lengths)
        return Window(
            steps,
            np.repeat(ends - lengths, lengths),
            np.repeat(ends, lengths),
            np.repeat(np.asarray(ids, np.int32), lengths),
            np.flatnonzero(np.concatenate(keep)) if keep else np.arange(ends[-1]),
        )

    def _episode(self, position):
        if not self._in_order:
            return int(self._dataset.episode_ids[position]), self._dataset[position]
        file = int(np.searchsorted(self._ends, position, side="right"))
        episodes, expected = self._open.pop(file, (iter(()), -1))
        if expected != position:
            start = position - int(self._ends[file]) + self._dataset.shard_lengths[file]
            episodes = self._dataset.stream(file, start)
        numbered = next(episodes)
        if position + 1 < self._ends[file]:
            self._open[file] = episodes, position + 1
        return numbered


def deal(
    lengths: np.ndarray,
    keep: np.ndarray | None,
    in_order: bool,
    name: str,
    shard: int,
    shards: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the positions of a shard's episodes, and the steps of the source that it takes.

    Shards are disjoint and together complete. ``lengths`` are the source's lengths of episodes; for
    the others see ``ChunkStream``. Raises ValueError if there are fewer steps than shards.
    """
    filled = np.flatnonzero(lengths) if keep is None else _episodes_of(keep, lengths)
    if len(filled) < shards:
        steps = np.arange(lengths.sum()) if keep is None else np.flatnonzero(keep)
        if len(steps) < shards:
            raise ValueError(
                f"source {name!r} has {len(steps)} steps for {shards} shards: set "
                "config.data.shards to fewer, run on fewer hosts, or set config.data.placement to "
                "'device'"
            )
        keep = np.zeros(lengths.sum(), bool)
        keep[steps[shard::shards]] = True
        return _episodes_of(keep, lengths), keep
    if in_order:
        first, last = (len(filled) * (shard + i) // shards for i in (0, 1))
        return filled[first:last], keep
    return filled[shard::shards], keep


def _episodes_of(keep, lengths):
    return np.unique(np.repeat(np.arange(len(lengths)), lengths)[keep])
