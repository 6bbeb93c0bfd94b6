"""The program of an assembling process, see ``assemblers``."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import pickle
import select
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from ambient_jax.data.assembler import Arrays, Assembler, Layout, Rows
from ambient_jax.data.batch_memory import Memory
from ambient_jax.data.files import first_line


def main(descriptor: int, memory: int) -> None:
    """Answers on a socket until its other end closes.

    The first message is a pickled (plan, owned, threads), see ``Assembler``; then follow ("seek",
    taken) and ("assemble", slot, group). Each of the latter is answered by ("done", error or None),
    in order; before one of them, ("layout", layout) may ask for that of all batches.

    Args:
      descriptor: the socket.
      memory: descriptor of the file of ``Memory``.
    """
    # These are for the process that trains, which may need batches until it has saved.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):  # it has closed
        _answer(Connection(descriptor), memory)


def _answer(connection, memory):
    try:
        plan, owned, threads = pickle.loads(connection.recv_bytes())
        process = _Process(connection, Assembler(plan, owned, threads), Memory(plan.rows, memory))
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        while True:
            if connection.recv()[0] == "assemble":
                connection.send(("done", _sendable(error)))
    process.serve()


def _end_with(descriptor):
    """Ends the process as soon as the other end of the socket closes, whatever it does."""
    poll = select.poll()
    poll.register(descriptor, 0)  # only that it was closed
    poll.poll()
    os._exit(0)


class _Process:
    def __init__(self, connection: Connection, assembler: Assembler, memory: Memory):
        self._connection, self._assembler, self._memory = connection, assembler, memory
        self._inbox: collections.deque[Any] = collections.deque()
        # Batches in work: their rows, None for no row, or the error.
        self._batches: collections.deque[Rows | Exception | None] = collections.deque()

    def serve(self) -> None:
        while True:
            message = self._message()
            if message is None:
                self._connection.send(("done", self._finish(self._batches.popleft())))
            elif message[0] == "seek":
                self._assembler.seek(message[1])
            else:
                self._batches.append(self._assemble(*message[1:]))

    def _message(self):
        """Returns the next message; None if the oldest batch is to be finished first."""
        if self._batches:
            oldest = self._batches[0]
            idle = not (self._inbox or self._connection.poll())
            if idle or not isinstance(oldest, Rows) or oldest.done():
                return None
        return self._inbox.popleft() if self._inbox else self._connection.recv()

    def _assemble(self, slot, group):
        try:
            return self._assembler.assemble(group, functools.partial(self._place, slot))
        except Exception as error:
            return error

    def _place(self, slot: int, layout: Layout) -> Arrays:
        if not self._memory.layout:
            self._connection.send(("layout", layout))
            while (message := self._connection.recv())[0] != "layout":
                self._inbox.append(message)
            self._memory.place(message[1])
        return self._memory.arrays(slot)

    def _finish(self, rows):
        try:
            if isinstance(rows, Exception):
                raise rows
            if rows is not None:
                rows.finish()
        except Exception as error:
            return _sendable(error)
        return None


def _sendable(error: Exception) -> Exception:
    """Returns the error with its traceback as a note; a RuntimeError if it cannot be pickled."""
    error.add_note("In an assembling process:\n" + "".join(traceback.format_exception(error)))
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {first_line(error)}")
