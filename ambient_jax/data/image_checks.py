"""Checks of encoded camera images, much cheaper than decoding them."""

from __future__ import annotations

import re
import struct
import zlib

import simplejpeg

PNG = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 89_478_485  # Pillow's limit
# What ``looks_whole`` says of bytes in which nothing is usable.
NO_IMAGE = ("a jpeg without its end", "a png without its end", "neither jpeg nor png")
_JPEG = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff+[^\xff\x00\xd0-\xd7]", re.DOTALL)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a frame header
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a png, by its colour type
# The passes of an interlaced png ("Adam7"): first column and row, step of columns and rows.
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
_PASSES.append((0, 1, 1, 2))


def looks_whole(blob: bytes) -> str:
    """Returns why an encoded image is damaged or of a wrong format; "" if nothing is visible.

    A png is read to its end: all checksums, and as many bytes as its size needs. Of a jpeg only the
    header and markers are read; damaged pixels show when it is decoded. Bytes after the end do not
    matter (cameras pad, and append time stamps). An empty blob stands for "no image" and is whole.
    """
    try:
        if blob.startswith(PNG):
            _, data, header = png_size(blob)
            _check_rows(data, *header)
        elif blob:
            jpeg_size(blob)
        return ""
    except Exception as error:
        return reason(error)


def cannot_be_decoded(blob: bytes) -> str:
    """As ``looks_whole``, but decodes a jpeg's pixels too, at an eighth of the size: slower."""
    why = looks_whole(blob)
    if blob and not why and not blob.startswith(PNG):
        try:
            simplejpeg.decode_jpeg(blob, "GRAY", min_height=1, min_width=1)
        except Exception as error:
            return reason(error)
    return why


def reason(error: Exception) -> str:
    """An error in one line of at most 200 characters."""
    return " ".join((str(error) or type(error).__name__).split())[:200]


def jpeg_size(blob: bytes) -> tuple[int, int]:
    """(height, width) of a jpeg whose markers (ITU T.81, annex B) are followed to its end.

    Raises:
      ValueError: it is no jpeg, has no end, or has other than 1 or 3 channels of 8 bits.
    """
    if not blob.startswith(_JPEG):
        raise ValueError(f"neither jpeg nor png, it begins with {blob[:4].hex(' ')}")
    position, size = 2, None
    # Between markers lie entropy-coded data, in which ff is followed by 00 or a restart's number.
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
        position += length
    raise ValueError("a jpeg without its end")


def png_size(blob: bytes) -> tuple[tuple[int, int], bytes, tuple[int, ...]]:
    """((height, width), compressed pixels, header) of a png; PIL would ignore its checksums.

    Raises:
      ValueError: a chunk is missing or damaged, or the png has 16 bits a channel.
    """
    position, kind, data = len(PNG), b"", []
    header: tuple[int, ...] = ()
    while kind != b"IEND":
        if position + 12 > len(blob):
            raise ValueError("a png without its end")
        length, kind = struct.unpack_from(">I4s", blob, position)
        body = memoryview(blob)[position + 4 : position + 8 + length]
        position += 12 + length
        if position > len(blob):
            raise ValueError("a png without its end")
        if zlib.crc32(body) != int.from_bytes(blob[position - 4 : position]):
            raise ValueError("a png that is damaged or cut: a checksum is wrong")
        if not header:
            if kind != b"IHDR" or length != 13:
                raise ValueError("a png without its header")
            header = struct.unpack_from(">IIBBxxB", body, 4)
            if header[2] == 16:
                raise ValueError("a png of 16 bits a colour, expected 8: scale it")
            size = _affordable(header[1], header[0])
        elif kind == b"IDAT":
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
