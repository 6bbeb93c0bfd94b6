"""Variants of the study of the default rule.

    python -m experiments.which_data --config=experiments/which_data/config.py:grid

grid      numbers of clean demonstrations and sizes of the shift, on all three tasks
chosen    the tables' own sizes, three training seeds
debug     the same code on a few demonstrations and steps

A point is "<task>,<clean demonstrations>,<shift>": a shift of pushing is the level of its gap, of
the maze the planner of the corrupt plans, of bin sorting the rule of the corrupt demonstrations.
"""

import dataclasses

import ml_collections

from ambient_jax.annotate import candidates
from experiments.table import config as table_config

POINTS = (
    *("push,10,1", "push,150,1", "bins,10,arbitrary", "maze,10,rrt", "push,10,0.3"),
    *("bins,250,arbitrary", "maze,400,rrt", "push,50,0.3", "push,150,1.5", "maze,100,shortcut"),
)
BASE = ("push,50,1", "bins,50,arbitrary", "maze,100,rrt")


def get_config(variant: str = "grid") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    return table_config.variant(variant, VARIANTS, _grid)


def _grid(config):
    config.data.root = "runs/data/which_data"
    options = candidates.Options(steps=1500, batch_size=64, chunks=2000)
    config.task = ml_collections.ConfigDict(
        {
            "name": "which_data",
            "points": POINTS,
            # Candidates: shares without bounds (0: by number of samples), and levels of sigma_min
            # at the last share.
            "shares": (0.0, 0.5),
            "sigma_min": (0.05, 0.1, 0.2, 0.4),
            "candidates": dataclasses.asdict(options),
            "rule": {"least": 0.05, "keep": 0.95, "wrong": 0.2, "broken": 0.3},
            # By task, (sigma_min, sigma_max, alpha or 0) of the best of a table's sweep, to train
            # where the table has not measured it from the same starts.
            "best": {},
            "baselines": True,  # train clean only and co-training beside the choice
            "steps": 2500,  # of the judged policies; 0: as in the task's table
            "episodes": {"push": 200, "bins": 200, "maze": 500},  # rollouts of a policy
            "eval_seed": 1,
            "seeds": (0,),
            "debug": False,
            **table_config.PROCESSES,
        }
    )


def _chosen(config):
    config.task.points = BASE
    config.task.update(dict(seeds=(0, 1, 2), baselines=False, steps=0))
    config.task.episodes.update(dict(push=1000, bins=300, maze=1000))
    config.task.best.bins = (1.0, 0.8, 0.0)


def _debug(config):
    config.data.root = "runs/data/which_data_debug"
    config.task.points = ("push,4,1", "maze,6,rrt")
    config.task.update(dict(sigma_min=(0.2,), steps=0, debug=True))
    config.task.episodes.update(dict(push=4, bins=4, maze=4))
    config.task.candidates.update(dict(steps=20, batch_size=16, chunks=50, levels=5))


VARIANTS = {"grid": lambda config: None, "chosen": _chosen, "debug": _debug}
