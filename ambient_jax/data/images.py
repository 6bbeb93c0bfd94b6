"""Decodes, resizes and checks camera images, one at a time or in batches by a pool of threads."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import zlib
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np
import PIL.Image
import simplejpeg

from ambient_jax import _checks
from ambient_jax.data.files import first_line
from ambient_jax.transforms.frames import check_frames as check_frames
from ambient_jax.transforms.frames import check_size as check_size
from ambient_jax.transforms.frames import resize as resize
from ambient_jax.transforms.frames import resize_into

_PIECES = 8  # pieces of a batch for each worker, so that all end at about the same time
PNG = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 89_478_485  # Pillow's limit
# Results of ``looks_whole`` for bytes that are unusable.
NO_IMAGE = ("a jpeg without its end", "a png without its end", "neither jpeg nor png")
_JPEG = b"\xff\xd8\xff"
# Without a leading repetition: Python's search then jumps from ff to ff, 11 times as fast.
_MARKER = re.compile(rb"\xff[^\xff\x00\xd0-\xd7]", re.DOTALL)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a frame header
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a png, by its colour type
# The passes of an interlaced png ("Adam7"): first column and row, step of columns and rows.
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
_PASSES += [(0, 1, 1, 2)]


def decode(blob: bytes, size: tuple[int, int] | None = None, bgr: bool = False) -> np.ndarray:
    """Decodes a jpeg or png as training does, to RGB [h, w, 3] uint8.

    ``size`` is (h, w), by default that of the image. ``bgr``: its channels are blue first, and are
    flipped. Raises ValueError if it cannot be decoded.
    """
    if not isinstance(blob, bytes | bytearray) or not blob:
        text = " ".join(f"{type(blob).__name__} {blob!r:.40}".split())
        raise ValueError(f"the image is {text}, expected the bytes of a jpeg or png")
    blob = bytes(blob)
    size = None if size is None else check_size(size)
    if why := looks_whole(blob):
        raise ValueError(f"the image cannot be decoded: {why}")
    if size is None:
        png = blob.startswith(PNG)
        size = png_size(blob)[0] if png else jpeg_size(blob)
    out = np.empty((*size, 3), np.uint8)
    if why := decode_into(blob, out, bgr):
        raise ValueError(f"the image cannot be decoded: {why}")
    return out


def decode_into(blob: bytes | np.ndarray, out: np.ndarray, bgr: bool = False) -> str:
    """Decodes a jpeg or png into ``out`` [h, w, 3] uint8; returns "" or the reason of a failure.

    A picture [h, w, 3] of a video is already decoded and is copied.

    The result is RGB (BGR channels if ``bgr``): as in TensorFlow, grey is repeated, palettes are
    looked up, alpha is dropped, an animation is its still image, and orientation tags are ignored.
    An image of another size is resized from all of its pixels. ``out`` is zeros for an empty blob
    and after an error.
    """
    try:
        if isinstance(blob, np.ndarray):
            out[:] = blob[..., ::-1] if bgr else blob
        elif blob.startswith(PNG):
            png_size(blob)
            with PIL.Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
                resize_into(image if image.mode == "RGB" else image.convert("RGB"), out)
            if bgr:
                out[:] = out[..., ::-1].copy()
        elif blob:
            # simplejpeg is strict, also about the end; libjpeg would fill damaged parts with grey.
            order = "BGR" if bgr else "RGB"
            if jpeg_size(blob, whole=False) == out.shape[:2]:
                simplejpeg.decode_jpeg(blob, order, buffer=out)
            else:
                resize_into(PIL.Image.fromarray(simplejpeg.decode_jpeg(blob, order)), out)
        else:
            out[:] = 0
        return ""
    except Exception as error:  # whatever a decoder raises for damaged data
        out[:] = 0
        if isinstance(blob, bytes) and blob.startswith(_JPEG):
            return looks_whole(blob) or first_line(error)
        return first_line(error)


class ImageDecoder:
    """Decodes batches of jpeg and png images to one size, in the background.

    A submitted batch holds N * h * w * 3 bytes until its result is taken; the caller bounds their
    number. Threads may share a decoder.

    Args:
      size: (h, w) of the decoded images.
      workers: threads; 0 decodes in ``submit``, to the same bits.
    """

    def __init__(self, size: tuple[int, int], *, workers: int):
        _checks.number("workers of the image decoder", workers, 0, whole=True)
        self.size, self.workers = check_size(size), workers
        self._pool = futures.ThreadPoolExecutor(workers, "images") if workers else None
        self._closed = False

    def submit(
        self,
        blobs: Sequence[bytes | np.ndarray],
        bgr: np.ndarray | None = None,
        out: Sequence[np.ndarray] | None = None,
    ) -> Pending:
        """Starts to decode N jpeg or png images, b"" for none; decodes a repeated object once.

        Pictures of videos are already decoded, as uint8 of the decoder's size. ``bgr`` [N] bool
        flips the channels of an image. ``out`` are N arrays [h, w, 3] uint8 to decode into, by
        default new ones. Raises RuntimeError if the decoder is closed.
        """
        flips = np.zeros(len(blobs), bool) if bgr is None else np.asarray(bgr)
        if flips.shape != (len(blobs),):
            raise ValueError(f"bgr has shape {flips.shape}, expected [{len(blobs)}] as the blobs")
        if self._closed:
            raise RuntimeError("the image decoder is closed")
        into: Any = np.empty((len(blobs), *self.size, 3), np.uint8) if out is None else out
        numbers: dict[tuple[int, bool], int] = {}
        distinct, copies = [], []
        for i, (blob, flip) in enumerate(zip(blobs, flips.tolist(), strict=True)):
            decoded = isinstance(blob, np.ndarray) and blob.shape == (*self.size, 3)
            if not decoded and not isinstance(blob, bytes):
                raise TypeError(
                    f"blob {i} is a {type(blob).__name__}, expected bytes (b'' for no image)"
                )
            first = numbers.setdefault((id(blob), flip), i) if decoded or blob else i
            if first == i:
                distinct.append((i, blob, flip))
            else:
                copies.append((i, first))
        step = len(distinct)
        if self._pool is not None:
            step = -(-len(distinct) // (_PIECES * self.workers))
        pieces = [distinct[i : i + step] for i in range(0, len(distinct), max(1, step))]
        if self._pool is None:
            return Pending(into, copies, [_decode_all(piece, into) for piece in pieces])
        return Pending(into, copies, [self._pool.submit(_decode_all, p, into) for p in pieces])

    def close(self) -> None:
        """Ends the threads; may be repeated. ``result`` of an unfinished batch then raises."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> ImageDecoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _decode_all(
    blobs: list[tuple[int, bytes | np.ndarray, bool]], out: Sequence[np.ndarray]
) -> dict[int, str]:
    reasons = {i: decode_into(blob, out[i], bgr) for i, blob, bgr in blobs}
    return {i: why for i, why in reasons.items() if why}


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """A batch that ``ImageDecoder.submit`` decodes."""

    _out: Any
    _copies: list[tuple[int, int]]  # (number of an image, number of the one that is the same)
    _reasons: list[Any]

    def done(self) -> bool:
        """Whether ``result`` need not wait."""
        return all(r.done() for r in self._reasons if isinstance(r, futures.Future))

    def result(self) -> tuple[Any, dict[int, str]]:
        """Waits for (images uint8 [N, h, w, 3], {i: why image i could not be decoded}).

        The images are ``out``, if ``submit`` had it. Missing or undecodable images are zeros.
        Batches may be taken in any order. Raises RuntimeError if the decoder was closed before the
        batch was decoded.
        """
        try:
            lists = [r.result() if isinstance(r, futures.Future) else r for r in self._reasons]
        except futures.CancelledError as error:
            raise RuntimeError("the image decoder is closed") from error
        failures = {i: why for piece in lists for i, why in piece.items()}
        for i, first in self._copies:
            self._out[i][...] = self._out[first]
            if first in failures:
                failures[i] = failures[first]
        return self._out, dict(sorted(failures.items()))


def are_there(blobs: np.ndarray) -> np.ndarray:
    """Returns which encoded or decoded images exist, bool of the same shape."""
    present = [isinstance(blob, np.ndarray) or bool(blob) for blob in blobs.flat]
    return np.array(present, bool).reshape(blobs.shape)


def looks_whole(blob: bytes) -> str:
    """Returns why an encoded image is damaged or of a wrong format; "" if it finds nothing.

    It checks a png's checksums and number of pixels, but only the header and markers of a jpeg,
    whose damaged pixels appear when it is decoded. Bytes after the end do not matter (cameras pad,
    and append time stamps). An empty blob, which means "no image", is whole.
    """
    try:
        if blob.startswith(PNG):
            _, data, header = png_size(blob)
            _check_rows(data, *header)
        elif blob:
            jpeg_size(blob)
        return ""
    except Exception as error:
        return first_line(error)


def cannot_be_decoded(blob: bytes) -> str:
    """Checks as ``looks_whole``, but also decodes a jpeg at an eighth of its size; slower."""
    why = looks_whole(blob)
    if blob and not why and not blob.startswith(PNG):
        try:
            simplejpeg.decode_jpeg(blob, "GRAY", min_height=1, min_width=1)
        except Exception as error:
            return first_line(error)
    return why


def jpeg_size(blob: bytes, whole: bool = True) -> tuple[int, int]:
    """Follows a jpeg's markers (ITU T.81, annex B) to its end; returns (height, width).

    Without ``whole`` it follows them to the frame header only, which a strict decoder suffices for.
    Raises ValueError if it is no jpeg, has no end, or not 1 or 3 channels of 8 bits.
    """
    if not blob.startswith(_JPEG):
        raise ValueError(f"neither jpeg nor png, it begins with {blob[:4].hex(' ')}")
    position, size = 2, None
    # In the entropy-coded data between markers, 00 or a restart's number follows ff.
    while (match := _MARKER.search(blob, position)) is not None:
        marker, position = match[0][-1], match.end()
        if marker == 0xD9 and size:
            return size
        if marker == 0x01:
            continue
        length = int.from_bytes(blob[position : position + 2])
        if marker in _FRAMES:
            if length < 8 or position + 8 > len(blob):
                break
            depth, height, width, channels = struct.unpack_from(">BHHB", blob, position + 2)
            if channels not in (1, 3):
                raise ValueError(
                    f"a {'CMYK ' if channels == 4 else ''}jpeg of {channels} colours, expected "
                    "colour (3) or grey (1): convert it to RGB"
                )
            if depth != 8:
                raise ValueError(f"a jpeg of {depth} bits a colour, expected 8")
            size = _affordable(height, width)
            if not whole:
                return size
        position += length
    raise ValueError("a jpeg without its end")


def png_size(blob: bytes) -> tuple[tuple[int, int], bytes, tuple[int, ...]]:
    """Returns ((height, width), compressed pixels, header) of a png; PIL ignores its checksums.

    Raises ValueError if a chunk is missing or damaged, or the png has 16 bits a channel.
    """
    position, chunk, data = len(PNG), b"", []
    header: tuple[int, ...] = ()
    while chunk != b"IEND":
        if position + 12 > len(blob):
            raise ValueError("a png without its end")
        length, chunk = struct.unpack_from(">I4s", blob, position)
        body = memoryview(blob)[position + 4 : position + 8 + length]
        position += 12 + length
        if position > len(blob):
            raise ValueError("a png without its end")
        if zlib.crc32(body) != int.from_bytes(blob[position - 4 : position]):
            raise ValueError("a png that is damaged or cut: a checksum is wrong")
        if not header:
            if chunk != b"IHDR" or length != 13:
                raise ValueError("a png without its header")
            header = struct.unpack_from(">IIBBxxB", body, 4)
            if header[2] == 16:
                raise ValueError("a png of 16 bits a colour, expected 8: scale it")
            size = _affordable(header[1], header[0])
        elif chunk == b"IDAT":
            data.append(body[4:])
    return size, b"".join(data), header


def _check_rows(data, width, height, depth, colour_type, interlaced):
    """Unpacks a png's rows: each has a byte that names its filter, then its pixels."""
    if colour_type not in _CHANNELS:
        raise ValueError(f"a png of colour type {colour_type}, which there is none of")
    bits, passes = depth * _CHANNELS[colour_type], []
    for x, y, columns, rows in _PASSES if interlaced else ((0, 0, 1, 1),):
        w, h = max(0, -(-(width - x) // columns)), max(0, -(-(height - y) // rows))
        if w and h:
            passes.append((1 + (w * bits + 7) // 8, h))
    size = sum(stride * count for stride, count in passes)
    try:
        pixels = zlib.decompressobj().decompress(data, size)
    except zlib.error as error:
        raise ValueError(f"a png whose data cannot be unpacked ({error})") from None
    if len(pixels) < size:
        raise ValueError(f"a png of {len(pixels)} bytes of pixels, not {size}: it is cut")
    start = 0
    for stride, count in passes:
        if max(pixels[start : start + stride * count : stride]) > 4:
            raise ValueError("a png whose rows are damaged: there is no such filter")
        start += stride * count


def _affordable(height: int, width: int) -> tuple[int, int]:
    if not 0 < height * width <= MOST_PIXELS:  # a damaged header
        raise ValueError(
            f"its header says {width} x {height} pixels, expected 1 to {MOST_PIXELS} in all"
        )
    return height, width
