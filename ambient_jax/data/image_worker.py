"""Decodes camera images: the functions, and the process that ``images.ImageDecoder`` starts.

As a script it is ``python -P image_worker.py MEMORY IN_FLIGHT CAPACITY HEIGHT WIDTH``, MEMORY the
inherited descriptor of a file in memory. Nothing here imports the package or JAX: a worker starts
in a tenth of a second and holds little.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import signal
import struct
import sys
import zlib
from typing import NamedTuple

import numpy as np
import PIL.Image
import simplejpeg

# In: slot, first and last + 1 of some images of it. Fixed size, so that any worker may read next.
PIECE = struct.Struct("<III")
# Out: slot, number of images done, bytes of json that follow: [[image, reason], ...].
DONE = struct.Struct("<III")
# The encoded images of slot k lie in the file from (k + 1) * BLOBS on. The file has holes.
BLOBS = 1 << 40
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


class Memory(NamedTuple):
    """What parent and workers share.

    Attributes:
      stop: [1] int64, not 0 when what is still queued need not be done.
      table: [in_flight, capacity, 3] int64: offset and length of an encoded image in the file, and
        whether its channels are to be flipped.
      ring: [in_flight, capacity, h, w, 3] uint8, the decoded images.
    """

    stop: np.ndarray
    table: np.ndarray
    ring: np.ndarray

    @staticmethod
    def shapes(in_flight: int, capacity: int, size: tuple[int, int]) -> tuple[int, int, int]:
        """Bytes of the table, where the ring begins, and bytes in all."""
        table = in_flight * capacity * 3 * 8
        # Half a page past a page: numpy's large arrays begin a few bytes past one, and copies
        # between such neighbours are ten times slower on some processors ("rep movsb" on Zen).
        ring = (64 + table + 4095) // 4096 * 4096 + 2048
        return table, ring, ring + in_flight * capacity * size[0] * size[1] * 3

    @classmethod
    def of(cls, buffer, in_flight: int, capacity: int, size: tuple[int, int]) -> Memory:
        table, ring, end = cls.shapes(in_flight, capacity, size)
        whole = np.frombuffer(buffer, np.uint8, end)
        return cls(
            whole[:8].view(np.int64),
            whole[64 : 64 + table].view(np.int64).reshape(in_flight, capacity, 3),
            whole[ring:].reshape(in_flight, capacity, *size, 3),
        )


def looks_whole(blob: bytes) -> str:
    """Why an encoded image is truncated or no image, by its two ends alone; "" if nothing shows.

    Zeros after the end are padding. An empty blob stands for "no image" and is whole.
    """
    if not blob:
        return ""
    if blob.startswith(_JPEG):
        return "" if blob.rstrip(b"\0").endswith(b"\xff\xd9") else "a jpeg without its end"
    if blob.startswith(_PNG):
        end = b"IEND\xaeB`\x82"
        return "" if blob.rstrip(b"\0").endswith(end) else "a png without its end"
    return f"neither jpeg nor png, it begins with {blob[:4].hex(' ')}"


def decode(blob: bytes, out: np.ndarray, bgr: bool = False) -> str:
    """Decodes a jpeg or png into ``out`` [h, w, 3] uint8 and returns "", or why it cannot be.

    Always RGB (BGR channels if ``bgr``): grey is repeated, palettes are looked up, alpha is dropped
    and orientation tags are ignored, as TensorFlow does. Another size is resized by the triangle
    filter, widened by the scale when shrinking (``tf.image.resize(antialias=True)``'s default): it
    does not overshoot, as Lanczos does, and costs a third of its taps. A jpeg of at least twice the
    size both ways is first shrunk by 2, 4 or 8 while decoding. Without an image, ``out`` is zeros.
    """
    try:
        if blob.startswith(_JPEG):
            _jpeg(blob, out, bgr)
        elif blob.startswith(_PNG):
            _png(blob, out, bgr)
        else:
            out[:] = 0
            return looks_whole(blob)
        return ""
    except Exception as error:  # whatever a decoder has against damaged data
        out[:] = 0
        return (str(error) or type(error).__name__)[:200]


def _jpeg(blob, out, bgr):
    height, width, colours, _ = simplejpeg.decode_jpeg_header(blob)
    if colours not in ("YCbCr", "RGB", "Gray"):
        raise ValueError(f"a {colours} jpeg, expected colour or grey")
    _affordable(height, width)
    h, w = out.shape[:2]
    order = "BGR" if bgr else "RGB"
    # Strict: libjpeg goes on after damaged data and fills the rest with grey.
    if (height, width) == (h, w):
        simplejpeg.decode_jpeg(blob, order, buffer=out)
        return
    # Only powers of two: the other scales of libjpeg are slower than no scale.
    scale = next((s for s in (8, 4, 2) if height >= s * h and width >= s * w), 1)
    image = simplejpeg.decode_jpeg(
        blob, order, min_height=-(-height // scale), min_width=-(-width // scale)
    )
    _resize(PIL.Image.fromarray(image), out)


def _png(blob, out, bgr):
    _check_png(blob)
    with PIL.Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
        if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
            raise ValueError(f"a png of mode {image.mode}, expected 8 bits a channel")
        _affordable(image.height, image.width)
        _resize(image if image.mode == "RGB" else image.convert("RGB"), out)
    if bgr:
        out[:] = out[..., ::-1].copy()


def _check_png(blob):
    """Checks that all chunks are there and have their checksums, which PIL does not mind."""
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        if at + 12 > len(blob):
            raise ValueError("a png without its end")
        length, kind = struct.unpack_from(">I4s", blob, at)
        body, at = memoryview(blob)[at + 4 : at + 8 + length], at + 12 + length
        if zlib.crc32(body) != int.from_bytes(blob[at - 4 : at]):
            raise ValueError("a png that is damaged or cut: a checksum is wrong")


def _affordable(height, width):
    if height * width > PIL.Image.MAX_IMAGE_PIXELS:  # a damaged header
        raise ValueError(f"{width} x {height} pixels, at most {PIL.Image.MAX_IMAGE_PIXELS} in all")


def _resize(image, out):
    h, w = out.shape[:2]
    if image.size != (w, h):
        image = image.resize((w, h), PIL.Image.Resampling.BILINEAR)
    out[:] = np.asarray(image)


def main(file: int, in_flight: int, capacity: int, *size: int) -> None:
    # The parent decides when workers end, by closing their stdin: a Ctrl-C or SIGTERM sent to the
    # whole group is first its own to act on (a last checkpoint).
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    done = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints may get between the messages
    buffer = mmap.mmap(file, Memory.shapes(in_flight, capacity, size)[2])
    memory = Memory.of(buffer, in_flight, capacity, size)
    while piece := os.read(0, PIECE.size):
        if memory.stop[0]:
            return
        slot, begin, end = PIECE.unpack(piece)
        failures = []
        for i in range(begin, end):
            offset, length, bgr = memory.table[slot, i].tolist()
            blob = os.pread(file, length, offset)
            if reason := decode(blob, memory.ring[slot, i], bool(bgr)):
                failures.append((i, reason))
        text = json.dumps(failures).encode() if failures else b""
        message = DONE.pack(slot, end - begin, len(text)) + text
        while message:
            message = message[os.write(done, message) :]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
