"""Resizes camera frames of any size to the size of a network's input."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes frames [..., H, W, 3] uint8 of any camera to (h, w), [..., h, w, 3] uint8.

    The whole library resizes this way: by Pillow's BILINEAR, a triangle filter that is widened by
    the scale when shrinking (as ``tf.image.resize(antialias=True)``).
    """
    frames, size = check_frames("frames", frames), check_size(size)
    if frames.shape[-3:-1] == size:
        return frames
    flat = frames.reshape(-1, *frames.shape[-3:])
    out = np.empty((len(flat), *size, 3), np.uint8)
    for frame, resized in zip(flat, out, strict=True):
        resize_into(PIL.Image.fromarray(np.ascontiguousarray(frame)), resized)
    return out.reshape(*frames.shape[:-3], *size, 3)


def resize_into(image: PIL.Image.Image, out: np.ndarray) -> None:
    """Writes an RGB image, resized if its size differs, into ``out`` [h, w, 3]."""
    h, w = out.shape[:2]
    if image.size != (w, h):
        image = image.resize((w, h), PIL.Image.Resampling.BILINEAR)
    out[:] = np.asarray(image)


def check_frames(name: str, frames: Any) -> np.ndarray:
    """Returns ``frames`` as an array [..., H, W, 3] uint8, or raises ValueError with a remedy."""
    frames = np.asarray(frames)
    shape, dtype = frames.shape, frames.dtype
    if frames.ndim < 3 or shape[-1] != 3:
        if frames.ndim >= 3 and shape[-3] == 3:
            hint = "channels come first here: np.moveaxis(frame, -3, -1)"
        elif frames.ndim >= 3 and shape[-1] == 4:
            hint = "remove the fourth channel: frame[..., :3]"
        elif frames.ndim >= 3 and shape[-1] == 1:
            hint = "repeat the grey: np.repeat(frame, 3, axis=-1)"
        else:
            hint = "a grey frame becomes np.repeat(frame[..., None], 3, axis=-1)"
    elif dtype.kind == "f":
        hint = "numbers in [0, 1] become np.uint8(np.round(255 * frame))"
    elif dtype != np.uint8:
        hint = "scale it to 0 .. 255 and convert it to uint8"
    elif 0 in shape[-3:-1]:
        hint = "it has no pixels"
    else:
        return frames
    raise ValueError(
        f"{name} has shape {shape} and type {dtype}, expected [..., height, width, 3] uint8: {hint}"
    )


def check_size(size: Any) -> tuple[int, int]:
    """Returns (h, w) as integers, or raises ValueError; bounds their product as Pillow does."""
    values = size if isinstance(size, Sequence | np.ndarray) and not isinstance(size, str) else ()
    sides = [int(n) for n in values if isinstance(n, int | np.integer) and not isinstance(n, bool)]
    most = PIL.Image.MAX_IMAGE_PIXELS or np.inf
    if len(sides) != 2 or len(values) != 2 or min(sides) < 1 or sides[0] * sides[1] > most:
        raise ValueError(
            f"the size of images is {size!r}, expected (height, width) in pixels, at most {most}"
        )
    return sides[0], sides[1]
