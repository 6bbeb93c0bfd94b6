"""Writes the video of an episode while it runs. It needs PyAV, and no reader of data sets."""

import os
import pathlib
from fractions import Fraction
from typing import Any

import numpy as np

from ambient_jax import _packages


class Video:
    """An mp4 file (H.264) that gets its name when it is complete.

    Args:
      path: of the file; its folder is made.
      hz: frames per second.

    Raises:
      ImportError: PyAV is missing.
    """

    def __init__(self, path: str | os.PathLike, hz: float):
        otherwise = ", or ask for no videos"
        av = _packages.need("av", "a video of a rollout", "rollout", otherwise=otherwise)
        self._av, self._path = av, pathlib.Path(path)
        self._partial = self._path.with_name(f".{self._path.name}")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(self._partial), "w")
        rate = Fraction(hz).limit_denominator(1001)
        self._stream: Any = self._container.add_stream("libx264", rate, options={"crf": "20"})
        self._stream.pix_fmt = "yuv420p"
        self._shape: tuple[int, ...] = ()

    def add(self, frame: Any) -> None:
        """Adds a frame uint8 [h, w, 3], without a last odd row and column, as players want even
        sizes. Raises ValueError for another one, or if its size is not that of the first."""
        frame = np.asarray(frame)
        fits = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[-1] == 3
        if not fits or self._shape not in ((), frame.shape):
            expected = list(self._shape) or "[h, w, 3] in render_mode 'rgb_array'"
            raise ValueError(
                f"render() returned {frame.dtype} {list(frame.shape)}, expected uint8 {expected}; "
                "videos=0 makes no videos"
            )
        even = np.ascontiguousarray(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2])
        if not self._shape:
            self._shape = frame.shape
            self._stream.height, self._stream.width = even.shape[:2]
        picture = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Completes the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        os.replace(self._partial, self._path)
