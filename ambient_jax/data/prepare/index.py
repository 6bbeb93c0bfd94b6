"""Prepares a data section: statistics, fingerprints, problems and an index in the cache."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax.data import mixture, parts, section, statistics
from ambient_jax.data.files import first_line
from ambient_jax.data.paths import cache_folder, write_text
from ambient_jax.data.prepare import shards
from ambient_jax.data.prepare import work as work_lib
from ambient_jax.data.prepare.shards import Pieces
from ambient_jax.data.prepare.work import Work

INDEX = "index.json"


@dataclasses.dataclass(frozen=True)
class Report:
    """What a preparation left.

    Attributes:
      sources: by name, the entries of the index.
      failures: (what, reason) of sources and shards that could not be measured.
      measured: number of parts that this run measured.
    """

    sources: Mapping[str, Mapping[str, Any]]
    failures: Sequence[tuple[str, str]]
    measured: int


def prepare(
    data: ml_collections.ConfigDict,
    *,
    cache: str = "",
    processes: int = 1,
    options: Sequence[str] = (),
) -> Report:
    """Measures all sources of a data section, but for what the cache has.

    Afterwards ``statistics.compute`` finds the statistics, and sources their fingerprints, in the
    cache. A shard that cannot be read is a failure; the others are kept for the next run.

    Args:
      data: the data section of a config.
      cache: see ``statistics.compute``.
      processes, options: see ``engine.run``.

    Raises:
      ValueError: the section is impossible.
      ImportError: Beam is not installed.
    """
    mixture.check(data)
    work = Work.of(data, cache or None)
    work.begin()
    work_lib.pieces.cache_clear()  # of an earlier call, whose files may have changed
    opened: dict[str, Pieces] = {}
    entries: dict[str, dict[str, Any]] = {}
    failures: list[tuple[str, str]] = []
    for name in section.sources(data):
        try:
            pieces = work_lib.pieces(work, name)
            source = pieces.source
            if work_lib.are_known(source):
                place = statistics.cached(source)
                if (found := place.read(len(source))) is not None:
                    entries[name] = _entry(source, found, place)
                    continue
            opened[name] = pieces
        except (ValueError, OSError, ImportError) as error:
            failures.append((f"source {name!r}", first_line(error)))
    measure = functools.partial(work_lib.measure, work)
    lacking, measured = shards.complete(measure, opened, processes, options)
    for name in opened:
        failures += lacking[name]
        if not lacking[name]:
            try:
                entries[name] = _join(opened[name])
            except (ValueError, OSError) as error:
                failures.append((f"source {name!r}", first_line(error)))
    _write_index(entries)
    return Report(entries, failures, measured)


def _join(opened: Pieces) -> dict[str, Any]:
    """Sums the parts of a source and leaves its statistics; deletes the parts."""
    source, found = opened.source, []

    def each():
        for path in opened.paths:
            part, its_marks = work_lib.read(path)
            found.extend(its_marks)
            yield part

    measured = parts.join(source, each())
    work_lib.keep_marks(source, found)
    place = statistics.cached(source)
    place.write(measured)
    if isinstance(opened.folder, pathlib.Path):
        shutil.rmtree(opened.folder, ignore_errors=True)
    else:
        opened.folder.rmtree()
    return _entry(source, measured, place)


def _entry(source, measured, place) -> dict[str, Any]:
    return {
        "directory": source.directory,
        "fingerprint": source.fingerprint,
        "statistics": place.path.name,
        "episodes": len(source),
        "skipped": int(np.sum(measured.lengths == 0)),
        "steps": measured.num_steps,
        "shards": len(source.shard_lengths),
        "problems": mixture.problems_of(source, measured),
    }


def _write_index(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds entries to those of the index, whose sources may be of other configs."""
    path = cache_folder() / INDEX
    old: dict[str, Any] = {}
    if path.exists():
        try:
            old = dict(json.loads(path.read_text())["sources"])
        except (ValueError, KeyError, TypeError) as error:
            logging.warning("%s is damaged (%s): written anew", path, first_line(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"sources": {**old, **entries}}, indent=1) + "\n")
