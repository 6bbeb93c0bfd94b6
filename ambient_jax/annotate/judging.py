"""Judges every chunk of large data by shard, with the classifier of an annotation.

The annotation may have seen a part of the data only, such as ``split="train[:2%]"``. Where it saw
an episode, the classifier that was not trained on it judges; else the one that its id draws.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import pickle
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from ambient_jax.annotate import annotation, classifier, evidence
from ambient_jax.annotate.annotation import Annotations
from ambient_jax.data import bounds, chunk, device, statistics
from ambient_jax.data.files import first_line, read_arrays
from ambient_jax.data.mixture import Mixture
from ambient_jax.data.paths import CACHE_VARIABLE, cache_folder, expanded, replacing
from ambient_jax.data.prepare import shards
from ambient_jax.data.prepare.engine import Task
from ambient_jax.data.prepare.shards import Pieces
from ambient_jax.transforms.normalizer import Normalizer

FILE = "classifier.pickle"  # in an annotation's workdir
_DONE = ".npz"
_BATCH = 2048  # most chunks that are judged at once
OPEN_X_EPISODES = 2_400_000


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """What an annotation leaves for other data.

    Attributes:
      evidence: its classifier, levels and options, without data and curves.
      maps: the maps to unit size that its classifier saw.
      names: its sources; pairs are numbered by them.
      folds: {source: (ids [E], folds [E])} of the episodes that it saw.
      sigma_max: by source.
    """

    evidence: evidence.Evidence
    maps: Normalizer
    names: tuple[str, ...]
    folds: Mapping[str, tuple[np.ndarray, np.ndarray]]
    sigma_max: Mapping[str, float]

    @classmethod
    def of(cls, annotations: Annotations) -> Judge:
        """Returns the judge of an annotation; raises ValueError with ``head_start``, whose curves
        are centred on all of its clean chunks."""
        found = annotations.evidence
        if found.options.head_start and not found.options.observed:
            raise ValueError("head_start is set, expected an annotation without it")
        folds = {}
        for name in found.mixture.names:
            rows = found.steps(name)
            ids, first = np.unique(found.data.episode[rows], return_index=True)
            folds[name] = ids, found.fitted.fold[rows][first]
        plain = lambda x: np.asarray(x) if isinstance(x, jax.Array) else x  # noqa: E731
        fitted = jax.tree.map(plain, found.fitted)._replace(fold=np.zeros(0, np.int32))
        empty: dict[str, Any] = dict(mixture=None, data=None, judged={}, curves={}, fitted=fitted)
        lighter = dataclasses.replace(found, **empty)
        maps, names = found.mixture.normalizer, found.mixture.names
        return cls(lighter, maps, names, folds, annotations.sigma_max)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the judge as a pickle, which only this package's code can read."""
        with replacing(path) as file:
            pickle.dump(self, file)

    def fold_of(self, name: str, episode: np.ndarray) -> np.ndarray:
        """Returns the fold [N] whose classifier judges steps of the episodes [N]."""
        ids, folds = self.folds[name]
        at = np.minimum(np.searchsorted(ids, episode), len(ids) - 1)
        drawn = (episode % self.evidence.fitted.options.folds).astype(np.int32)
        return np.where(ids[at] == episode, folds[at], drawn).astype(np.int32)


def read(path: str | os.PathLike[str]) -> Judge:
    """Reads a judge. The file must be your own: reading a pickle runs what is in it."""
    try:
        judge = pickle.loads(pathlib.Path(expanded(path)).read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} does not exist, expected the classifier of an annotation: run python -m "
            "ambient_jax.annotate with this workdir"
        ) from error
    except Exception as error:  # a damaged pickle raises what it likes
        raise ValueError(f"{path} cannot be read ({error}): annotate again") from error
    if not isinstance(judge, Judge):
        raise ValueError(f"{path} has a {type(judge).__name__}, expected a classifier")
    return judge


@dataclasses.dataclass(frozen=True)
class Job:
    """What other processes need: a pickled data section, the cache, the judge, the results."""

    section: bytes
    cache: str
    judge: str
    workdir: str


@functools.cache
def opened(job: Job) -> tuple[Judge, Mixture]:
    """Returns the judge, and the mixture with its maps."""
    os.environ[CACHE_VARIABLE] = job.cache
    judge = read(job.judge)
    data = pickle.loads(job.section)
    mixture = evidence.open_standing_still(data, judge.evidence.options.observed)
    return judge, mixture.with_normalizer(judge.maps)


@functools.cache
def pieces(job: Job, name: str) -> Pieces:
    """Returns the parts of a corrupt source."""
    judge, mixture = opened(job)
    source = mixture.datasets[name]
    digest = hashlib.sha256(pathlib.Path(job.judge).read_bytes())
    digest.update(json.dumps([source.directory, statistics.settings(source)]).encode())
    folder = pathlib.Path(job.workdir) / "parts" / f"{name}-{digest.hexdigest()[:16]}"
    return Pieces.of(source, folder, _DONE)


def judge_part(job: Job, task: Task) -> None:
    """Judges all chunks of a part, unless that is done."""
    name, index = task
    own = pieces(job, name)

    def write(path):
        judge, mixture = opened(job)
        data, first = steps(mixture, name, own.files[index])
        count = int(data.size[0])
        told, at = judge.evidence, np.arange(count)
        fitted = told.fitted._replace(fold=judge.fold_of(name, data.episode))
        pair = fitted.pairs.of_source[judge.names.index(name)]
        # Not filled up to a large batch: a file may be one episode, whose chunks are of one fold.
        size = min(_BATCH, _power(np.bincount(fitted.fold[:count]).max(initial=1)))
        options: Any = dict(draws=told.options.draws, pair=int(pair), first=first, batch_size=size)
        clean = classifier.probabilities(fitted, data, at, told.levels, **options)
        step = at - data.start[:count]
        with replacing(path) as file:
            np.savez(file, clean=clean, episode=data.episode[:count], step=step)

    own.make(index, write)


def _power(count: int) -> int:
    """Returns the smallest power of two that is at least ``count``."""
    return 1 << max(0, int(count) - 1).bit_length()


def steps(mixture: Mixture, name: str, files: range) -> tuple[device.DeviceData, int]:
    """Returns the steps of some files of a source, filled up to a power of two so that programs are
    compiled for few sizes, and the number of the first one among all steps of the mixture."""
    k, source = mixture.names.index(name), mixture.datasets[name]
    lengths = mixture.statistics[name].lengths
    begin = sum(source.shard_lengths[: files.start])
    count = sum(source.shard_lengths[file] for file in files)
    first = int(mixture.chunks[:k].sum()) + int(lengths[:begin].sum())
    total = int(lengths[begin : begin + count].sum())
    size = _power(total)
    start, end, episode = (np.zeros(size, np.int32) for _ in range(3))
    fields: dict[str, np.ndarray] = {}
    position = 0
    for index, raw in device.episodes(source, lengths, files):
        arrays = mixture.read(k, index, raw)
        stop = position + len(arrays[chunk.ACTION])
        for field, values in arrays.items():
            filled = np.zeros((size, values.shape[1]), np.float32)
            fields.setdefault(field, filled)[position:stop] = values
        start[position:stop], end[position:stop], episode[position:stop] = position, stop, index
        position = stop
    one = np.array([0], np.int32), np.array([total], np.int32)
    return device.DeviceData(fields, start, end, episode, *one, mixture.sources), first


@dataclasses.dataclass(frozen=True)
class Judged:
    """Bounds files by granularity, failures (what, reason), chunks judged now, and seconds."""

    bounds: Mapping[str, pathlib.Path]
    failures: Sequence[tuple[str, str]]
    chunks: int
    seconds: float
    episodes: int


def judge_all(
    data: ml_collections.ConfigDict,
    annotated: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    processes: int = 0,
    options: Sequence[str] = (),
) -> Judged:
    """Judges all chunks of the corrupt sources of a data section, and writes their bounds.

    The same call goes on where an earlier one ended. A shard that cannot be read is a failure, and
    there are no bounds until it can; the others are kept.

    Args:
      data: the data section, whose sources have the names of the annotation's.
      annotated: workdir of the annotation.
      workdir: gets ``bounds/<granularity>.parquet`` and ``parts/``.
      processes, options: see ``prepare.engine.run``.

    Raises:
      ValueError: a source is none of the annotation's, or the data cannot be opened.
    """
    judge, workdir = os.path.join(expanded(annotated), FILE), expanded(workdir)
    job = Job(pickle.dumps(data), os.fspath(cache_folder()), judge, workdir)
    for cached in (opened, pieces):  # of an earlier call, whose files may have changed
        cached.cache_clear()
    judged_by, mixture = opened(job)
    clean = np.asarray(mixture.sources.clean)
    names = [n for n, c in zip(mixture.names, clean, strict=True) if not c]
    if unknown := set(names) - set(judged_by.sigma_max):
        raise ValueError(
            f"source {', '.join(sorted(unknown))} is no corrupt source of the annotation, which "
            f"has {', '.join(judged_by.sigma_max)}"
        )
    own = {name: pieces(job, name) for name in names}
    before = {name: set(p.missing()) for name, p in own.items()}
    begin = time.perf_counter()
    lacking, _ = shards.complete(functools.partial(judge_part, job), own, processes, options)
    seconds = time.perf_counter() - begin
    failures = [failure for each in lacking.values() for failure in each]
    chunks = episodes = 0
    for name, p in own.items():
        for index in before[name] - set(p.missing()):
            start = sum(p.source.shard_lengths[: p.files[index].start])
            stop = sum(p.source.shard_lengths[: p.files[index].stop])
            chunks += int(mixture.statistics[name].lengths[start:stop].sum())
            episodes += stop - start
    paths = {} if failures else _bounds(judged_by, mixture, own, workdir)
    return Judged(paths, failures, chunks, seconds, episodes)


def _columns(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a part; deletes one that is damaged, and raises ValueError."""
    try:
        found = read_arrays(path)
        return {name: found[name] for name in ("clean", "episode", "step")}
    except (ValueError, KeyError) as error:
        path.unlink(missing_ok=True)
        raise ValueError(
            f"{path} was damaged ({first_line(error)}) and is deleted: the same command "
            "makes it anew"
        ) from error


def _bounds(judge, mixture, own, workdir):
    tables: dict[str, list[bounds.BoundsTable]] = {}
    for name, p in own.items():
        columns = [_columns(path) for path in p.paths]
        clean, episode, step = (
            np.concatenate([c[n] for c in columns]) for n in ("clean", "episode", "step")
        )
        at = np.arange(len(step))
        only = np.where([n == name for n in mixture.names], len(step), 0)
        data = device.DeviceData(
            {}, at - step, at, episode, np.zeros_like(only), only, mixture.sources
        )
        found: dict[str, Any] = dict(mixture=mixture, data=data)
        found |= dict(judged={name: at}, curves={name: clean})
        told = dataclasses.replace(judge.evidence, **found)
        for granularity in told.options.granularity:
            table = annotation.decide(told, name, granularity, judge.sigma_max[name])[1]
            tables.setdefault(granularity, []).append(table)
    folder = pathlib.Path(workdir) / "bounds"
    return {
        g: bounds.write(folder / f"{g.replace(':', '_')}.parquet", bounds.concatenate(parts))
        for g, parts in tables.items()
    }
