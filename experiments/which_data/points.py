"""The points of the study: a task of the tables, with some clean data and a size of the shift."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from ambient_jax import _checks
from experiments.bin_sorting import table as bins
from experiments.maze import table as maze
from experiments.planar_pushing import table as push
from experiments.table.experiment import Experiment


class Task(NamedTuple):
    """A task of the tables.

    Attributes:
      experiment: its table.
      clean, corrupt: names of its sources.
      count: the field of ``config.task`` that is the number of clean demonstrations on disk.
      episodes: the field that is the number of rollouts.
      place: ``place(config, shift)`` sets the shift.
      success: ``success(rollouts)``: what counts as success, [N] in [0, 1] for each episode.
    """

    experiment: Experiment
    clean: str
    corrupt: str
    count: str
    episodes: str
    place: Callable[[ml_collections.ConfigDict, str], None]
    success: Callable[[Any], Any]


class Point(NamedTuple):
    """A task with a number of clean demonstrations and a shift."""

    task: str
    clean: int
    shift: str

    @classmethod
    def parse(cls, text: str) -> Point:
        """Reads "<task>,<clean demonstrations>,<shift>"; ValueError for anything else."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 3 or not parts[1].isdigit() or int(parts[1]) < 2:
            raise ValueError(
                f"config.task.points has {text!r}, expected <task>,<clean demonstrations>,<shift> "
                "such as 'push,50,1'"
            )
        _checks.one_of("config.task.points", parts[0], TASKS)
        return cls(parts[0], int(parts[1]), parts[2])

    @property
    def name(self) -> str:
        """Returns the name of its folder."""
        return f"{self.task}_{self.clean}_{self.shift}"


def _gap(config, shift):
    config.task.gap = float(shift)
    config.data.root += f"_{shift}"


def _planner(config, shift):
    _checks.one_of("shift of the maze", shift, ("rrt", "shortcut"))
    config.data.sources.rrt.path = f"maze_{shift}"


def _rule(config, shift):
    _checks.one_of("shift of bin sorting", shift, ("arbitrary", "opposite"))
    config.data.sources.arbitrary.path = f"bins_{shift}"
    del config.data.sources["opposite"]


def _right(rollouts):
    from experiments.bin_sorting.scene import LEFT, RED, RIGHT, Scene

    wanted = [LEFT if colour == RED else RIGHT for colour in Scene().colours]
    return (rollouts.placements == wanted).mean(1)


TASKS = {
    "push": Task(
        push.EXPERIMENT, "target", "source", "target", "episodes", _gap, lambda r: r.success
    ),
    "bins": Task(bins.EXPERIMENT, "correct", "arbitrary", "correct", "episodes", _rule, _right),
    "maze": Task(maze.EXPERIMENT, "gcs", "rrt", "clean", "goals", _planner, lambda r: r.success),
}
_ON_DISK = {"push": 150, "bins": 250, "maze": 400}


def config_of(point: Point, study: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of the point's table, for a config of the study."""
    task, ours = TASKS[point.task], study.task
    config = task.experiment.get_config("debug" if ours.debug else "table")
    config.data.root = f"{study.data.root}/{point.task}"
    if not ours.debug:
        config.task[task.count] = max(point.clean, _ON_DISK[point.task])
    task.place(config, point.shift)
    config.data.sources[task.clean].split = f"train[:{point.clean}]"
    config.train.steps = ours.steps or config.train.steps
    config.train.checkpoint_every = min(config.train.checkpoint_every, config.train.steps)
    changes = {name: ours[name] for name in ("together", "workers", "report_only", "eval_seed")}
    changes |= {
        task.episodes: ours.episodes[point.task],
        "seeds": ours.seeds,
        "held_out": 0,
        "one_seed": (),
    }
    config.task.update(changes)
    if "solvers" in config.task:  # the policy's own is enough
        config.task.solvers = ()
    return config


def of_point(point: Point, rows: Callable[..., Any]) -> Experiment:
    """Returns the table's experiment with other policies and no report."""
    return dataclasses.replace(
        TASKS[point.task].experiment, policies=rows, annotate=None, confirm=None
    )
