"""Rows of a table: the current rollouts of each policy, summarised over its seeds."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import logging

from experiments.table import entries, saved
from experiments.table.entries import Table


@dataclasses.dataclass(frozen=True)
class Row:
    """A policy of the table: over all its seeds, and seed by seed, as ``metrics`` summarise it."""

    label: str
    summary: Any
    seeds: dict[int, Any]


def collect(
    table: Table,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    load: Callable[[pathlib.Path], Any],
) -> dict[str, dict[int, Any]]:
    """The current rollouts of the policies, in the order of the table: {policy: {seed: of}}.

    Args:
      table: of policies with one file of rollouts each.
      config, workdir: of the table.
      load: reads a file.

    Raises:
      ValueError: there are none.
    """
    found: dict[str, dict[int, Any]] = {}
    for name, seed, path, _ in current(table, config, workdir):
        found.setdefault(name, {})[seed] = load(path)
    return found


def current(
    table: Table, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> list[tuple[str, int, pathlib.Path, dict[str, Any]]]:
    """(policy, seed, file, what it hangs on) of the rollouts that there are of this config.

    Those that lie there and are not current are left out, with a warning.

    Raises:
      ValueError: there are none.
    """
    found, outdated = [], []
    for name, entry in table.entries(config.task).items():
        for seed in config.task.seeds:
            key, made = entries.key(name, seed), entries.config_of(config, name, entry, seed)
            for path, about in table.files(key, made, config, workdir).items():
                if not path.exists():
                    continue
                if reason := saved.outdated(path, about):
                    outdated.append(reason)
                else:
                    found.append((name, seed, path, about))
    again = "the same command without --config.task.report_only makes them"
    if outdated:
        counted = collections.Counter(outdated).most_common()
        told = ", ".join(f"{count} {reason}" for reason, count in counted)
        logging.warning("left out %d rollouts (%s): %s anew", len(outdated), told, again)
    if not found:
        raise ValueError(f"{workdir} has no rollouts of this config, expected some: {again}")
    return found
