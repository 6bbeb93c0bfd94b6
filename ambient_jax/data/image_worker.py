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
import re
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
# What ``looks_whole`` says of a blob of which nothing can be used.
NO_IMAGE = ("a jpeg without its end", "a png without its end", "neither jpeg nor png")
MOST_PIXELS = PIL.Image.MAX_IMAGE_PIXELS  # 89 million
_MARKER = re.compile(rb"\xff+[^\xff\x00\xd0-\xd7]", re.DOTALL)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # all kinds of jpeg that there are
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by a png's colour type
# Where the parts of an interlaced png begin and how they go on (its standard, "Adam7").
_PARTS = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
_PARTS += ((0, 1, 1, 2),)


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
    """Why an encoded image is damaged or none that ``decode`` takes; "" if nothing shows.

    A png is read to its end: all checksums, and as many bytes as its size asks for. Of a jpeg the
    header and all markers are looked at, its pixels only by decoding. What follows the end does not
    matter (cameras pad, and append time stamps). An empty blob stands for "no image" and is whole.
    """
    try:
        if blob.startswith(_PNG):
            _check_png(blob, pixels=True)
        elif blob:
            _check_jpeg(blob)
        return ""
    except Exception as error:
        return _reason(error)


def cannot_be_decoded(blob: bytes) -> str:
    """``looks_whole``, and of a jpeg its pixels too, at an eighth of the size: slower."""
    why = looks_whole(blob)
    if blob and not why and not blob.startswith(_PNG):
        try:
            simplejpeg.decode_jpeg(blob, "GRAY", min_height=1, min_width=1)
        except Exception as error:
            return _reason(error)
    return why


def decode(blob: bytes, out: np.ndarray, bgr: bool = False) -> str:
    """Decodes a jpeg or png into ``out`` [h, w, 3] uint8 and returns "", or why it cannot be.

    Always RGB (BGR channels if ``bgr``): grey is repeated, palettes are looked up, alpha is
    dropped, an animation is its still image, and orientation tags are ignored, as TensorFlow does.
    Another size is resized by ``resize``, from all pixels, so that it does not matter how they were
    encoded.
    Without an image, ``out`` is zeros.
    """
    try:
        if blob.startswith(_PNG):
            _check_png(blob)
            with PIL.Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
                _into(image if image.mode == "RGB" else image.convert("RGB"), out)
            if bgr:
                out[:] = out[..., ::-1].copy()
        elif blob:
            _jpeg(blob, out, "BGR" if bgr else "RGB")
        else:
            out[:] = 0
        return ""
    except Exception as error:  # whatever a decoder has against damaged data
        out[:] = 0
        return _reason(error)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image [H, W, 3] uint8 brought to [h, w, 3]; one of that size as it is.

    By the triangle filter, widened by the scale when shrinking (Pillow's BILINEAR; the default of
    ``tf.image.resize(antialias=True)``): it does not overshoot, as Lanczos does, and costs a third
    of its taps.
    """
    if image.shape[:2] == tuple(size):
        return image
    out = np.empty((*size, 3), np.uint8)
    _into(PIL.Image.fromarray(np.ascontiguousarray(image)), out)
    return out


def size_of(blob: bytes) -> tuple[int, int]:
    """(height, width) of a jpeg or png that ``looks_whole``."""
    if blob.startswith(_PNG):
        width, height = struct.unpack_from(">II", blob, len(_PNG) + 8)
        return height, width
    return _check_jpeg(blob)


def _into(image, out):
    h, w = out.shape[:2]
    if image.size != (w, h):
        image = image.resize((w, h), PIL.Image.Resampling.BILINEAR)
    out[:] = np.asarray(image)


def _reason(error):
    return " ".join((str(error) or type(error).__name__).split())[:200]


def _jpeg(blob, out, order):
    height, width = _check_jpeg(blob)
    # Strict: libjpeg goes on after damaged data and fills the rest with grey.
    if (height, width) == out.shape[:2]:
        simplejpeg.decode_jpeg(blob, order, buffer=out)
    else:
        _into(PIL.Image.fromarray(simplejpeg.decode_jpeg(blob, order)), out)


def _check_jpeg(blob):
    """Walks a jpeg's markers (ITU T.81, annex B) to its end; returns (height, width)."""
    if not blob.startswith(_JPEG):
        raise ValueError(f"neither jpeg nor png, it begins with {blob[:4].hex(' ')}")
    at, size = 2, None
    # Between markers lie entropy-coded data, in which ff is followed by 00 or a restart's number.
    while (found := _MARKER.search(blob, at)) is not None:
        kind, at = found[0][-1], found.end()
        if kind == 0xD9 and size:
            return size
        if kind == 0x01:
            continue
        length = int.from_bytes(blob[at : at + 2])
        if kind in _FRAMES:
            if length < 8 or at + 8 > len(blob):
                break
            depth, height, width, colours = struct.unpack_from(">BHHB", blob, at + 2)
            if colours not in (1, 3):
                raise ValueError(
                    f"a {'CMYK ' if colours == 4 else ''}jpeg of {colours} colours, expected "
                    "colour (3) or grey (1): convert it to RGB"
                )
            if depth != 8:
                raise ValueError(f"a jpeg of {depth} bits a colour, expected 8")
            size = height, width
            _affordable(*size)
        at += length
    raise ValueError("a jpeg without its end")


def _check_png(blob, pixels=False):
    """Checks a png's header, and that all chunks are there and have their checksums, which PIL does
    not mind; of ``pixels``, that the data make up the size."""
    at, kind, data, header = len(_PNG), b"", [], None
    while kind != b"IEND":
        if at + 12 > len(blob):
            raise ValueError("a png without its end")
        length, kind = struct.unpack_from(">I4s", blob, at)
        body, at = memoryview(blob)[at + 4 : at + 8 + length], at + 12 + length
        if at > len(blob):
            raise ValueError("a png without its end")
        if zlib.crc32(body) != int.from_bytes(blob[at - 4 : at]):
            raise ValueError("a png that is damaged or cut: a checksum is wrong")
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise ValueError("a png without its header")
            header = struct.unpack_from(">IIBBxxB", body, 4)
            if header[2] == 16:
                raise ValueError("a png of 16 bits a colour, expected 8: scale it")
            _affordable(header[1], header[0])
        elif kind == b"IDAT":
            data.append(body[4:])
    if pixels:
        _check_rows(b"".join(data), *header)


def _check_rows(data, width, height, depth, colours, interlaced):
    """Unpacks a png's rows, each a filter's number and its pixels; interlaced in seven parts."""
    if colours not in _CHANNELS:
        raise ValueError(f"a png of colour type {colours}, which there is none of")
    bits, rows = depth * _CHANNELS[colours], []
    for x, y, right, down in _PARTS if interlaced else ((0, 0, 1, 1),):
        part = max(0, -(-(width - x) // right)), max(0, -(-(height - y) // down))
        if all(part):
            rows.append((1 + (part[0] * bits + 7) // 8, part[1]))
    wanted = sum(stride * count for stride, count in rows)
    try:
        found = zlib.decompressobj().decompress(data, wanted)
    except zlib.error as error:
        raise ValueError(f"a png whose data cannot be unpacked ({error})") from None
    if len(found) < wanted:
        raise ValueError(f"a png of {len(found)} bytes of pixels, not {wanted}: it is cut")
    first = 0
    for stride, count in rows:
        if max(found[first : first + stride * count : stride]) > 4:
            raise ValueError("a png whose rows are damaged: there is no such filter")
        first += stride * count


def _affordable(height, width):
    if not 0 < height * width <= MOST_PIXELS:  # a damaged header
        raise ValueError(
            f"its header says {width} x {height} pixels, expected 1 to {MOST_PIXELS} in all"
        )


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
