"""Batches of camera images, decoded in worker processes into memory that they share.

Encoded images and decoded ones travel through one file in memory (``memfd_create``): it needs no
/dev/shm, and is gone with the last process that has it, however that ended. Workers are programs of
their own (``image_worker``), neither forks of a process with threads nor imports of its __main__.
All of them read pieces of work from one pipe, so that whoever is free takes the next.
"""

from __future__ import annotations

import json
import mmap
import os
import pathlib
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence

import numpy as np

from ambient_jax.data import image_worker
from ambient_jax.data.image_worker import cannot_be_decoded as cannot_be_decoded
from ambient_jax.data.image_worker import looks_whole as looks_whole
from ambient_jax.transforms.frames import check_frames as check_frames
from ambient_jax.transforms.frames import check_size as check_size
from ambient_jax.transforms.frames import resize as resize

# Pieces a worker gets of a batch, for an even end; and of all batches, to fit in the pipe (64 KiB).
_PIECES, _ALL_PIECES = 8, 5000


def decode(blob: bytes, size: tuple[int, int] | None = None, bgr: bool = False) -> np.ndarray:
    """One jpeg or png as training sees it: RGB [h, w, 3] uint8.

    Args:
      blob: the encoded image.
      size: (h, w), see ``resize``; None keeps its own.
      bgr: its channels are blue first, and are flipped.

    Raises:
      ValueError: it cannot be decoded, or is none.
    """
    if not isinstance(blob, bytes | bytearray) or not blob:
        told = " ".join(f"{type(blob).__name__} {blob!r:.40}".split())
        raise ValueError(f"the image is {told}, expected the bytes of a jpeg or png")
    blob, why = bytes(blob), looks_whole(bytes(blob))
    out = np.empty((*(check_size(size) if size is not None else (1, 1)), 3), np.uint8)
    if not why and size is None:
        out = np.empty((*image_worker.size_of(blob), 3), np.uint8)
    if why := why or image_worker.decode(blob, out, bgr):
        raise ValueError(f"the image cannot be decoded: {why}")
    return out


class ImageDecoder:
    """Decodes jpeg and png images of any size to one size, several batches at a time.

    Args:
      size: (h, w) of the decoded images.
      workers: processes; 0 decodes in the calling thread, to the same bits.
      capacity: most images that a batch may hold.
      in_flight: batches that may be submitted and not yet taken. They bound the memory: each costs
        capacity * h * w * 3 bytes, and the encoded images of the largest batch so far.

    Raises:
      RuntimeError: in ``submit`` or ``result``, once a worker has ended by itself (the system kills
        processes when memory runs out), or after ``close``.

    Threads may share a decoder. How one image is decoded is said by ``image_worker.decode``.
    """

    def __init__(self, size: tuple[int, int], *, workers: int, capacity: int, in_flight: int = 2):
        numbers = {"height": size[0], "width": size[1], "capacity": capacity}
        for name, value in {**numbers, "in_flight": in_flight, "workers + 1": workers + 1}.items():
            if value < 1:
                raise ValueError(f"{name} of the image decoder is {value}, expected at least 1")
        self.size, self.workers, self.capacity = (int(size[0]), int(size[1])), workers, capacity
        self._lock = threading.RLock()
        self._batches: dict[int, Pending] = {}  # by slot, the oldest first
        self._free = list(range(in_flight))
        self._pieces = max(1, min(_PIECES * workers, _ALL_PIECES // in_flight))
        self._processes: list[subprocess.Popen] = []
        self._received: dict[int, tuple[subprocess.Popen, bytes]] = {}  # unread, by descriptor
        self._poll = select.poll()
        self._finalizer = weakref.finalize(self, lambda: None)
        self._dead = ""
        if workers:
            self._start(in_flight)

    def _start(self, in_flight):
        if not hasattr(os, "memfd_create"):
            raise RuntimeError(f"image workers need Linux, this is {sys.platform}: take workers=0")
        shape = in_flight, self.capacity, self.size
        self._file = os.memfd_create("images")
        os.ftruncate(self._file, image_worker.Memory.shapes(*shape)[2])
        self._memory = image_worker.Memory.of(mmap.mmap(self._file, 0), *shape)
        read, self._work = os.pipe()
        command = [sys.executable, "-P", str(pathlib.Path(image_worker.__file__))]
        command += map(str, (self._file, in_flight, self.capacity, *self.size))
        # Idle threads of numpy's are memory too.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            for _ in range(self.workers):
                process = subprocess.Popen(
                    command,
                    stdin=read,
                    stdout=subprocess.PIPE,
                    pass_fds=[self._file],
                    env=environment,
                )
                self._processes.append(process)
        finally:
            os.close(read)
            self._finalizer = weakref.finalize(
                self, _stop, self._processes, self._work, self._file, self._memory.stop
            )
        for process in self._processes:
            self._received[process.stdout.fileno()] = process, b""
            self._poll.register(process.stdout, select.POLLIN)

    def submit(self, blobs: Sequence[bytes], bgr: np.ndarray | None = None) -> Pending:
        """Hands N encoded images to the workers; copies them, so that they may go.

        Returns at once while fewer than ``in_flight`` batches are out, and else waits for the
        oldest, whose images move to its ``Pending``. An object that occurs twice is decoded once.

        Args:
          blobs: N jpeg or png images; b"" where there is none.
          bgr: [N] bool, images whose channels are to be flipped; None for none.

        Raises:
          ValueError, TypeError: more images than the capacity, a blob that is not bytes, or ``bgr``
            of another shape.
        """
        if len(blobs) > self.capacity:
            raise ValueError(
                f"{len(blobs)} images submitted, expected at most the capacity {self.capacity}"
            )
        flips = np.zeros(len(blobs), bool) if bgr is None else np.asarray(bgr)
        if flips.shape != (len(blobs),):
            raise ValueError(f"bgr has shape {flips.shape}, expected [{len(blobs)}] as the blobs")
        chosen: dict[tuple[int, bool], int] = {}
        rows, distinct = np.full(len(blobs), -1), []
        for i, (blob, flip) in enumerate(zip(blobs, flips.tolist(), strict=True)):
            if not isinstance(blob, bytes):
                raise TypeError(
                    f"blob {i} is a {type(blob).__name__}, expected bytes (b'' for no image)"
                )
            if blob:
                row = rows[i] = chosen.setdefault((id(blob), flip), len(distinct))
                if row == len(distinct):
                    distinct.append((blob, flip))
        with self._lock:
            self._check()
            pending = Pending(self, rows, len(distinct))
            if self.workers:
                self._send(pending, distinct)
            else:
                images = np.empty((len(distinct), *self.size, 3), np.uint8)
                for row, (blob, flip) in enumerate(distinct):
                    if reason := image_worker.decode(blob, images[row], flip):
                        pending._reasons[row] = reason
                pending._take(images)
        return pending

    def _send(self, pending, distinct):
        self._receive(0)
        if not self._free:
            slot, oldest = next(iter(self._batches.items()))
            self._wait(oldest)
            self._release(slot)
        slot = self._free.pop()
        self._batches[slot] = pending
        offset, table = (slot + 1) * image_worker.BLOBS, self._memory.table[slot]
        # A piece has an equal share of the bytes, which say best how long an image takes.
        share = sum(len(blob) for blob, _ in distinct) / self._pieces
        pieces, begin, size = [], 0, 0
        for row, (blob, flip) in enumerate(distinct):
            os.pwrite(self._file, blob, offset)
            table[row] = offset, len(blob), flip
            offset, size = offset + len(blob), size + len(blob)
            if size >= share or row + 1 == len(distinct):
                pieces.append(image_worker.PIECE.pack(slot, begin, row + 1))
                begin, size = row + 1, 0
        most = select.PIPE_BUF // image_worker.PIECE.size  # such writes are never torn
        for i in range(0, len(pieces), most):
            try:
                os.write(self._work, b"".join(pieces[i : i + most]))
            except BrokenPipeError:
                break  # all workers are gone, and _receive will say why

    def close(self) -> None:
        """Ends the workers; may be repeated. Who still waits for them gets an error."""
        self._dead = self._dead or "the image decoder is closed"
        with self._lock:
            self._finalizer()
            for process in self._processes:
                process.stdout.close()
            self._batches.clear()
            self._memory = None

    def __enter__(self) -> ImageDecoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self):
        if self._dead:
            raise RuntimeError(self._dead)

    def _wait(self, pending):
        while pending._left:
            self._receive(100)  # and look whether another thread has closed the decoder

    def _receive(self, milliseconds):
        """Reads what the workers report, waiting for it so long at most."""
        self._check()
        for file, _ in self._poll.poll(milliseconds):
            process, text = self._received[file]
            data = os.read(file, 1 << 16)
            if not data:
                self._died(process)
            text += data
            head = image_worker.DONE
            while len(text) >= head.size:
                slot, count, length = head.unpack_from(text)
                if len(text) < head.size + length:
                    break
                pending = self._batches[slot]
                if length:
                    reasons = json.loads(text[head.size : head.size + length])
                    pending._reasons.update(dict(reasons))
                pending._left -= count
                text = text[head.size + length :]
            self._received[file] = process, text

    def _died(self, process):
        code = process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        self._dead = (
            f"image worker {process.pid} {how} while its decoder was open: signal 9 is mostly the "
            "system's when memory runs out (take fewer workers or a smaller batch); for anything "
            "else see the worker's own message above"
        )
        self._check()

    def _release(self, slot):
        """Copies the images of a finished batch out of the ring."""
        pending = self._batches.pop(slot)
        pending._take(self._memory.ring[slot])
        self._free.append(slot)

    def _result(self, pending):
        with self._lock:
            if pending._images is None:
                self._check()
                self._wait(pending)
                slot = next(slot for slot, other in self._batches.items() if other is pending)
                self._release(slot)


class Pending:
    """A batch handed to the workers; made by ``ImageDecoder.submit``."""

    def __init__(self, decoder: ImageDecoder, rows: np.ndarray, distinct: int):
        self._decoder, self._rows, self._left = decoder, rows, distinct
        self._reasons: dict[int, str] = {}  # by distinct image
        self._images: np.ndarray | None = None

    def result(self) -> tuple[np.ndarray, dict[int, str]]:
        """Waits for (images uint8 [N, h, w, 3], {i: why image i could not be decoded}).

        The array is the caller's own. Images that are missing or could not be decoded are zeros,
        and only the latter are failures. Batches may be taken in any order, each once.
        """
        if self._decoder is None:
            raise RuntimeError("the result of this batch of images has been taken already")
        self._decoder._result(self)
        images, self._images, self._decoder = self._images, None, None
        rows = enumerate(self._rows.tolist())
        return images, {i: self._reasons[row] for i, row in rows if row in self._reasons}

    def _take(self, distinct):
        count = len(self._rows)
        self._left = 0
        if np.array_equal(self._rows, np.arange(count)):
            self._images = distinct[:count].copy()
            return
        self._images = np.empty((count, *distinct.shape[1:]), np.uint8)
        for image, row in zip(self._images, self._rows.tolist(), strict=True):
            image[:] = distinct[row] if row >= 0 else 0


def _stop(processes, work, file, stop):
    """Closes the pipe that keeps the workers alive, and waits for them."""
    stop[0] = 1
    os.close(work)
    for process in processes:
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    os.close(file)
