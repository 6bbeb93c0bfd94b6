"""Some episodes of a data set as a page shows them: a few pictures, and thinned curves."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image

from ambient_jax.data.dataset import Dataset
from ambient_jax.data.features import flatten
from ambient_jax.data.files import first_line
from ambient_jax.data.look.cameras import as_image, is_flat, short
from ambient_jax.data.look.fields import BOOKKEEPING, as_text
from ambient_jax.data.look.motion import repeated
from ambient_jax.data.look.summary import Summary
from ambient_jax.data.storage.video import Clip

PICTURES = 6  # of an episode and camera
POINTS = 240  # of a curve
CAMERAS = 8
DIMS = 64  # curves of a field
_HEIGHT = 144  # pixels of a shown picture
_COMPARED = 1024  # steps of a video that are compared with the one before
_WINDOW = 256  # of these decoded at a time
_SMALL = 96  # height in pixels at which they are compared


@dataclasses.dataclass(frozen=True)
class Sample:
    """One episode.

    Attributes:
      episode: its id.
      length: its steps.
      instruction: its first one, "" without.
      pictures: by camera, (step, JPEG bytes) of some steps, or a line that says why there are none.
      steps: of the curves, [P].
      curves: by field, its values at these steps, [P, d].
      problems: (kind, line) of what only decoding shows.
    """

    episode: int
    length: int
    instruction: str
    pictures: Mapping[str, tuple[tuple[int, bytes], ...] | str]
    steps: np.ndarray
    curves: Mapping[str, np.ndarray]
    problems: tuple[tuple[str, str], ...]


def choose(summary: Summary, count: int) -> list[int]:
    """Positions of at most ``count`` episodes that could be read, spread over the data set.

    Those with pictures of most cameras come first.
    """
    positions = summary.positions
    if not len(positions) or count < 1:
        return []
    seen = np.zeros(len(positions), int)
    for camera in summary.cameras:
        seen += np.isin(positions, camera.present)
    best = positions[seen == seen.max()]
    if len(best) < count:  # then the others too, which have curves
        rest = positions[seen < seen.max()]
        best = np.sort(np.concatenate([best, _spread(rest, count - len(best))]))
    return _spread(best, count).tolist()


def _spread(values, count):
    return values[np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).astype(int))]


def read(dataset: Dataset, summary: Summary, position: int) -> Sample:
    """Reads one episode again and decodes what the page shows of it."""
    flat = flatten(dataset[position])
    length = int(summary.lengths[np.searchsorted(summary.positions, position)])
    steps = _spread(np.arange(length), POINTS)
    curves = {}
    for field in summary.numbers:
        values, size = np.asarray(flat.get(field.path)), len(field.constant)
        if field.path in BOOKKEEPING or not 0 < size <= DIMS:
            continue
        if field.path.startswith("steps/") and values.size == size * length:
            curves[field.path] = values.reshape(length, size)[steps]
    pictures: dict[str, tuple[tuple[int, bytes], ...] | str] = {}
    problems: list[tuple[str, str]] = []
    for camera in summary.cameras[:CAMERAS]:
        try:
            stored = flat.get(camera.path)
            if isinstance(stored, bytes):  # one for the episode
                stored = [stored]
            pictures[camera.path], lines = _pictures(camera.path, stored)
            problems += lines
        except (ValueError, OSError, SyntaxError) as error:
            pictures[camera.path] = first_line(error)
            problems.append(("unreadable pictures", f"{short(camera.path)}: {first_line(error)}"))
    return Sample(
        episode=int(dataset.episode_ids[position]),
        length=length,
        instruction=_instruction(flat),
        pictures=pictures,
        steps=steps,
        curves=curves,
        problems=tuple(problems),
    )


def _instruction(flat):
    for path, value in flat.items():
        if "instruction" in path:
            return as_text(np.ravel(value)[0]) if np.size(value) else ""
    return ""


def _pictures(path: str, stored: Any) -> tuple[Any, list[tuple[str, str]]]:
    if stored is None:
        return "none in this episode", []
    if isinstance(stored, Clip):
        if stored.absent:
            return stored.absent, []
        chosen = _spread(np.arange(len(stored)), PICTURES)
        frames = [(int(i), _jpeg(PIL.Image.fromarray(stored[int(i)]))) for i in chosen]
        same = _same(stored)
        lines = (
            [("repeated pictures", repeated(short(path), "pictures", same))] if same.any() else []
        )
        return tuple(frames), [] if same.all() else lines
    if not any(len(p) for p in stored):
        return "empty in this episode", []
    shown, flat = [], True
    for i in _spread(np.arange(len(stored)), PICTURES).tolist():
        with as_image(stored[i]) as image:
            shown.append((i, _jpeg(image)))
            flat = flat and is_flat(image)
    return ("one colour in all steps shown" if flat else tuple(shown)), []


def _same(clip: Clip) -> np.ndarray:
    """Whether pictures equal those before them, [T - 1] bool, of the first ``_COMPARED``."""
    height, width = clip[0].shape[:2]
    size = (_SMALL, max(1, round(width * _SMALL / height))) if height > _SMALL else None
    same, last = [], None
    for start in range(0, min(len(clip), _COMPARED), _WINDOW):
        window = clip[start : min(start + _WINDOW, _COMPARED)].decode(size)
        joined = window if last is None else np.concatenate([last, window])
        same += (joined[1:] == joined[:-1]).all(axis=(1, 2, 3)).tolist()
        last = window[-1:]
    return np.array(same, bool)


def _jpeg(image: PIL.Image.Image) -> bytes:
    """A picture as JPEG of at most ``_HEIGHT`` rows; smaller ones keep their size."""
    if image.mode.startswith(("I", "F")):  # depth: from its least to its largest value
        depth = np.asarray(image, np.float64)
        low, high = np.nanmin(depth), np.nanmax(depth)
        image = PIL.Image.fromarray((255 * (depth - low) / max(high - low, 1e-9)).astype(np.uint8))
    image = image.convert("RGB")
    image.thumbnail((4 * _HEIGHT, _HEIGHT))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
