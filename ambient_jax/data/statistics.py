"""Statistics of a source in one pass over its episodes, kept on disk."""

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

from ambient_jax.data import chunk, last_step, rlds_source, tails
from ambient_jax.data import source as source_lib
from ambient_jax.data.paths import expanded, write_text
from ambient_jax.data.source import Source, Transform

CACHE_VARIABLE = "AMBIENT_JAX_CACHE"

_EXAMPLES = 20  # kept for each kind of problem


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of a field's rows: their count, and arrays [d] of float64 by dimension."""

    count: int
    mean: np.ndarray
    m2: np.ndarray  # sum of squared deviations from the mean
    min: np.ndarray
    max: np.ndarray
    # Share of the magnitude that the numbers are rounded to, with a margin: a smaller range is no
    # data. float32 keeps some 7 digits, float64 some 16.
    rounding: np.ndarray | float = 1e-6
    tails: tails.Tails | None = None

    @classmethod
    def of(cls, values: np.ndarray, episode: int = 0) -> Moments:
        """The moments of an episode's values [N, d], N >= 1."""
        values = np.asarray(values, np.float64)
        mean = values.mean(axis=0)
        m2 = ((values - mean) ** 2).sum(axis=0)
        with np.errstate(over="ignore"):
            rounded = (values == values.astype(np.float32)).all(axis=0)
        return cls(
            *(len(values), mean, m2, values.min(axis=0), values.max(axis=0)),
            *(np.where(rounded, 1e-6, 1e-13), tails.Tails.of(values, episode)),
        )

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.m2 / self.count)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of rows (Chan et al. 1979): no cancellation, any order."""
        count = self.count + other.count
        delta = other.mean - self.mean
        both = self.tails.merge(other.tails) if self.tails and other.tails else None
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
            np.minimum(self.min, other.min),
            np.maximum(self.max, other.max),
            np.minimum(self.rounding, other.rounding),
            both,
        )

    def to_dict(self) -> dict[str, Any]:
        arrays = {n: getattr(self, n).tolist() for n in _ARRAYS}
        return {"count": self.count, **arrays, "tails": self.tails and self.tails.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Moments:
        arrays = {n: np.asarray(fields[n], np.float64) for n in _ARRAYS}
        if len({a.shape for a in arrays.values()}) != 1:
            raise ValueError("arrays of differing shapes")
        stored = fields["tails"] and tails.Tails.from_dict(fields["tails"])
        return cls(int(fields["count"]), **arrays, tails=stored)


_ARRAYS = ("mean", "m2", "min", "max", "rounding")


@dataclasses.dataclass(frozen=True)
class SourceStatistics:
    """Moments of each field ("action", "observation/<name>"), and the lengths of the episodes.

    Attributes:
      fields: over all steps of the source.
      lengths: steps of each episode, [num_episodes] int64, in the order of the dataset; 0 for one
        that was left out.
      step_bytes: mean size of a step as it waits to be drawn, encoded images included.
      problems: by kind, ``{"episodes": how many, "skipped": how many of them were left out,
        "examples": the first [id, text]}``.
    """

    fields: dict[str, Moments]
    lengths: np.ndarray
    step_bytes: float = 0.0
    problems: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        return int(self.lengths.sum())


def compute(source: Source, *, cache: str | os.PathLike[str] | None = None) -> SourceStatistics:
    """Statistics of one source: from the cache, or in one pass over its episodes.

    The cache's key is made of the source's fingerprint, the fields read and the source code that
    shapes them (this package's and the transform's module): a changed transform is noticed.

    Args:
      source: see ``source.Source``.
      cache: directory; default ``$AMBIENT_JAX_CACHE`` or ``~/.cache/ambient_jax``.

    Raises:
      ValueError: data that are not finite (named by episode and step), or no steps at all.
    """
    code = code_hash(source.transform)
    key = {
        "fingerprint": source.fingerprint,
        "observation": list(source.observation),
        "action": source.action,
        "code": code,
        "settings": source.settings,
    }
    directory = pathlib.Path(
        expanded(cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/ambient_jax")
    )
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = directory / f"{source.name}-{digest}.json"
    if code and path.exists():
        try:
            return _read(path, key, len(source))
        except (ValueError, KeyError, TypeError, OSError) as error:
            logging.warning("%s cannot be used (%s): computed anew", path, error)
    measured = _one_pass(source)
    if code:
        _write(path, key, measured)
    return measured


def _one_pass(source):
    lengths, fields, problems, size = [], {}, {}, 0
    ends = last_step.Ends(source)
    files = range(len(source.shard_lengths))
    for index, episode, wrong in (each for file in files for each in source.examine(file)):
        _count(problems, index, wrong, episode is None)
        lengths.append(0)
        if episode is None:
            continue
        arrays = source.read(index, episode)
        lengths[-1] = len(arrays[chunk.ACTION])
        _count(problems, index, ends.add(arrays[chunk.ACTION]), not lengths[-1])
        if not lengths[-1]:
            continue
        # Fields wait to be drawn as float32, whatever they are stored in.
        size += sum(4 * a.size for a in arrays.values()) + source.extra_bytes(episode)
        for name, values in arrays.items():
            known = fields.get(name)
            if known is not None and known.mean.shape != values.shape[1:]:
                raise ValueError(
                    f"source {source.name!r}, episode {index}: {name} has {values.shape[1]} "
                    f"numbers a step, the episodes before it {known.mean.size}"
                )
            moments = Moments.of(values, index)
            fields[name] = moments if known is None else known.merge(moments)
        logging.log_every_n_seconds(
            logging.INFO,
            "statistics of %s: %d of %d episodes",
            10,
            *(source.name, len(lengths), len(source)),
        )
    if not fields:
        left_out = f", after {sum(p['skipped'] for p in problems.values())} left out"
        why = next((p["examples"][0][1] for p in problems.values() if p["skipped"]), "")
        raise ValueError(
            f"source {source.name!r} ({source.directory}) has no step in its episodes"
            f"{f'{left_out} ({why})' if problems else ''}"
        )
    if doubt := ends.doubt(fields[chunk.ACTION]):
        row = problems.setdefault("last_step", {"episodes": 0, "skipped": 0, "examples": []})
        row["episodes"] = max(row["episodes"], ends.count)
        row["examples"].insert(0, [None, doubt])
    lengths = np.asarray(lengths, np.int64)
    return SourceStatistics(fields, lengths, size / int(lengths.sum()), problems)


def _count(problems, index, wrong, skipped):
    for kind in dict.fromkeys(kind for kind, _ in wrong):
        row = problems.setdefault(kind, {"episodes": 0, "skipped": 0, "examples": []})
        row["episodes"] += 1
        row["skipped"] += skipped
    for kind, text in wrong:
        if len(problems[kind]["examples"]) < _EXAMPLES:
            problems[kind]["examples"].append([index, text])


_MODULES = (chunk, last_step, rlds_source, source_lib, tails, sys.modules[__name__])


def code_hash(transform: Transform | None = None) -> str:
    """Hash of the source code that shapes the data, blind to comments and layout.

    Whole modules count, so that a changed helper is noticed. Empty, which means "do not cache", if
    the transform has no source (typed into an interpreter).
    """
    parts = [_module_code(m) for m in _MODULES]
    while isinstance(transform, functools.partial):
        given = [*transform.args, *(v for _, v in sorted(transform.keywords.items()))]
        parts += [*map(_exact, given), repr(sorted(transform.keywords))]
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
    """A text of a value that a transform holds; NumPy's repr cuts large arrays."""
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
    stored = {
        "key": key,
        "lengths": measured.lengths.tolist(),
        "step_bytes": measured.step_bytes,
        "problems": measured.problems,
        "fields": {name: moments.to_dict() for name, moments in measured.fields.items()},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(stored))
    except OSError as error:
        logging.warning(
            "statistics cannot be kept (%s): set %s to a writable directory", error, CACHE_VARIABLE
        )
