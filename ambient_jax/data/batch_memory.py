"""Memory of batches that processes share, handed out as arrays without a copy."""

from __future__ import annotations

import collections
import math
import mmap
import os
import tempfile
import weakref

import numpy as np

from ambient_jax.data.assembler import Arrays, Layout

_ALIGNED = 64  # bytes
_SMALL = 1 << 20  # bytes


class Memory:
    """Memory of batches with ``rows`` rows, in slots of one file, which processes map.

    Attributes:
      file: its descriptor.
      layout: fields of a batch, see ``place``; empty before it.
    """

    def __init__(self, rows: int, file: int | None = None):
        self._rows, self._file = rows, None
        if file is None and hasattr(os, "memfd_create"):
            file = os.memfd_create("ambient-jax-batches")
        elif file is None:  # not Linux: a file without a name
            self._file = tempfile.TemporaryFile()
            file = self._file.fileno()
        self.file = file
        self.layout: Layout = {}
        self._count = self._stride = 0
        self._free: collections.deque[int] = collections.deque()
        self._maps: dict[int, mmap.mmap] = {}

    def place(self, layout: Layout) -> Layout:
        """Sets the layout of all batches, if there is none yet, and returns it."""
        for name, (_, dtype) in layout.items():
            if np.dtype(dtype).hasobject:
                raise ValueError(
                    f"field {name!r} holds Python objects, which processes do not share: set "
                    "config.data.assemblers to 1"
                )
        if not self.layout:
            self.layout = layout
            sizes = [self._size(*field) for field in layout.values()]
            self._stride = sum(size + -size % _ALIGNED for size in sizes)
            self._stride += -self._stride % mmap.ALLOCATIONGRANULARITY
            self._grow()
        return self.layout

    def _size(self, shape, dtype):
        return self._rows * math.prod(shape) * np.dtype(dtype).itemsize

    def _grow(self):
        if os.fstat(self.file).st_size < self._count * self._stride:
            os.ftruncate(self.file, self._count * self._stride)

    def take(self) -> int:
        """Returns the number of a slot that no array uses."""
        if self._free:
            return self._free.popleft()
        self._count += 1
        self._grow()
        return self._count - 1

    def arrays(self, slot: int) -> Arrays:
        """Returns the arrays of a slot, which is free again when the last of them is gone."""
        if slot not in self._maps:
            place = {"length": self._stride, "offset": slot * self._stride}
            self._maps[slot] = mmap.mmap(self.file, **place)
        # Views of this array refer to it, not to what it views.
        whole, at, arrays = np.frombuffer(self._maps[slot], np.uint8), 0, {}
        weakref.finalize(whole, self._free.append, slot).atexit = False
        for name, (shape, dtype) in self.layout.items():
            size = self._size(shape, dtype)
            arrays[name] = whole[at : at + size].view(dtype).reshape(self._rows, *shape)
            at += size + -size % _ALIGNED
        return arrays

    def close(self) -> None:
        """Closes the file; arrays stay valid."""
        if self.file >= 0:
            os.close(self.file) if self._file is None else self._file.close()
            self.file = -1


def detached(arrays: Arrays) -> Arrays:
    """Returns the arrays with copies of small ones.

    Whoever keeps the ids of many batches would otherwise keep the memory of all their images.
    """
    return {name: x.copy() if x.nbytes < _SMALL else x for name, x in arrays.items()}
