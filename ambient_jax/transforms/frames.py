"""Camera frames of any size, brought to the size that a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

MOST_PIXELS = PIL.Image.MAX_IMAGE_PIXELS or 89_478_485


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames brought to the size that training, evaluation and policies see.

    This is the only way in which sizes change, however the pixels were stored: Pillow's BILINEAR, a
    triangle filter widened by the scale when shrinking. Frames of that size are returned as they
    are.

    Args:
      frames: [..., H, W, 3] uint8, RGB.
      size: (h, w), the training's ``config.data.open_x.image_size``.

    Returns:
      [..., h, w, 3] uint8.

    Raises:
      ValueError: frames that are no such array.
    """
    frames, size = check_frames("frames", frames), check_size(size)
    if frames.shape[-3:-1] == size:
        return frames
    flat = frames.reshape(-1, *frames.shape[-3:])
    out = np.empty((len(flat), *size, 3), np.uint8)
    for i, frame in enumerate(flat):
        image = PIL.Image.fromarray(np.ascontiguousarray(frame))
        out[i] = np.asarray(image.resize(size[::-1], PIL.Image.Resampling.BILINEAR))
    return out.reshape(*frames.shape[:-3], *size, 3)


def check_frames(name: str, frames: Any) -> np.ndarray:
    """Returns ``frames`` as an array [..., H, W, 3] uint8.

    Raises:
      ValueError: something else; the message says how to convert it.
    """
    frames = np.asarray(frames)
    shape, dtype = frames.shape, frames.dtype
    told = f"{name} has shape {shape} and type {dtype}, expected [..., height, width, 3] uint8"
    colours = frames.ndim >= 3 and shape[-1] == 3
    if not colours and frames.ndim >= 3 and shape[-3] == 3:
        hint = "channels come first here: np.moveaxis(frame, -3, -1)"
    elif not colours and frames.ndim >= 3 and shape[-1] == 4:
        hint = "take the fourth channel away: frame[..., :3]"
    elif not colours and frames.ndim >= 3 and shape[-1] == 1:
        hint = "repeat the grey: np.repeat(frame, 3, axis=-1)"
    elif not colours:
        hint = "one of grey alone becomes np.repeat(frame[..., None], 3, axis=-1)"
    elif dtype.kind == "f":
        hint = "numbers in [0, 1] become np.uint8(np.round(255 * frame))"
    elif dtype != np.uint8:
        hint = "bring it to 0 .. 255 and to uint8"
    elif 0 in shape[-3:-1]:
        hint = "it has no pixels"
    else:
        return frames
    raise ValueError(f"{told}: {hint}")


def check_size(size: Any) -> tuple[int, int]:
    """Returns (h, w) as whole numbers.

    Raises:
      ValueError: other numbers, or more pixels than Pillow opens.
    """
    given = size if isinstance(size, Sequence | np.ndarray) and not isinstance(size, str) else ()
    sides = [int(n) for n in given if isinstance(n, int | np.integer) and not isinstance(n, bool)]
    if len(sides) != 2 or len(given) != 2 or min(sides) < 1 or sides[0] * sides[1] > MOST_PIXELS:
        raise ValueError(
            f"the size of images is {size!r}, expected (height, width) in pixels, at most "
            f"{MOST_PIXELS}"
        )
    return sides[0], sides[1]
