"""Assembles the rows of batches: takes chunks from streams and decodes their images.

An ``Assembler`` has some of a host's streams, one for each shard and group; in one process it has
all of them, see ``assemblers`` for several. It uses no JAX, which belongs to the training process.
"""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures

import numpy as np

from ambient_jax.data import chunk, images
from ambient_jax.data.mixture import Mixture
from ambient_jax.data.stream import INTERLEAVE, ChunkStream

ID = "id"  # [B, 3] = (source, episode, step)
_READERS = 2
_OPEN_FILES = 256  # open files of one shard

Layout = dict[str, tuple[tuple[int, ...], str]]  # shape of a row and dtype of each field
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The rows of a host.

    Attributes:
      mixture: the sources.
      seed: seed of the run.
      rows: rows of a batch on this host, as many of each of its shards, in order.
      local: numbers of this host's shards.
      shards: number of all shards.
    """

    mixture: Mixture
    seed: int
    rows: int
    local: np.ndarray
    shards: int

    @property
    def shard(self) -> np.ndarray:
        """Place in ``local`` of each row's shard, [rows]."""
        return np.repeat(np.arange(len(self.local)), self.rows // len(self.local))

    def keep(self, group: int) -> np.ndarray | None:
        """Returns the steps of its source that belong to a group, [N] bool; None for all."""
        groups = self.mixture.groups
        of_step = groups.of_step[int(groups.owner[group])]
        return None if of_step is None else of_step == groups.within[group]


class Assembler:
    """Assembles the rows of some of a host's streams.

    Args:
      plan: the host's rows.
      owned: [shards of the host, G] bool, the streams.
      threads: decode images; 0 decodes them in ``assemble``.

    Raises:
      ValueError: a source has fewer steps than shards.
    """

    def __init__(self, plan: Plan, owned: np.ndarray, threads: int):
        self._plan, self._mixture = plan, plan.mixture
        self._shard, self._owned, self._threads = plan.shard, owned, threads
        self._executor = futures.ThreadPoolExecutor(_READERS, "ambient-jax-reader")
        self._streams = self._open()
        step = self._mixture.chain.images
        cameras, self._size = (step.cameras, step.size) if step else ((), (0, 0))
        self._cameras = {f"{chunk.OBSERVATION}image_{c}": c for c in cameras}
        self._sources = [self._mixture.datasets[n] for n in self._mixture.names]
        self._encoders = self._mixture.chain.encoders()
        self._decoder: images.ImageDecoder | None = None
        self._fresh = True

    def _open(self):
        limits, groups = windows(self._mixture), self._mixture.groups
        _allow_open_files(2 * len(self._plan.local) * (len(limits) + _OPEN_FILES))
        options = {"seed": self._plan.seed, "shards": self._plan.shards}
        options["interleave"] = min(INTERLEAVE, max(2, _OPEN_FILES // len(limits)))
        options["executor"] = self._executor
        streams = np.empty(self._owned.shape, object)
        for i, g in np.argwhere(self._owned).tolist():
            place = {"shard": int(self._plan.local[i]), "group": g, "window": limits[g]}
            place["keep"] = self._plan.keep(g)
            streams[i, g] = ChunkStream(self._mixture, int(groups.owner[g]), **place, **options)
        return streams

    def seek(self, taken: np.ndarray) -> None:
        """Moves to a place in the streams: numbers of chunks taken so far, shape of ``owned``."""
        self._fresh = True
        for at in zip(*np.nonzero(self._owned), strict=True):
            self._streams[at].taken = int(taken[at])

    def assemble(self, group: np.ndarray, place: Callable[[Layout], Arrays]) -> Rows | None:
        """Assembles the owned rows of the next batch; None if there is none.

        Args:
          group: [rows], the group that each row of the host draws from.
          place: returns arrays [rows, ...] of all fields to write to; called once.

        Raises:
          ValueError, OSError: the data cannot be read.
        """
        parts = list(self._parts(group))
        if self._fresh:  # the first windows of all sources, side by side
            for stream, _ in parts:
                stream.read_ahead()
            self._fresh = False
        arrays: Arrays = {}
        encoded: list[tuple[np.ndarray, str, np.ndarray]] = []
        for stream, rows in parts:
            done = 0
            for window, steps in stream.take(len(rows)):
                fields = self._cut(window, steps, int(group[rows[0]]))
                arrays = arrays or place(self._layout(fields))
                piece = rows[done : done + len(steps)]
                done += len(steps)
                for name, values in fields.items():
                    if name in self._cameras:
                        encoded.append((piece, name, values))
                        arrays[f"{name}_mask"][piece] = images.are_there(values)
                    else:
                        arrays[name][piece] = values
        return self._decode(arrays, encoded) if parts else None

    def _parts(self, group) -> Iterator[tuple[ChunkStream, np.ndarray]]:
        """Yields each stream and its rows."""
        for i, streams in enumerate(self._streams):
            rows = np.flatnonzero(self._shard == i)
            for g in np.unique(group[rows]):
                if self._owned[i, g]:
                    yield streams[g], rows[group[rows] == g]

    def _cut(self, window, steps, group):
        """Returns the fields of chunks; images are still encoded, [n, T] of bytes."""
        config, start = self._mixture.config, window.start[steps]
        observation, action, mask = chunk.gather(
            *(window.steps, steps, start, window.end[steps], config.history, config.horizon),
            np,
            config.padding,
        )
        fields = {f"{chunk.OBSERVATION}{n}": v for n, v in observation.items()}
        fields |= {"action": action, "mask": mask}
        cut = (*fields, chunk.STILL)
        fields |= {n: v[steps] for n, v in window.steps.items() if n not in cut}
        for name in fields.keys() & self._encoders.keys():
            fields[name] = self._encoders[name](list(fields[name]))
        k = np.full(len(steps), self._mixture.groups.owner[group])
        fields[ID] = np.stack([k, window.episode[steps], steps - start], 1).astype(np.int32)
        return fields

    def _layout(self, fields) -> Layout:
        layout = {}
        for name, values in fields.items():
            layout[name] = values.shape[1:], values.dtype.str
            if name in self._cameras:
                history = values.shape[1]
                layout[name] = (history, *self._size, 3), "|u1"
                layout[f"{name}_mask"] = (history,), "|b1"
        return layout

    def _decode(self, arrays, encoded):
        blobs, bgr, out, at = [], [], [], []
        for name, camera in self._cameras.items():
            flipped = [source.bgr.get(camera, False) for source in self._sources]
            for rows, _, values in (piece for piece in encoded if piece[1] == name):
                places = [(row, t) for row in rows.tolist() for t in range(values.shape[1])]
                blobs += values.ravel().tolist()
                bgr += [flipped[arrays[ID][row, 0]] for row, _ in places]
                out += [arrays[name][place] for place in places]
                at += [(name, *place) for place in places]
        if not blobs:
            return Rows(self, arrays, at, None)
        if self._decoder is None:
            self._decoder = images.ImageDecoder(self._size, workers=self._threads)
        return Rows(self, arrays, at, self._decoder.submit(blobs, np.array(bgr), out))

    def report(self, arrays: Arrays, name: str, row: int, t: int, reason: str) -> None:
        """Reports an image that cannot be decoded to its source, which may refuse it."""
        k, episode, step = arrays[ID][row].tolist()
        step = max(0, step - (arrays[name].shape[1] - 1 - t))
        self._sources[k].damaged_image(
            f"source {self._mixture.names[k]!r}, episode {episode}, step {step}: image of the "
            f"{self._cameras[name]} camera cannot be decoded ({reason})"
        )

    def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._decoder is not None:
            self._decoder.close()


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Rows that ``Assembler.assemble`` has cut and whose images are being decoded."""

    _assembler: Assembler
    _arrays: Arrays
    _at: list[tuple[str, int, int]]  # (field, row, t) of each image
    _pending: images.Pending | None

    def done(self) -> bool:
        """Whether ``finish`` need not wait."""
        return self._pending is None or self._pending.done()

    def finish(self) -> None:
        """Waits until all images are decoded. Raises ValueError if a source refuses one."""
        failures = self._pending.result()[1] if self._pending else {}
        for i in sorted(failures, key=self._at.__getitem__):
            name, row, t = self._at[i]
            self._assembler.report(self._arrays, name, row, t, failures[i])
            self._arrays[f"{name}_mask"][row, t] = False


def windows(mixture: Mixture) -> list[int]:
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
