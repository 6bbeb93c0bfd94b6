"""Rows of a table: the current rollouts of each policy, summarised over its seeds."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from absl import logging

from experiments.table import entries, judge, saved
from experiments.table.entries import Entry, Files


@dataclasses.dataclass(frozen=True)
class Row:
    """A policy of the table: over all its seeds, and seed by seed, as ``metrics`` summarise it."""

    label: str
    summary: Any
    seeds: dict[int, Any]


def collect(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    named: Mapping[str, Entry],
    load: Callable[[pathlib.Path], Any],
    file: str = "rollouts.npz",
) -> dict[str, dict[int, Any]]:
    """The current rollouts of the policies, in the order of their names: {policy: {seed: of}}.

    Args:
      config, workdir: of the table.
      named: the entries by name.
      load: reads a file of rollouts.
      file: its name in a policy's folder, see ``judge.files``.
    """
    files = functools.partial(judge.files, file=file)
    found: dict[str, dict[int, Any]] = {}
    for name, seed, path, _ in current(config, workdir, named, files):
        found.setdefault(name, {})[seed] = load(path)
    return found


def current(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    named: Mapping[str, Entry],
    files: Files,
) -> list[tuple[str, int, pathlib.Path, dict[str, Any]]]:
    """(policy, seed, file, what it hangs on) of the rollouts that there are of this config.

    Those that lie there and are not current are left out, with a warning.
    """
    found, outdated = [], []
    for name, entry in named.items():
        for seed in config.task.seeds:
            key, made = entries.key(name, seed), entries.config_of(config, name, entry, seed)
            for path, about in files(key, made, config, workdir).items():
                if not path.exists():
                    continue
                if reason := saved.outdated(path, about):
                    outdated.append(reason)
                else:
                    found.append((name, seed, path, about))
    if outdated:
        logging.warning(
            "left out %d rollouts (%s): the same command without --config.task.report_only makes "
            "them anew",
            *(len(outdated), saved.tally(outdated)),
        )
    return found
