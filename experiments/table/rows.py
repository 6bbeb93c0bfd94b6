"""Rows of a table: the rollouts that there are of each policy, summarised over its seeds."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from experiments.table import entries


@dataclasses.dataclass(frozen=True)
class Row:
    """A policy of the table: over all its seeds, and seed by seed, as ``metrics`` summarise it."""

    label: str
    summary: Any
    seeds: dict[int, Any]


def collect(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    names: Iterable[str],
    load: Callable[[pathlib.Path], Any],
    file: str = "rollouts.npz",
) -> dict[str, dict[int, Any]]:
    """Every rollout there is of the policies, in the order of their names: {policy: {seed: of}}.

    Args:
      config: of the table, with ``task.seeds``.
      workdir: of the table.
      names: of the policies.
      load: reads a file of rollouts.
      file: its name in a policy's folder.
    """
    found: dict[str, dict[int, Any]] = {}
    for name in names:
        for seed in config.task.seeds:
            path = workdir / entries.key(name, seed) / file
            if path.exists():
                found.setdefault(name, {})[seed] = load(path)
    return found
