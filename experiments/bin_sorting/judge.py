"""Rolls out the table's trained policies, in the same scenes."""

from __future__ import annotations

import pathlib

import ml_collections

from experiments.bin_sorting import policies, task
from experiments.bin_sorting.rollout import Rollouts
from experiments.table import judge, saved
from experiments.table.entries import Program, Table


def evaluate(program: Program, base: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Leaves ``rollouts.npz`` of each policy."""
    judge.evaluate(program, base, workdir, task, task.scenes(base.task))


def load(path: pathlib.Path) -> Rollouts:
    """Rollouts as saved."""
    return Rollouts(**saved.load(path))


TABLE = Table(policies.entries, judge.files, evaluate)
