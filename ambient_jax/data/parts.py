"""Statistics of a source by parts, which are runs of its files, and their sum.

``statistics.compute`` sums the parts in one process; ``prepare`` measures them on Apache Beam. Both
get the same numbers, bit for bit, as parts and their order depend on the source alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging

from ambient_jax.data import chunk
from ambient_jax.data.moments import Moments
from ambient_jax.data.source import Source

MOST_PARTS = 4096  # of a source; one with more files, such as one an episode, has several in a part
_EXAMPLES = 20  # examples stored for each kind of problem
_ONLY_A_FILLER = (
    "its only step is flagged is_last, so its action is a filler: leave the episode out, or set "
    "last_step='keep' if that action is real"
)

Problems = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class SourceStatistics:
    """Statistics of a source.

    Attributes:
      fields: moments of each field ("action", "observation/<name>") over all steps.
      lengths: steps of each episode, [num_episodes] int64; 0 for a skipped episode.
      step_bytes: mean size of a step in memory, including encoded images.
      problems: by kind, the numbers of "episodes" and of those "skipped", and "examples", the first
        [id, text].
    """

    fields: dict[str, Moments]
    lengths: np.ndarray
    step_bytes: float = 0.0
    problems: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        return int(self.lengths.sum())


@dataclasses.dataclass(frozen=True)
class LastActions:
    """The last actions of some episodes: their number, the first one [D], and where all equal it
    [D] bool."""

    count: int
    first: np.ndarray
    same: np.ndarray

    def merge(self, other: LastActions) -> LastActions:
        same = self.same & other.same & (self.first == other.first)
        return LastActions(self.count + other.count, self.first, same)


@dataclasses.dataclass(frozen=True)
class Part:
    """Statistics of a run of files.

    Attributes:
      fields, problems: see ``SourceStatistics``; no fields if there is no step.
      lengths: steps of each episode.
      size: bytes of all steps in memory.
      first: id of the first episode with steps, -1 if there is none.
      lasts: the last actions, if fillers were dropped before them.
    """

    fields: dict[str, Moments]
    lengths: list[int]
    size: int
    problems: Problems
    first: int = -1
    lasts: LastActions | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Part:
        """Makes a part from ``dataclasses.asdict``, whose arrays may be lists."""
        moments = {name: Moments.from_dict(m) for name, m in fields["fields"].items()}
        lasts = fields["lasts"] and LastActions(
            int(fields["lasts"]["count"]),
            np.asarray(fields["lasts"]["first"], np.float64),
            np.asarray(fields["lasts"]["same"], bool),
        )
        lengths = [int(n) for n in fields["lengths"]]
        if any(m.count != sum(lengths) for m in moments.values()):
            raise ValueError("its lengths do not agree with its moments")
        return cls(
            *(moments, lengths, int(fields["size"]), fields["problems"], int(fields["first"])),
            lasts,
        )


def parts_of(source: Source) -> list[range]:
    """Returns the files of each part of a source; one file each unless there are very many."""
    files = len(source.shard_lengths)
    ends = np.linspace(0, files, min(files, MOST_PARTS) + 1).astype(np.int64).tolist()
    return [range(*ends) for ends in itertools.pairwise(ends)]


def measure(source: Source, files: range) -> Part:
    """Returns the statistics of some files of a source; reads each of their episodes once.

    Raises ValueError for data that are not finite (with episode and step) or of differing widths,
    and the errors of ``Source.examine``.
    """
    lengths: list[int] = []
    fields: dict[str, Moments] = {}
    problems: Problems = {}
    lasts, size, first = None, 0, -1
    dropped = source.last_step == "drop"
    before = sum(source.shard_lengths[: files.start])
    for index, episode, wrong in (row for file in files for row in source.examine(file)):
        _count(problems, index, wrong, episode is None)
        lengths.append(0)
        if episode is None:
            continue
        arrays = source.read(index, episode)
        lengths[-1] = len(arrays[chunk.ACTION])
        if not lengths[-1]:
            _count(problems, index, [("last_step", _ONLY_A_FILLER)] if dropped else [], True)
            continue
        # A stream stores fields as float32.
        size += sum(4 * a.size for a in arrays.values()) + source.extra_bytes(episode)
        for name, values in arrays.items():
            moments = Moments.of(values, index)
            fields[name] = _merged(source, index, name, fields.get(name), moments)
        if dropped:
            last = np.asarray(arrays[chunk.ACTION][-1], np.float64)
            one = LastActions(1, last, np.ones(last.shape, bool))
            lasts = lasts.merge(one) if lasts else one
        first = index if first < 0 else first
        line, done = "statistics of %s: %d of %d episodes", before + len(lengths)
        logging.log_every_n_seconds(logging.INFO, line, 10, source.name, done, len(source))
    return Part(fields, lengths, size, problems, first, lasts)


def join(source: Source, parts: Iterable[Part]) -> SourceStatistics:
    """Returns the statistics of a source from those of all its parts, in order.

    Raises ValueError if parts differ in the widths of fields, or if there is no step.
    """
    lengths: list[int] = []
    fields: dict[str, Moments] = {}
    problems: Problems = {}
    lasts, size = None, 0
    for part in parts:
        lengths += part.lengths
        size += part.size
        for name, moments in part.fields.items():
            fields[name] = _merged(source, part.first, name, fields.get(name), moments)
        for kind, row in part.problems.items():
            total = problems.setdefault(kind, {"episodes": 0, "skipped": 0, "examples": []})
            total["episodes"] += row["episodes"]
            total["skipped"] += row["skipped"]
            total["examples"] = [*total["examples"], *row["examples"]][:_EXAMPLES]
        lasts = lasts.merge(part.lasts) if lasts and part.lasts else lasts or part.lasts
    if not fields:
        why = next((p["examples"][0][1] for p in problems.values() if p["skipped"]), "")
        left_out = f", after {sum(p['skipped'] for p in problems.values())} left out ({why})"
        raise ValueError(
            f"source {source.name!r} ({source.directory}) has no step in its episodes"
            f"{left_out if problems else ''}"
        )
    if lasts and (doubt := _filler_doubt(source, lasts, fields[chunk.ACTION])):
        row = problems.setdefault("last_step", {"episodes": 0, "skipped": 0, "examples": []})
        row["episodes"] = max(row["episodes"], lasts.count)
        row["examples"] = [[None, doubt], *row["examples"]]
    steps = np.asarray(lengths, np.int64)
    return SourceStatistics(fields, steps, size / int(steps.sum()), problems)


def _merged(source, index, name, previous, moments):
    if previous is None:
        return moments
    if previous.mean.shape != moments.mean.shape:
        raise ValueError(
            f"source {source.name!r}, episode {index}: {name} has {moments.mean.size} "
            f"numbers a step, the episodes before it {previous.mean.size}"
        )
    return previous.merge(moments)


def _filler_doubt(source, lasts, moments):
    """Returns a line if all episodes end with the same action and other steps differ, else ""."""
    judged = moments.max > moments.min
    if source.displacements is not None and source.displacements.any():
        judged &= source.displacements  # grippers often end in the same state
    if lasts.count < 2 or not judged.any() or not lasts.same[judged].all():
        return ""
    return (
        f"all {lasts.count} episodes end with the same action {np.round(lasts.first, 4).tolist()}, "
        "as fillers do: if it is one, set is_last in the data, or cut it off; if it is real, set "
        "last_step='keep'"
    )


def _count(problems, index, wrong, skipped):
    for kind in dict.fromkeys(kind for kind, _ in wrong):
        row = problems.setdefault(kind, {"episodes": 0, "skipped": 0, "examples": []})
        row["episodes"] += 1
        row["skipped"] += skipped
    for kind, text in wrong:
        if len(problems[kind]["examples"]) < _EXAMPLES:
            problems[kind]["examples"].append([index, text])
