"""Rolls out the table's trained policies, from the same starts in the target's physics."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import ml_collections

from experiments.planar_pushing import policies, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import entries as table_entries
from experiments.table import judge, saved
from experiments.table.entries import Program, Table

FRESH = "fresh.npz"


def evaluate(program: Program, base: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Leaves ``rollouts.npz`` of each policy."""
    judge.evaluate(program, base, workdir, task, task.starts(base.task))


def confirm(config: ml_collections.ConfigDict, workdir: pathlib.Path, names: Sequence[str]) -> None:
    """Leaves ``fresh.npz`` of policies of all seeds, from ``task.fresh`` starts of the next
    ``eval_seed``: those that were picked as the best of several are measured where they were not.
    The policies have the same data, so they share what is compiled."""
    base, entries = task.fresh(config), policies.entries(config.task)
    found = [(name, seed) for name in names for seed in config.task.seeds]
    program = {
        table_entries.key(name, seed): table_entries.config_of(config, name, entries[name], seed)
        for name, seed in found
        if (workdir / table_entries.key(name, seed) / "rollouts.npz").exists()
    }
    judge.evaluate(program, base, workdir, task, task.starts(base.task), FRESH)


def load(path: pathlib.Path) -> Rollouts:
    """Rollouts as saved."""
    return Rollouts(**saved.load(path))


TABLE = Table(policies.entries, judge.files, evaluate)
