"""Pictures of an episode that lie in a video: decoded in one pass from front to back.

A picture belongs to a step if its time is within a quarter of the time between two steps; the
nearest one is taken. PyAV decodes h264, h265, AV1, mpeg4 and what else FFmpeg can.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from ambient_jax import _packages
from ambient_jax.data import files
from ambient_jax.data.files import first_line
from ambient_jax.transforms.frames import resize_into

if TYPE_CHECKING:  # imported where a video is opened: other formats need no decoder
    import av

TOLERANCE = 0.25  # of the time between two steps


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """The pictures of some steps, as an array: ``clip[2:5]`` is a clip, ``clip[3]`` decodes one.

    Attributes:
      path: of the video file.
      times: s from the file's beginning, [L], rising.
      period: s between two steps.
      absent: why there are no pictures, "" if there are.
    """

    path: str
    times: np.ndarray
    period: float
    absent: str = ""

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        return f"Clip({self.path!r}, {len(self)} pictures{self.absent and f', {self.absent}'})"

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, int | np.integer):
            return dataclasses.replace(self, times=self.times[at : at + 1 or None]).decode()[0]
        return dataclasses.replace(self, times=self.times[at])

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pictures [h, w, 3] one after another, in one pass; errors as of ``decode``."""
        if self.absent:
            raise ValueError(
                f"{self.path}: {self.absent}; fetch it, or leave out the camera or the episode"
            )
        yield from self._pictures()

    def decode(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """All pictures in one pass, RGB uint8 [L, h, w, 3], ``size`` (h, w) or their own.

        ValueError: the file cannot be decoded, or has no picture for a step.
        """
        out: np.ndarray | None = None
        for i, picture in enumerate(self):
            if out is None:
                out = np.empty((len(self), *(size or picture.shape[:2]), 3), np.uint8)
            if picture.shape[:2] == out.shape[1:3]:
                out[i] = picture
            else:
                resize_into(PIL.Image.fromarray(picture), out[i])
        if out is None:
            return np.empty((0, *(size or (0, 0)), 3), np.uint8)
        return out

    def problem(self, thorough: bool = False) -> str:
        """Why the pictures cannot be had, "" if that is not seen; reads the file's header only.

        ``thorough`` decodes them all.
        """
        try:
            if thorough:
                for _ in self._pictures():
                    pass
                return ""
            with opened(self.path) as container:
                stream = container.streams.video[0]
                length = stream.duration and float(stream.duration * (stream.time_base or 1))
        except ValueError as error:
            return str(error)
        last = float(self.times[-1]) if len(self.times) else 0.0
        if length is not None and last - length > TOLERANCE * self.period:
            return f"{self.path} has {length:.3f} s, its episode needs a picture at {last:.3f} s"
        return ""

    def _pictures(self) -> Iterator[np.ndarray]:
        """Pictures in order of steps."""
        if not len(self.times):
            return
        near, done = TOLERANCE * self.period, 0
        last: tuple[float, av.VideoFrame] | None = None
        for time, frame in _frames(self.path, float(self.times[0]) - near):
            # Steps before this picture have it or the last one, whichever is nearer.
            while done < len(self.times) and self.times[done] <= time:
                wanted = float(self.times[done])
                here = last if last and wanted - last[0] <= time - wanted else (time, frame)
                yield self._picture(wanted, here)
                done += 1
            if done == len(self.times):
                return
            last = time, frame
        for step in range(done, len(self.times)):
            yield self._picture(float(self.times[step]), last)

    def _picture(self, wanted: float, nearest: tuple[float, av.VideoFrame] | None) -> np.ndarray:
        if nearest and abs(wanted - nearest[0]) <= TOLERANCE * self.period:
            return nearest[1].to_ndarray(format="rgb24")
        other = f"the nearest is at {nearest[0]:.3f} s" if nearest else "it has none at all"
        raise ValueError(
            f"{self.path} has no picture at {wanted:.3f} s, {other}: it is cut, or has another rate"
        )


def _frames(path: str, start: float, back: float = 0.0) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time in s, frame) of a video from the last key frame before ``start - back`` on.

    A seek goes by the order of decoding. Where a key frame is shown after pictures that follow it
    in the file (B-frames, open groups of pictures), it may be too late: then from further back.
    """
    error_of = _packages.need("av", f"{path} (video)", "formats").FFmpegError
    with opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        base = stream.time_base or Fraction(1, 1)
        sought = start - back > 0
        try:
            if sought:
                container.seek(int((start - back) / base), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                time = float(frame.pts * base)
                if sought and time > start:
                    break
                sought = False
                if frame.is_corrupt:  # FFmpeg fills what it cannot decode
                    raise ValueError(f"{path} is damaged at {time:.3f} s: fetch it again")
                yield time, frame
            else:
                return
        except error_of as error:
            raise ValueError(f"{path} cannot be decoded ({first_line(error)})") from error
    yield from _frames(path, start, 2 * back + 0.5)


@contextlib.contextmanager
def opened(path: str) -> Iterator[av.container.InputContainer]:
    """An open video; errors as of ``files.check_file``, ValueError where it holds no video."""
    av = _packages.need("av", f"{path} (video)", "formats")
    files.check_file(path)
    try:
        container = av.open(path, metadata_errors="replace")  # texts that nobody needs
    except av.FFmpegError as error:
        raise ValueError(f"{path} is no video ({first_line(error)})") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} has no video stream")
        yield container
