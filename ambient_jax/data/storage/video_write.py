"""Writes the pictures of episodes to videos: one after another, in files of a size, by PyAV."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ambient_jax import _checks, _packages
from ambient_jax.data.files import first_line

# (encoder, pixels of even and of odd sizes, options). A key picture at every second one, as LeRobot
# writes them: any picture is found by decoding at most two.
CODECS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", "yuv444p", {"crf": "18", "g": "2", "bf": "0"}),
    "av1": ("libsvtav1", "yuv420p", "", {"crf": "24", "g": "2", "preset": "8"}),
    "lossless": ("libx264rgb", "rgb24", "rgb24", {"qp": "0", "g": "2", "bf": "0"}),
}


class Place(NamedTuple):
    """Where an episode's pictures are: number of the file, seconds from its beginning, and how many
    they are."""

    file: int
    start: float
    stop: float
    pictures: int


class VideoWriter:
    """Videos of one camera; an episode lies in one file.

    Args:
      path: of the file of a number; its folder is made.
      hz: pictures per second.
      codec: "h264" and "av1" lose a little, "lossless" nothing (h264 of RGB).
      limit: bytes from which on the next episode begins another file.
    """

    def __init__(self, path: Callable[[int], str], hz: float, codec: str, limit: float):
        _checks.one_of("codec", codec, CODECS)
        self._av = _packages.need("av", "writing a video", "formats")
        self._path, self._codec, self._limit = path, codec, limit
        self.rate = Fraction(hz).limit_denominator(1001)
        self._file = -1
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._count = self._bytes = 0

    @property
    def pixels(self) -> str:
        """FFmpeg's name of how pixels are stored."""
        _, even, odd, _ = CODECS[self._codec]
        return odd if self._shape[0] % 2 or self._shape[1] % 2 else even

    def write(self, pictures: Iterable[np.ndarray]) -> Place:
        """Appends an episode's pictures, uint8 [h, w, 3] each, all of one size.

        ValueError: there is none, one has another size, or the encoder refuses them.
        """
        first = self._count
        for picture in pictures:
            if not self._shape:
                self._shape = picture.shape
            if picture.shape != self._shape or picture.dtype != np.uint8:
                raise ValueError(
                    f"a picture is {picture.dtype} {list(picture.shape)}, expected uint8 "
                    f"{list(self._shape)} as the first: resize them, or leave the camera out"
                )
            if self._container is None or (first == self._count and self._bytes >= self._limit):
                self.close()
                self._open()
                first = 0
            self._mux(self._frame(picture, is_key=self._count == first))
            self._count += 1
        if self._count == first:
            raise ValueError("there is no picture")
        start, stop = float(first / self.rate), float(self._count / self.rate)
        return Place(self._file, start, stop, self._count - first)

    def close(self) -> None:
        """Ends the file that is open."""
        if self._container is not None:
            self._mux(None)
            self._container.close()
            self._container = None

    def _open(self) -> None:
        name, _, _, options = CODECS[self._codec]
        self._file, self._count, self._bytes = self._file + 1, 0, 0
        path = self._path(self._file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not self.pixels:
            raise ValueError(f"pictures are {self._shape[:2]}, {self._codec} needs even sizes")
        os.environ.setdefault("SVT_LOG", "1")  # errors only: its banner has 20 lines
        self._container = self._av.open(path, "w")
        stream = self._container.add_stream(name, rate=self.rate, options=dict(options))
        stream.height, stream.width = self._shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = self.pixels, 1 / self.rate
        self._stream = stream

    def _frame(self, picture: np.ndarray, is_key: bool) -> Any:
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = self._count, 1 / self.rate
        if is_key:
            frame.pict_type = self._av.video.frame.PictureType.I
        return frame

    def _mux(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._bytes += packet.size
                self._container.mux(packet)
        except self._av.FFmpegError as error:
            raise ValueError(
                f"pictures of {list(self._shape)} cannot be encoded as {self._codec} "
                f"({first_line(error)}): take another codec, or keep pictures in the tables"
            ) from error
