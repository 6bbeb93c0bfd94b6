"""Rolls out the table's trained policies, from the same starts in the target's physics."""

from __future__ import annotations

import pathlib

import ml_collections

from experiments.planar_pushing import policies, task
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import judge, saved
from experiments.table.entries import Program, Table


def evaluate(program: Program, base: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Leaves ``rollouts.npz`` of each policy."""
    judge.evaluate(program, base, workdir, task, task.starts(base.task))


def load(path: pathlib.Path) -> Rollouts:
    """Rollouts as saved."""
    return Rollouts(**saved.load(path))


TABLE = Table(policies.entries, judge.files, evaluate)
