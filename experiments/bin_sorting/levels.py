"""Loss of the trained policies at each noise level, on correct demonstrations that none has seen.

A way to choose sigma_max without rollouts: below the level where the policy of corrupt data alone
ceases to denoise correct demonstrations as well as the policy of correct data alone does, what the
corrupt data show is right, and there is more of it.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.data import rlds
from ambient_jax.policy import evaluation
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
    data = pathlib.Path(config.data.root) / "bins_correct_held_out"
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
            options = dict(action=config.data.action, padding=config.data.padding)
            chunks = evaluation.recorded(rlds.open_dataset(data, "train"), policy, **options)
            loss = evaluation.denoising_loss(policy, *chunks[:3]).tolist()
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(loss))
            os.replace(temporary, file)
        found[name] = json.loads(file.read_text())
    return found


def crossing(losses: Mapping[str, Any], clean: str, corrupt: str) -> float:
    """The noise level up to which the policy ``corrupt`` denoises no worse than ``clean``, by
    linear interpolation of the logarithm of their ratio; 0 or 1 if it never or always does."""
    ratio = np.log(np.asarray(losses[corrupt]) / np.asarray(losses[clean]))
    levels = np.asarray(evaluation.LEVELS)
    worse = np.flatnonzero(ratio > 0)
    if not worse.size:
        return 1.0
    first = worse[0]
    if not first:
        return 0.0
    share = -ratio[first - 1] / (ratio[first] - ratio[first - 1])
    return float(levels[first - 1] + share * (levels[first] - levels[first - 1]))
