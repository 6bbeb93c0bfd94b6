"""The cameras of a data set: size and coding of their pictures, and episodes that lack them."""

from __future__ import annotations

import collections
import dataclasses
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import PIL.Image

from ambient_jax.data.files import first_line
from ambient_jax.data.look.motion import repeated, repeats
from ambient_jax.data.storage import video

# Of 255: coding leaves a picture of one colour flat to the last level or two.
_FLAT = 4
MOST = 10_000  # episodes of which it is known that they have pictures


@dataclasses.dataclass(frozen=True)
class Camera:
    """Attributes of one camera.

    Attributes:
      path: of the field.
      sizes: episodes by size, such as "640x480".
      codecs: episodes by coding, such as "av1" or "JPEG".
      absent: episodes without pictures.
      still: episodes whose pictures are all the same, of those whose pictures are in no video.
      blank: of these, episodes whose pictures have one colour.
      present: positions of the first ``MOST`` episodes with pictures.
    """

    path: str
    sizes: Mapping[str, int]
    codecs: Mapping[str, int]
    absent: int
    still: int
    blank: int
    present: tuple[int, ...]


class CameraMeter:
    """Looks at the pictures of a field episode by episode.

    It decodes the first one and compares the bytes of all; of a video it reads the header.
    """

    def __init__(self, path: str):
        self.path = path
        self._sizes: collections.Counter[str] = collections.Counter()
        self._codecs: collections.Counter[str] = collections.Counter()
        self._absent = self._still = self._blank = 0
        self._present: list[int] = []
        self._video: tuple[str, Any] = ("", None)  # the last one: episodes may share a file

    def add(self, position: int, pictures: Any) -> Iterator[tuple[str, str]]:
        """Takes an episode's pictures; yields (kind, text) of what is wrong with them."""
        if isinstance(pictures, video.Clip):
            yield from self._clip(position, pictures)
        elif not len(pictures) or not any(len(p) for p in pictures):
            self._absent += 1
        else:
            yield from self._encoded(position, pictures)

    def lacks(self, episodes: int) -> Iterator[tuple[str, str]]:
        """Yields (kind, text) of pictures that many of the ``episodes`` read do not have."""
        rows = (self._absent, "lacks pictures"), (self._blank, "shows one colour")
        for count, what in rows:
            if count:
                yield (
                    "missing pictures",
                    f"{short(self.path)} {what} in {count} of {episodes} episodes",
                )
        if len(self._sizes) > 1 or len(self._codecs) > 1:
            kinds = ", ".join([*self._sizes, *self._codecs])
            yield "differing pictures", f"{short(self.path)} has several sizes or codings: {kinds}"

    def result(self) -> Camera:
        return Camera(
            path=self.path,
            sizes=dict(self._sizes.most_common()),
            codecs=dict(self._codecs.most_common()),
            absent=self._absent,
            still=self._still,
            blank=self._blank,
            present=tuple(self._present),
        )

    def _seen(self, position, size, codec):
        self._sizes[f"{size[0]}x{size[1]}"] += 1
        self._codecs[codec] += 1
        if len(self._present) < MOST:
            self._present.append(position)

    def _clip(self, position, clip):
        if clip.absent:
            self._absent += 1
            return
        try:
            if self._video[0] != clip.path:
                self._video = clip.path, _header(clip.path)
            size, codec, end = self._video[1]
        except (ValueError, OSError) as error:
            yield "unreadable pictures", f"{short(self.path)}: {first_line(error)}"
            return
        self._seen(position, size, codec)
        missing = round((float(clip.times[-1]) - end) / clip.period) if end is not None else 0
        if missing > 0:
            yield (
                "short video",
                f"{short(self.path)}: {os.path.basename(clip.path)} ends at {end:.2f} s, the "
                f"episode's part of it at {clip.times[-1]:.2f} s: {missing} pictures are missing",
            )

    def _encoded(self, position, pictures):
        try:
            with as_image(pictures[0]) as image:
                size, codec, flat = image.size, image.format or "raw", is_flat(image)
        except (OSError, ValueError, SyntaxError) as error:
            yield "unreadable pictures", f"{short(self.path)}, step 0: {first_line(error)}"
            return
        self._seen(position, size, codec)
        if pictures.dtype == object:
            pairs = zip(pictures[1:], pictures[:-1], strict=True)
            same = np.array([a == b for a, b in pairs], bool)
        else:
            same = repeats([pictures])
        if len(same) and same.all():
            self._still += 1
            self._blank += flat
        elif same.any():
            yield "repeated pictures", repeated(short(self.path), "pictures", same)


def short(path: str) -> str:
    """A field's path without what all fields have in common."""
    return path.removeprefix("steps/").removeprefix("observation/")


def as_image(picture: bytes | np.ndarray) -> PIL.Image.Image:
    """A picture, encoded or as pixels [h, w, 1 or 3]; OSError if it is damaged."""
    if isinstance(picture, bytes):
        return PIL.Image.open(io.BytesIO(picture))
    return PIL.Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def is_flat(image: PIL.Image.Image) -> bool:
    """Whether a picture has one colour."""
    extrema: Any = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(high - low <= _FLAT for low, high in bands)


def _header(path):
    """((width, height), codec, time in s of the last picture or None) of a video."""
    with video.opened(path) as container:
        stream = container.streams.video[0]
        end = None
        if stream.duration and stream.time_base and stream.average_rate:
            first = stream.start_time or 0
            end = float((first + stream.duration) * stream.time_base - 1 / stream.average_rate)
        return (stream.width, stream.height), stream.codec_context.codec.canonical_name, end
