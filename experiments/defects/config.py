"""Variants of the experiment with defects.

    python -m experiments.defects --config=experiments/defects/config.py:table

table   20 clean plans, and 30 of each kind; one training seed
debug   the same code on a few plans and steps
"""

import dataclasses

import ml_collections

from ambient_jax.annotate import candidates
from ambient_jax.cli import config_file
from ambient_jax.train import config as train_config
from experiments.defects.kinds import KINDS
from experiments.maze import config as maze
from experiments.table import config as table_config


def get_config(variant: str = "table") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    name, _ = config_file.choose(variant, VARIANTS)
    config = maze.get_config(name)  # network, schedule and training of the maze's table
    config.name, config.data.root = name, "runs/data/defects"
    config.data.sources = ml_collections.ConfigDict()
    config.data.sources.clean = train_config.source("maze_gcs", "clean", last_step="keep")
    for kind in KINDS:
        section = train_config.source(f"defects_{kind}", "corrupt", last_step="keep")
        config.data.sources[kind] = section
    config.train.steps, config.train.checkpoint_every = 1500, 500
    config.policy.solver, config.policy.steps = "ddim", 20
    options = candidates.Options(steps=700, batch_size=64, levels=13)
    config.task = ml_collections.ConfigDict(
        {
            "name": "defects",
            "plans": 400,  # of the convex planner, of which these are
            "clean": 20,  # clean plans
            "each": 30,  # plans of each kind of defect
            "strengths": {},  # fields of kinds.Strengths to change
            "data_seed": 0,
            "seeds": (0,),
            # Candidates of each kind: share of the clean plans, and levels of sigma_min.
            "share": 0.5,
            "sigma_min": (0.2,),
            "candidates": dataclasses.asdict(options),
            "rule": {"least": 0.05, "keep": 0.95, "wrong": 0.2, "broken": 0.3},
            "groups": ("main", "alone"),
            "one_seed": (),
            # Kinds whose plans are also trained alone with the clean ones, at all noise levels and
            # as advised, to judge the advice about them.
            "alone": (),
            "goals": 500,
            "eval_seed": 1,
            "solvers": (),
            **table_config.PROCESSES,
        }
    )
    config.task.together, config.task.workers = 8, 1
    VARIANTS[name](config)
    config.data.sources.clean.split = f"train[:{config.task.clean}]"
    return config


def _debug(config):
    config.data.root = "runs/data/defects_debug"
    config.train.steps, config.train.checkpoint_every = 40, 20
    config.policy.steps = 4
    config.task.update(dict(plans=26, clean=4, each=2, goals=8, alone=("late",)))
    config.task.candidates.update(dict(steps=20, batch_size=16, chunks=40, levels=5))


VARIANTS = {"table": lambda config: None, "debug": _debug}
