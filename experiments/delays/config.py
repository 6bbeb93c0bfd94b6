"""Variants of the study of delays.

    python -m experiments.delays --config=experiments/delays/config.py:pushing --checkpoint=A,B,C

pushing  receding horizon, ensembling and real-time chunking against the delay, planar pushing
maze     the same in the maze
methods  ways to sample real-time chunks at one delay, planar pushing
trained  the same as pushing, for checkpoints trained with config.model.prefix (known first actions)
debug    the code of them all on a few short episodes of the maze
"""

import ml_collections

from ambient_jax.cli import config_file

# What ``chunks.STRATEGIES`` are given, and "inpainting", fields of ``inpainting.Inpainting``.
# "execute" in place of the study's, or the delay if that is longer: the ensemble begins a chunk as
# soon as the last has arrived.
STRATEGIES = {
    "receding": {"kind": "receding"},
    "unaligned": {"kind": "receding", "aligned": False},
    "ensemble": {"kind": "ensemble", "rate": 0.01, "execute": 2},
    "real_time": {"kind": "real_time"},
    "open_loop": {"kind": "receding", "execute": 16},  # without delay only
}
_REPLACEMENT = {"method": "replacement"}
# For policies that saw known first actions in training.
TRAINED = {
    "receding": {"kind": "receding"},
    "unaligned": {"kind": "receding", "aligned": False},
    "real_time": {"kind": "real_time", "inpainting": {"method": "trained"}},
    "guidance": {"kind": "real_time"},
    "open_loop": {"kind": "receding", "execute": 16},  # without delay only
}
# At one delay: ways to sample real-time chunks, and beginning them as soon as the last has arrived.
METHODS = {
    "receding": {"kind": "receding"},
    "guidance": {"kind": "real_time"},
    "guidance_hard": {"kind": "real_time", "soft": False},
    "replacement": {"kind": "real_time", "inpainting": _REPLACEMENT},
    "replacement_hard": {"kind": "real_time", "soft": False, "inpainting": _REPLACEMENT},
    "projection": {"kind": "real_time", "inpainting": {"method": "projection"}},
    "receding_soon": {"kind": "receding", "execute": 2},
    "guidance_soon": {"kind": "real_time", "execute": 2},
}


def get_config(variant: str = "pushing") -> ml_collections.ConfigDict:
    """Returns the config of a variant; raises ValueError for an unknown one."""
    name, _ = config_file.choose(variant, VARIANTS)
    config = ml_collections.ConfigDict(
        {
            "name": name,
            "world": "pushing",  # or maze
            "episodes": 100,  # of each checkpoint, strategy and delay, from the same starts
            "eval_seed": 1,  # of the starts
            "seed": 0,  # of the chunks
            "solver": {"solver": "ddim", "steps": 16},  # in place of the checkpoint's
            "execute": 8,  # steps from one chunk's beginning to the next one's
            "delays": (0, 2, 4, 8),  # steps until a chunk arrives
            "strategies": {"methods": METHODS, "trained": TRAINED}.get(name, STRATEGIES),
            "report_only": False,  # only the report, of the rollouts that are there
        }
    )
    config.update(VARIANTS[name])
    return config


VARIANTS: dict[str, dict] = {
    "pushing": {},
    "maze": {"world": "maze", "episodes": 200},
    "methods": {"delays": (4,)},
    "trained": {},
    "debug": {"world": "maze", "episodes": 3, "delays": (0, 4), "solver": {"steps": 2}},
}
