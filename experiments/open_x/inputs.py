"""The task of the inputs variant: are the image and the instruction really used?"""

from __future__ import annotations

import pathlib

import jax
import ml_collections

from experiments.open_x import scene


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the two data sets that are not there yet."""
    if jax.process_index():
        return
    root, task = pathlib.Path(config.data.root), config.task
    wanted = {
        "steady": ({"train": task.clean, "val": task.val}, 0.0),
        "shaky": ({"train": task.corrupt}, task.jitter),
    }
    for number, (name, (counts, jitter)) in enumerate(wanted.items()):
        folder = root / config.data.sources[name].path
        if not folder.exists():
            seed = 2 * task.data_seed + number
            scene.write_dataset(root, folder.parent.name, counts, jitter=jitter, seed=seed)


def evaluate(config, workdir):
    pass
