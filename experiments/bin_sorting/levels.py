"""Loss of the trained policies at each noise level, on correct demonstrations that none has seen.

It does not tell sigma_max: the chunks in which a bin is decided are few, and in the mean over all
of them more data outweigh that they are of the wrong rule. ``sigma_max`` measures what does.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import ml_collections

from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded, write_text
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.bin_sorting import policies
from experiments.table import entries


def measure(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, names: Iterable[str]
) -> dict[str, Any]:
    """Loss of x0_hat [L] at ``evaluation.LEVELS`` of those of the names that are main policies.

    Of the first seed. What has been measured lies beside the policy; {} without held-out
    demonstrations.
    """
    data = pathlib.Path(expanded(config.data.root)) / "bins_correct_held_out"
    found: dict[str, Any] = {}
    if not data.exists():
        return found
    known = policies.entries(config.task)
    for name in names:
        folder = workdir / entries.key(name, config.task.seeds[0])
        if known[name].group != "main" or not folder.exists():
            continue
        file = folder / "levels.json"
        if not file.exists():
            policy = Policy.from_checkpoint(folder)
            options = {name: config.data[name] for name in ("action", "padding", "delta")}
            chunks = evaluation.recorded(rlds.open_dataset(data, "train"), policy, **options)
            loss = evaluation.denoising_loss(policy, *chunks[:3]).tolist()
            write_text(file, json.dumps(loss))
        found[name] = json.loads(file.read_text())
    return found
