"""How far policies have gone over to the source: their loss on held-out target demonstrations.

Success of 200 episodes has an interval of some six points either way. The denoising loss on chunks
that no policy has seen is known far better, and it tells at which noise levels a policy is no
longer one of the target: at levels where it learns from the source alone its loss is that of a
policy of the source alone.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Mapping

import ml_collections
import numpy as np

from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import policies
from experiments.table import rollouts
from experiments.table.experiment import Table

SAMPLES = 2048  # chunks
_DATASET = "push_target_held_out"
_HIGHEST = 0.95  # level beyond which a chunk is noise, and its loss that of a mean


def losses(table: Table, names: list[str]) -> dict[str, np.ndarray]:
    """Loss of x0_hat [S, L] of the seeds there are of each policy, at ``evaluation.LEVELS``.

    Mean squared error per number in normalised units, on ``SAMPLES`` chunks of the held-out target
    demonstrations with the same noise for all. {} where no demonstration was held out.
    """
    config = table.config
    if not config.task.held_out or not names:
        return {}
    dataset = rlds.open_dataset(pathlib.Path(expanded(config.data.root)) / _DATASET)

    @functools.cache
    def chunks(like):
        source = RldsSource(dataset, observation=tuple(like.dims))
        return evaluation.recorded(source, like, padding=config.data.padding, samples=SAMPLES)[:3]

    def measure(policy, like):
        return {"loss": evaluation.denoising_loss(like, *chunks(like), params=policy.params)}

    about = {"data": dataset.fingerprint, "samples": SAMPLES}
    made = rollouts.kept_measures(table, names, config.task.seeds, about, measure)
    return {name: np.stack([one["loss"] for one in each]) for name, each in made.items()}


def ratio(policy: np.ndarray, reference: np.ndarray, above: float) -> float:
    """A policy's losses [S, L] over another's [R, L]: geometric mean over the levels from ``above``
    to 0.95 of the ratio of their means over seeds."""
    levels = np.array(evaluation.LEVELS)
    some = (levels > above) & (levels < _HIGHEST)
    return float(np.exp(np.mean(np.log(policy.mean(0) / reference.mean(0))[some])))


def of_methods(
    task: ml_collections.ConfigDict, losses: Mapping[str, np.ndarray]
) -> dict[int, dict[str, dict[int, float]]]:
    """{target demonstrations: {method: {source demonstrations: ratio}}} of what there is.

    The ratio is that of a policy to the one of the same source data alone, above ``task.best``: 1
    where nothing is left of the target.
    """
    ratios: dict[int, dict[str, dict[int, float]]] = {}
    for target, method, source in itertools.product(task.targets, task.methods, task.sources):
        name, alone = policies.scaling(method, source, target), policies.source_only(source)
        if {name, alone} <= losses.keys():
            by_source = ratios.setdefault(target, {}).setdefault(method, {})
            by_source[source] = ratio(losses[name], losses[alone], task.best)
    return ratios
