"""Assembles a host's rows in this process, or in several that share the memory of the batches.

Each process has some of the host's streams and all of their work: it reads, cuts and decodes their
rows into memory that this process hands out as arrays, without a copy of the large ones (images).
Memory is used again once no array refers to it. Which process has a stream does not change its
rows.

A process is a fresh interpreter without JAX's devices. It has a socket to this process and ends
when that closes, whatever ended this one. The memory has no name (``memfd_create``), so nothing is
left behind.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ambient_jax import mixing
from ambient_jax.data import stream
from ambient_jax.data.assembler import Arrays, Assembler, Layout, Plan
from ambient_jax.data.batch_memory import Memory, detached
from ambient_jax.data.files import first_line

# The path is set here, not by PYTHONPATH: its modules could hide those of Python's own start.
_CODE = (
    "import json, sys; descriptor, memory, sys.path[:] = json.loads(sys.argv[1]); "
    "from ambient_jax.data import assembler_process; assembler_process.main(descriptor, memory)"
)


class Here:
    """Assembles all rows in the calling thread; images in ``Format.workers`` threads.

    Attributes:
      ahead: batches to submit before the first of them is awaited.
    """

    def __init__(self, plan: Plan):
        owned = np.ones((len(plan.local), len(plan.mixture.groups.owner)), bool)
        self._rows = plan.rows
        self._assembler = Assembler(plan, owned, plan.mixture.format.workers)
        self.ahead = 2 if plan.mixture.chain.images else 1

    def seek(self, taken: np.ndarray) -> None:
        """See ``Assembler``."""
        self._assembler.seek(taken)

    def submit(self, group: np.ndarray) -> Callable[[], Arrays]:
        """Begins a batch whose rows draw from ``group``; returns a function that waits for it."""
        arrays: dict[str, np.ndarray] = {}

        def place(layout: Layout) -> Arrays:
            for name, (shape, dtype) in layout.items():
                arrays[name] = np.empty((self._rows, *shape), dtype)
            return arrays

        rows = self._assembler.assemble(group, place)

        def finish() -> Arrays:
            if rows:
                rows.finish()
            return arrays

        return finish

    def close(self) -> None:
        self._assembler.close()


class Processes:
    """Assembles rows in ``count`` processes, which share ``Format.workers`` threads for images.

    Attributes:
      ahead: see ``Here``.

    Raises:
      ValueError: there are fewer streams than processes, a source has fewer steps than shards, or
        cannot be pickled.
    """

    ahead = 3

    def __init__(self, plan: Plan, count: int):
        owners = deal(plan, count)
        _check_steps(plan)
        threads = plan.mixture.format.workers
        jobs = []
        for w in range(count):
            share = threads * (w + 1) // count - threads * w // count
            jobs.append(_pickled((_without_jax(plan), owners == w, share), count))
        self._memory = Memory(plan.rows)
        self._jobs, self._workers = jobs, [_Worker(self._memory.file) for _ in range(count)]
        self._outstanding: collections.deque[int] = collections.deque()  # slots, by batch
        self._failed: Exception | None = None

    def seek(self, taken: np.ndarray) -> None:
        """See ``Assembler``. Waits for the batches that are being assembled."""
        if self._failed:
            raise self._failed
        while self._outstanding:
            self._await()
        for worker in self._workers:
            self._tell(worker, ("seek", taken))

    def submit(self, group: np.ndarray) -> Callable[[], Arrays]:
        """See ``Here``; the functions must be called in the order of the batches.

        They raise the errors of ``Assembler``, and ChildProcessError if a process is gone.
        """
        if self._failed:
            raise self._failed
        slot = self._memory.take()
        for worker in self._workers:
            self._tell(worker, ("assemble", slot, group))
        self._outstanding.append(slot)
        return self._finish

    def _finish(self) -> Arrays:
        try:
            arrays, error = self._await()
            if error:
                raise error
        except Exception as error:
            self._failed = error
            self.close()
            raise
        return arrays

    def _tell(self, worker, message):
        """Sends a message, after the jobs of the processes if they have none yet."""
        jobs, self._jobs = self._jobs, []
        for each, job in zip(self._workers, jobs, strict=bool(jobs)):
            self._send(each, each.connection.send_bytes, job)
        self._send(worker, worker.connection.send, message)

    def _send(self, worker, send, message):
        try:
            send(message)
        except OSError as error:
            self._failed = self._lost(worker)
            raise self._failed from error

    def _await(self):
        """Waits for the oldest batch; returns (arrays, the first error or None)."""
        slot, first = self._outstanding.popleft(), None
        for worker in self._workers:
            try:
                while (answer := worker.connection.recv())[0] == "layout":
                    worker.connection.send(("layout", self._memory.place(answer[1])))
            except (EOFError, OSError) as error:
                raise self._lost(worker) from error
            first = first or answer[1]
        return {} if first else detached(self._memory.arrays(slot)), first

    def _lost(self, worker):
        """Returns the error of a process that is gone."""
        number, pid, status = self._workers.index(worker) + 1, worker.process.pid, worker.end()
        how = f"ended with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            how += " (by the system if memory is short)" if status == -signal.SIGKILL else ""
        count = len(self._workers)
        self.close()
        return ChildProcessError(
            f"assembling process {number} of {count} (pid {pid}) {how}: start again, a run resumes "
            "from its last checkpoint, with the same batches for any config.data.assemblers"
        )

    def close(self) -> None:
        """Ends the processes; may be repeated."""
        for worker in self._workers:
            worker.end(kill=True)
        self._memory.close()


class _Worker:
    def __init__(self, memory: int):
        ours, theirs = socket.socketpair()
        with theirs:
            given = json.dumps([theirs.fileno(), memory, [*map(str, sys.path)]])
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, given],
                stdin=subprocess.DEVNULL,
                stdout=2,  # a line of a transform is none of the program's output
                pass_fds=(theirs.fileno(), memory),
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
            )
        self.connection = Connection(ours.detach())

    def end(self, kill: bool = False) -> int:
        """Waits for the end of the process, whose socket is closed; returns its status."""
        self.connection.close()
        if kill:
            self.process.kill()
        return self.process.wait()


def deal(plan: Plan, count: int) -> np.ndarray:
    """Returns the process of each stream, [shards of the host, G].

    Whole shards if their number is a multiple, or else the streams of the most rows first, each to
    the process with the fewest. Raises ValueError if there are fewer streams than processes.
    """
    local, groups = len(plan.local), plan.mixture.groups
    weight = np.asarray(groups.sources.weight, np.float64)
    streams = local * len(weight)
    if streams < count:
        raise ValueError(
            f"config.data.assemblers is {count}, but this host has {streams} streams to share "
            f"({local} shards of {len(weight)} groups): set it to at most {streams}, or, for a new "
            "run, config.data.shards to a multiple of it"
        )
    if local % count == 0:
        return np.repeat(np.arange(local) * count // local, len(weight)).reshape(local, -1)
    owners, load = np.empty((local, len(weight)), int), np.zeros((count, 2))
    for g in np.argsort(-weight, kind="stable"):
        for i in range(local):
            owners[i, g] = w = np.lexsort(load.T[::-1])[0]
            load[w] += weight[g], 1
    return owners


def _check_steps(plan):
    """Raises the ValueError of ``Assembler`` here, before any process starts."""
    mixture = plan.mixture
    for g, k in enumerate(mixture.groups.owner.tolist()):
        name = mixture.names[k]
        in_order, lengths = mixture.datasets[name].in_order, mixture.statistics[name].lengths
        stream.deal(lengths, plan.keep(g), in_order, name, int(plan.local[0]), plan.shards)


def _pickled(job, count):
    import cloudpickle  # transforms may be lambdas, or of the program that runs

    try:
        return cloudpickle.dumps(job)
    except Exception as error:
        raise ValueError(
            f"config.data.assemblers is {count}, but the sources cannot be sent to other processes "
            f"({first_line(error)}): set it to 1, or make their transforms picklable"
        ) from error


def _without_jax(plan):
    """Returns the plan without arrays of JAX, which another process could not read."""
    mixture = plan.mixture
    sources = mixing.Sources(*map(np.asarray, mixture.groups.sources))
    changes: dict[str, Any] = {"groups": mixture.groups._replace(sources=sources)}
    changes |= {"sources": sources, "bounds": {}}
    return dataclasses.replace(plan, mixture=dataclasses.replace(mixture, **changes))
