"""Figures of a data set in one pass over its episodes, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ambient_jax.data.dataset import Dataset
from ambient_jax.data.example_proto import object_array
from ambient_jax.data.features import flatten, leaves
from ambient_jax.data.files import first_line
from ambient_jax.data.look import fields
from ambient_jax.data.look.cameras import Camera, CameraMeter, short
from ambient_jax.data.look.fields import Numbers, Texts
from ambient_jax.data.look.motion import Motion, MotionMeter, repeated, repeats
from ambient_jax.data.look.stated import differences

EXAMPLES = 20  # kept of each kind of problem
_TIME = "steps/timestamp"

Found = Iterator[tuple[str, str]]  # (kind, text) of problems


@dataclasses.dataclass(frozen=True)
class Problem:
    """One kind of problem: in how many episodes, and examples (episode id or None, a line)."""

    kind: str
    episodes: int
    examples: tuple[tuple[int | None, str], ...]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What one pass over a data set found.

    Attributes:
      name, format, version, split, directory: of the data set.
      hz: control rate, None if unknown.
      episodes: of the split, the unreadable ones too.
      lengths: steps of each episode that could be read, [N].
      positions: of these in the data set, [N].
      numbers, texts, cameras: its fields; ``others`` are (path, dtype, why it was not measured).
      motion: of the actions; None without any.
      problems: by kind, first the unreadable episodes, then those that hit most episodes.
    """

    name: str
    format: str
    version: str
    split: str
    directory: str
    hz: float | None
    episodes: int
    lengths: np.ndarray
    positions: np.ndarray
    numbers: tuple[Numbers, ...]
    texts: tuple[Texts, ...]
    cameras: tuple[Camera, ...]
    others: tuple[tuple[str, str, str], ...]
    motion: Motion | None
    problems: tuple[Problem, ...]

    @property
    def steps(self) -> int:
        return int(self.lengths.sum())

    @property
    def hours(self) -> float | None:
        return self.steps / self.hz / 3600 if self.hz else None


def summarise(
    dataset: Dataset,
    hz: float | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Summary:
    """Reads every episode once; damaged ones are listed, and the others measured.

    Args:
      dataset: see ``storage.open_dataset``; with ``decode_images=False``.
      hz: control rate where the data set does not say it.
      progress: wraps the positions, such as ``tqdm.tqdm``.
    """
    hz = dataset.hz or hz
    meters, problems = _Meters(dataset, hz), _Problems()
    lengths, positions = [], []
    for position in progress(range(len(dataset))):
        episode = int(dataset.episode_ids[position])
        try:
            flat = flatten(dataset[position])
        except (ValueError, OSError) as error:
            problems.add(episode, [("unreadable", first_line(error))])
            continue
        lengths.append(next((len(v) for p, v in flat.items() if p.startswith("steps/")), 0))
        positions.append(position)
        problems.add(episode, meters.add(position, episode, flat))
    numbers = meters.measured()
    whole = len(positions) == len(dataset) and "[" not in dataset.split
    for line in differences(dataset, {n.path: n for n in numbers}, whole):
        problems.add(None, [("stated statistics", line)])
    for camera in meters.cameras:
        problems.add(None, camera.lacks(len(positions)))
    for field in numbers:
        for o in field.outliers:
            where = (
                f"{short(field.path)} [{field.name_of(o.dim)}] is {o.value:.6g} at step {o.step}"
            )
            line = f"{where}, the rest {o.rest[0]:.4g} to {o.rest[1]:.4g}"
            problems.add(o.episode, [("outlier", line)])
    kind = type(dataset).__name__.removesuffix("Dataset").replace("Rlds", "RLDS")
    stored = getattr(dataset, "file_format", "")
    return Summary(
        name=dataset.name,
        format=f"{kind} ({stored})" if stored else kind,
        version=dataset.version,
        split=dataset.split,
        directory=dataset.directory,
        hz=hz,
        episodes=len(dataset),
        lengths=np.array(lengths, np.int64),
        positions=np.array(positions, np.int64),
        numbers=numbers,
        texts=tuple(meter.result() for meter in meters.texts.values()),
        cameras=tuple(meter.result() for meter in meters.cameras),
        others=meters.others(),
        motion=meters.moved(numbers),
        problems=problems.result(),
    )


class _Problems:
    def __init__(self) -> None:
        self._episodes: dict[str, set[int | None]] = {}
        self._examples: dict[str, list[tuple[int | None, str]]] = {}

    def add(self, episode: int | None, found: Iterable[tuple[str, str]]) -> None:
        for kind, text in found:
            self._episodes.setdefault(kind, set()).add(episode)
            examples = self._examples.setdefault(kind, [])
            if len(examples) < EXAMPLES:
                examples.append((episode, text))

    def result(self) -> tuple[Problem, ...]:
        rows = [
            Problem(kind, len(which - {None}), tuple(self._examples[kind]))
            for kind, which in self._episodes.items()
        ]
        return tuple(sorted(rows, key=lambda p: (p.kind != "unreadable", -p.episodes, p.kind)))


class _Meters:
    """Measures of every field, fed one episode after the other."""

    def __init__(self, dataset: Dataset, hz: float | None):
        self._leaves = leaves(dataset.features)
        cameras = sorted(path for path, leaf in self._leaves.items() if leaf.kind == "image")
        self.cameras = [CameraMeter(path) for path in cameras]
        self.texts: dict[str, fields.TextsMeter] = {}
        self._numbers: dict[str, fields.NumbersMeter] = {}
        self._why = {path: "not read" for path in self._leaves}  # of fields without a measure
        self._named = dataset.dimensions()
        self._motion, self._hz = MotionMeter(hz), hz
        self._actions: list[str] = []

    def add(self, position: int, episode: int, flat: Mapping[str, Any]) -> Found:
        """Takes an episode; yields its problems."""
        steps = {}
        for path, value in flat.items():
            leaf = self._leaves.get(path)
            if leaf is None or leaf.kind in ("image", "other", "ragged"):
                continue
            values = np.asarray(value if leaf.sequence else [value])
            if leaf.kind != "bytes" and values.dtype == object:
                self._why[path] = "of varying size"
                continue
            self._why.pop(path, None)
            if leaf.kind == "bytes":
                yield from self.texts.setdefault(path, fields.TextsMeter(path)).add(values)
                continue
            if path not in self._numbers:
                self._numbers[path] = fields.NumbersMeter(leaf, self._named.get(path, ()))
            yield from self._numbers[path].add(values, episode)
            if leaf.sequence:
                steps[path] = values
        for camera in self.cameras:
            self._why.pop(camera.path, None)
            if camera.path in flat:
                pictures = flat[camera.path]
                if isinstance(pictures, bytes):  # one for the episode
                    pictures = object_array([pictures])
                yield from camera.add(position, pictures)
        self._move(steps)
        yield from _stuck(steps)
        yield from _uneven(steps.get(_TIME), self._hz)

    def _move(self, steps: Mapping[str, np.ndarray]) -> None:
        actions = {p: v for p, v in steps.items() if fields.is_action(p)}
        self._actions = self._actions or list(actions)
        if actions and list(actions) == self._actions:
            rows = np.concatenate([fields.as_rows(v) for v in actions.values()], axis=1)
            self._motion.add(rows)

    def measured(self) -> tuple[Numbers, ...]:
        found = [meter.result() for meter in self._numbers.values()]
        return tuple(sorted(found, key=lambda field: fields.rank(field.path)))

    def others(self) -> tuple[tuple[str, str, str], ...]:
        return tuple((p, str(self._leaves[p].dtype), why) for p, why in self._why.items())

    def moved(self, numbers: Iterable[Numbers]) -> Motion | None:
        """The motion of the actions, whose ranges leave out outliers."""
        by_path, widths = {n.path: n for n in numbers}, []
        for path in self._actions:
            field = by_path[path]
            if field.moments is None or field.size > fields.WIDE:
                return None
            width = field.moments.max - field.moments.min
            for outlier in field.outliers:
                width[outlier.dim] = outlier.rest[1] - outlier.rest[0]
            widths.append(width)
        return self._motion.result(np.concatenate(widths)) if widths else None


def _stuck(steps: Mapping[str, np.ndarray]) -> Found:
    """Steps at which nothing that is observed in numbers changes."""
    seen = [v for p, v in steps.items() if p.startswith("steps/observation/")]
    if seen and len(seen[0]) > 1 and (same := repeats(seen)).any():
        yield "repeated observations", repeated("all numbers observed", "steps", same)


def _uneven(times: np.ndarray | None, hz: float | None) -> Found:
    """Steps between which more or less time goes by than the rate says."""
    if times is None or hz is None or len(times) < 2:
        return
    gaps = np.diff(times.ravel().astype(np.float64))
    wrong = np.flatnonzero(np.abs(gaps * hz - 1) > 0.5)
    if len(wrong):
        yield (
            "timing",
            f"timestamp goes on by {gaps[wrong[0]]:.4g} s at step {wrong[0]}, expected "
            f"{1 / hz:.4g} s ({len(wrong)} such steps)",
        )
