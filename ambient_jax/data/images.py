"""Camera images: decoded, resized and checked, one at a time or in batches by a pool of threads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np
import PIL.Image
import simplejpeg

from ambient_jax.data import image_checks
from ambient_jax.transforms.frames import check_frames as check_frames
from ambient_jax.transforms.frames import check_size as check_size
from ambient_jax.transforms.frames import resize as resize
from ambient_jax.transforms.frames import resize_into

_PIECES = 8  # of a batch for each worker, so that all end at about the same time


def decode(blob: bytes, size: tuple[int, int] | None = None, bgr: bool = False) -> np.ndarray:
    """One jpeg or png as training sees it: RGB [h, w, 3] uint8.

    Args:
      blob: the encoded image.
      size: (h, w), see ``resize``; None keeps the image's own.
      bgr: its channels are blue first, and are flipped.

    Raises:
      ValueError: it is no image, or cannot be decoded.
    """
    if not isinstance(blob, bytes | bytearray) or not blob:
        given = " ".join(f"{type(blob).__name__} {blob!r:.40}".split())
        raise ValueError(f"the image is {given}, expected the bytes of a jpeg or png")
    blob = bytes(blob)
    size = None if size is None else check_size(size)
    if why := image_checks.looks_whole(blob):
        raise ValueError(f"the image cannot be decoded: {why}")
    if size is None:
        png = blob.startswith(image_checks.PNG)
        size = image_checks.png_size(blob)[0] if png else image_checks.jpeg_size(blob)
    out = np.empty((*size, 3), np.uint8)
    if why := decode_into(blob, out, bgr):
        raise ValueError(f"the image cannot be decoded: {why}")
    return out


def decode_into(blob: bytes, out: np.ndarray, bgr: bool = False) -> str:
    """Decodes a jpeg or png into ``out`` [h, w, 3] uint8; returns "" or why it cannot be.

    Always RGB (BGR channels if ``bgr``): grey is repeated, palettes are looked up, alpha is
    dropped, an animation is its still image, and orientation tags are ignored, as TensorFlow does.
    An image of another size is resized from all of its pixels, so that its encoding does not
    matter. ``out`` is zeros for an empty blob and after an error.
    """
    try:
        if blob.startswith(image_checks.PNG):
            image_checks.png_size(blob)
            with PIL.Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
                resize_into(image if image.mode == "RGB" else image.convert("RGB"), out)
            if bgr:
                out[:] = out[..., ::-1].copy()
        elif blob:
            # simplejpeg is strict: libjpeg alone fills what is damaged with grey.
            order = "BGR" if bgr else "RGB"
            if image_checks.jpeg_size(blob) == out.shape[:2]:
                simplejpeg.decode_jpeg(blob, order, buffer=out)
            else:
                resize_into(PIL.Image.fromarray(simplejpeg.decode_jpeg(blob, order)), out)
        else:
            out[:] = 0
        return ""
    except Exception as error:  # whatever a decoder raises for damaged data
        out[:] = 0
        return image_checks.reason(error)


class ImageDecoder:
    """Decodes batches of jpeg and png images to one size, in the background.

    Args:
      size: (h, w) of the decoded images.
      workers: threads; 0 decodes in ``submit``, to the same bits. Decoders and resizing let go of
        the interpreter's lock, so the threads run beside Python code.

    Each batch that is submitted and not yet taken holds its decoded images, N * h * w * 3 bytes:
    the caller bounds how many there are. Threads may share a decoder.
    """

    def __init__(self, size: tuple[int, int], *, workers: int):
        if workers < 0:
            raise ValueError(f"workers of the image decoder is {workers}, expected at least 0")
        self.size, self.workers = check_size(size), workers
        self._pool = futures.ThreadPoolExecutor(workers, "images") if workers else None
        self._closed = False

    def submit(self, blobs: Sequence[bytes], bgr: np.ndarray | None = None) -> Pending:
        """Starts to decode N images. An object that occurs twice is decoded once.

        Args:
          blobs: N jpeg or png images; b"" where there is none.
          bgr: [N] bool, images whose channels are to be flipped; None for none.

        Raises:
          ValueError, TypeError: a blob that is not bytes, or ``bgr`` of another shape.
          RuntimeError: the decoder is closed.
        """
        flips = np.zeros(len(blobs), bool) if bgr is None else np.asarray(bgr)
        if flips.shape != (len(blobs),):
            raise ValueError(f"bgr has shape {flips.shape}, expected [{len(blobs)}] as the blobs")
        if self._closed:
            raise RuntimeError("the image decoder is closed")
        number: dict[tuple[int, bool], int] = {}
        distinct: list[tuple[bytes, bool]] = []
        rows = np.full(len(blobs), -1)
        for i, (blob, flip) in enumerate(zip(blobs, flips.tolist(), strict=True)):
            if not isinstance(blob, bytes):
                raise TypeError(
                    f"blob {i} is a {type(blob).__name__}, expected bytes (b'' for no image)"
                )
            if blob:
                rows[i] = number.setdefault((id(blob), flip), len(distinct))
                if rows[i] == len(distinct):
                    distinct.append((blob, flip))
        images = np.empty((len(distinct), *self.size, 3), np.uint8)
        if self._pool is None:
            return Pending(rows, images, [_decode_all(distinct, images)])
        step = max(1, -(-len(distinct) // (_PIECES * self.workers)))
        pieces = [slice(i, i + step) for i in range(0, len(distinct), step)]
        reasons = [self._pool.submit(_decode_all, distinct[p], images[p]) for p in pieces]
        return Pending(rows, images, reasons)

    def close(self) -> None:
        """Ends the threads; may be repeated. ``result`` of an unfinished batch then raises."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> ImageDecoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _decode_all(blobs: list[tuple[bytes, bool]], out: np.ndarray) -> list[str]:
    return [decode_into(blob, image, bgr) for (blob, bgr), image in zip(blobs, out, strict=True)]


class Pending:
    """A batch that is being decoded; made by ``ImageDecoder.submit``."""

    def __init__(self, rows: np.ndarray, images: np.ndarray, reasons: list[Any]):
        self._rows = rows  # of each image among the distinct ones, -1 for none
        self._images, self._reasons = images, reasons

    def result(self) -> tuple[np.ndarray, dict[int, str]]:
        """Waits for (images uint8 [N, h, w, 3], {i: why image i could not be decoded}).

        Images that are missing or could not be decoded are zeros, and only the latter are in the
        dict. Batches may be taken in any order.

        Raises:
          RuntimeError: the decoder was closed before the batch was decoded.
        """
        try:
            lists = [r.result() if isinstance(r, futures.Future) else r for r in self._reasons]
        except futures.CancelledError as error:
            raise RuntimeError("the image decoder is closed") from error
        reasons = [why for piece in lists for why in piece]
        images, there = self._images, self._rows >= 0
        if not np.array_equal(self._rows, np.arange(len(self._rows))):
            images = np.zeros((len(self._rows), *images.shape[1:]), np.uint8)
            images[there] = self._images[self._rows[there]]
        rows = enumerate(self._rows.tolist())
        return images, {i: reasons[row] for i, row in rows if row >= 0 and reasons[row]}
