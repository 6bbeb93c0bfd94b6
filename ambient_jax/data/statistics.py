"""Computes statistics of a source in one pass over its episodes, and caches them on disk."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from ambient_jax.data import chunk, rlds_source
from ambient_jax.data import source as source_lib
from ambient_jax.data.paths import expanded, write_text
from ambient_jax.data.source import Source, Transform

CACHE_VARIABLE = "AMBIENT_JAX_CACHE"

_EXAMPLES = 20  # examples stored for each kind of problem
_ONLY_A_FILLER = (
    "its only step is flagged is_last, so its action is a filler: leave the episode out, or set "
    "last_step='keep' if that action is real"
)
ENDS = 5  # outermost values kept on each side
# Rows of the sample. Quantiles of more rows have an error in rank of sqrt(q (1 - q) / SAMPLE), one
# standard deviation: for q = 1 % it is 0.16 %.
SAMPLE = 4096


@dataclasses.dataclass(frozen=True)
class Tails:
    """A field's outermost values and a sample; the order of the episodes does not matter.

    Attributes:
      ends: [2, n, d], per dimension the n least values and the n largest ones, outermost first.
      at: [2, n, d, 2], episode and step of each.
      keys: [k] uint64, hashes of (episode, step); the sample has the rows with the least hashes.
      rows: [k, d], the sample; all rows if there are at most ``SAMPLE``.
    """

    ends: np.ndarray
    at: np.ndarray
    keys: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, episode: int = 0) -> Tails:
        """Returns the tails of one episode's values [N, d]."""
        step = np.arange(len(values))
        order = np.argsort(values, axis=0, kind="stable")
        outer = np.stack([order[:ENDS], order[::-1][:ENDS]])
        ends = np.take_along_axis(values[None], outer, axis=1)
        at = np.stack([np.full_like(outer, episode), outer], axis=-1)
        return cls(ends, at, *_least(_hash(episode, step), values))

    def merge(self, other: Tails) -> Tails:
        """Returns the tails of the rows of both."""
        ends = np.concatenate([self.ends, other.ends], axis=1)
        at = np.concatenate([self.at, other.at], axis=1)
        ranked = ends * np.array([1, -1])[:, None, None]
        outer = np.argsort(ranked, axis=1, kind="stable")[:, :ENDS]
        ends, at = np.take_along_axis(ends, outer, 1), np.take_along_axis(at, outer[..., None], 1)
        new = np.ones(len(other.keys), bool)
        if len(self.keys) == SAMPLE:  # sorted: most rows of a large source end here
            new = other.keys < self.keys[-1]
        if not new.any():
            return Tails(ends, at, self.keys, self.rows)
        keys = np.concatenate([self.keys, other.keys[new]])
        return Tails(ends, at, *_least(keys, np.concatenate([self.rows, other.rows[new]])))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Tails:
        types = {"ends": np.float64, "at": np.int64, "keys": np.uint64, "rows": np.float64}
        return cls(**{name: np.asarray(fields[name], type_) for name, type_ in types.items()})


def _hash(episode, step):
    """Returns SplitMix64 of (episode, step): uniform, the same on every machine."""
    x = (np.uint64(episode) << np.uint64(32)) + step.astype(np.uint64)
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _least(keys, rows):
    order = np.argsort(keys, kind="stable")[:SAMPLE]
    return keys[order], rows[order]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of a field's rows: their count, and arrays [d] of float64 by dimension."""

    count: int
    mean: np.ndarray
    m2: np.ndarray  # sum of squared deviations from the mean
    min: np.ndarray
    max: np.ndarray
    # Share of the magnitude: a smaller range is rounding of float32 or float64.
    rounding: np.ndarray | float = 1e-6
    tails: Tails | None = None

    @classmethod
    def of(cls, values: np.ndarray, episode: int = 0) -> Moments:
        """Returns the moments of an episode's values [N, d], N >= 1."""
        values = np.asarray(values, np.float64)
        mean = values.mean(axis=0)
        m2 = ((values - mean) ** 2).sum(axis=0)
        with np.errstate(over="ignore"):
            rounded = (values == values.astype(np.float32)).all(axis=0)
        return cls(
            *(len(values), mean, m2, values.min(axis=0), values.max(axis=0)),
            *(np.where(rounded, 1e-6, 1e-13), Tails.of(values, episode)),
        )

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.m2 / self.count)

    def merge(self, other: Moments) -> Moments:
        """Returns the moments of both sets of rows without cancellation (Chan et al. 1979)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        tails = self.tails.merge(other.tails) if self.tails and other.tails else None
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
            np.minimum(self.min, other.min),
            np.maximum(self.max, other.max),
            np.minimum(self.rounding, other.rounding),
            tails,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Moments:
        """Makes moments from ``dataclasses.asdict``, whose arrays may be lists."""
        names = ("mean", "m2", "min", "max", "rounding")
        arrays = {n: np.asarray(fields[n], np.float64) for n in names}
        if len({a.shape for a in arrays.values()}) != 1:
            raise ValueError("arrays of differing shapes")
        stored = fields["tails"] and Tails.from_dict(fields["tails"])
        return cls(int(fields["count"]), **arrays, tails=stored)


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


def compute(source: Source, *, cache: str | os.PathLike[str] | None = None) -> SourceStatistics:
    """Returns statistics of one source: from the cache, or from one pass over its episodes.

    The cache's key has the source's fingerprint, the fields and the code that reads them, including
    the transform's module. ``cache`` is its directory, by default ``$AMBIENT_JAX_CACHE`` or
    ``~/.cache/ambient_jax``.

    Raises:
      ValueError: data are not finite (with episode and step), or there are no steps.
    """
    code = code_hash(source.transform)
    key = {name: getattr(source, name) for name in ("fingerprint", "action", "settings")}
    key |= {"observation": list(source.observation), "code": code}
    directory = expanded(cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/ambient_jax")
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = pathlib.Path(directory) / f"{source.name}-{digest}.json"
    if code and path.exists():
        try:
            return _read(path, key, len(source))
        except (ValueError, KeyError, TypeError, OSError) as error:
            logging.warning("%s cannot be used (%s): computed anew", path, error)
    measured = _one_pass(source)
    if code:
        _write(path, key, measured)
    return measured


def disagreement(measured: SourceStatistics, stated: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Returns a line about the first stored statistic that differs from the data; "" for none.

    ``stated`` is by field, see ``source.Source.stated``. Differences below a thousandth of a
    dimension's range are rounding; in the mean and std also below a thousandth of its magnitude, as
    many take them from sums in float32.
    """
    for field, stored in stated.items():
        if field not in measured.fields:
            continue
        moments = measured.fields[field]
        values = {"min": moments.min, "max": moments.max, "mean": moments.mean, "std": moments.std}
        size = 1e-6 + np.maximum(np.abs(moments.min), np.abs(moments.max))
        for name, value in values.items():
            rounding = size if name in ("mean", "std") else 1e-3 * size
            room = 1e-3 * np.maximum(moments.max - moments.min, rounding)
            if name not in stored or stored[name].shape != value.shape:
                continue
            off = np.abs(stored[name] - value) > room
            if off.any():
                i = int(np.argmax(off))
                return (
                    f"the data set states that {name} of {field}[{i}] is {stored[name][i]:.6g}, it "
                    f"is {value[i]:.6g}: its statistics are of other data, or the data are damaged"
                )
    return ""


def _one_pass(source):
    lengths, fields, problems, size, lasts = [], {}, {}, 0, []
    dropped = source.last_step == "drop"
    files = range(len(source.shard_lengths))
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
        lasts += [arrays[chunk.ACTION][-1]] if dropped else []
        # A stream stores fields as float32.
        size += sum(4 * a.size for a in arrays.values()) + source.extra_bytes(episode)
        for name, values in arrays.items():
            previous = fields.get(name)
            if previous is not None and previous.mean.shape != values.shape[1:]:
                raise ValueError(
                    f"source {source.name!r}, episode {index}: {name} has {values.shape[1]} "
                    f"numbers a step, the episodes before it {previous.mean.size}"
                )
            moments = Moments.of(values, index)
            fields[name] = moments if previous is None else previous.merge(moments)
        line, done = "statistics of %s: %d of %d episodes", (source.name, len(lengths), len(source))
        logging.log_every_n_seconds(logging.INFO, line, 10, *done)
    if not fields:
        why = next((p["examples"][0][1] for p in problems.values() if p["skipped"]), "")
        left_out = f", after {sum(p['skipped'] for p in problems.values())} left out ({why})"
        raise ValueError(
            f"source {source.name!r} ({source.directory}) has no step in its episodes"
            f"{left_out if problems else ''}"
        )
    if doubt := _filler_doubt(source, lasts, fields[chunk.ACTION]):
        row = problems.setdefault("last_step", {"episodes": 0, "skipped": 0, "examples": []})
        row["episodes"] = max(row["episodes"], len(lasts))
        row["examples"].insert(0, [None, doubt])
    lengths = np.asarray(lengths, np.int64)
    return SourceStatistics(fields, lengths, size / int(lengths.sum()), problems)


def _filler_doubt(source, lasts, moments):
    """Returns a line if all episodes end with the same action and other steps differ, else ""."""
    judged = moments.max > moments.min
    if source.displacements is not None and source.displacements.any():
        judged &= source.displacements  # grippers often end in the same state
    if len(lasts) < 2 or not judged.any() or not (np.stack(lasts) == lasts[0])[:, judged].all():
        return ""
    return (
        f"all {len(lasts)} episodes end with the same action {np.round(lasts[0], 4).tolist()}, as "
        "fillers do: if it is one, set is_last in the data, or cut it off; if it is real, set "
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


_MODULES = (chunk, rlds_source, source_lib, sys.modules[__name__])


def code_hash(transform: Transform | None = None) -> str:
    """Returns a hash of the code that shapes the data, without comments; "" if it has no source."""
    parts = [_module_code(m) for m in _MODULES]
    while isinstance(transform, functools.partial):
        values = [*transform.args, *(v for _, v in sorted(transform.keywords.items()))]
        parts += [*map(_exact, values), repr(sorted(transform.keywords))]
        transform = transform.func
    if transform is not None:
        function = transform if hasattr(transform, "__qualname__") else type(transform)
        try:
            parts.append(_module_code(inspect.getmodule(function)))
        except (OSError, TypeError, AttributeError):
            logging.warning("%s has no source code: its statistics are not cached", transform)
            return ""
        parts.append(function.__qualname__)
        if function is not transform:
            parts.append(repr(transform))
        for cell in getattr(transform, "__closure__", None) or ():
            parts.append(_exact(cell.cell_contents))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _exact(value):
    """Returns a text of a transform's value; NumPy's repr shortens large arrays."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return repr(value)


def _module_code(module):
    return ast.dump(ast.parse(inspect.getsource(module)))


def _read(path, key, episodes):
    stored = json.loads(path.read_text())
    if stored["key"] != key:
        raise ValueError("it has another key")
    lengths = np.asarray(stored["lengths"], np.int64)
    fields = {name: Moments.from_dict(m) for name, m in stored["fields"].items()}
    if lengths.shape != (episodes,) or {m.count for m in fields.values()} != {lengths.sum()}:
        raise ValueError("its lengths do not agree with the dataset")
    return SourceStatistics(fields, lengths, stored["step_bytes"], stored["problems"])


def _write(path, key, measured):
    stored = {"key": key, **dataclasses.asdict(measured)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(stored, default=np.ndarray.tolist))
    except OSError as error:
        logging.warning(
            "statistics cannot be kept (%s): set %s to a writable directory", error, CACHE_VARIABLE
        )
