"""How far policies have gone over to the source: their loss on held-out target demonstrations.

Success of 200 episodes has an interval of some six points either way. The denoising loss on chunks
that no policy has seen is known far better, and it tells at which noise levels a policy is no
longer one of the target: at levels where it learns from the source alone its loss is that of a
policy of the source alone.
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterable, Mapping

import ml_collections
import numpy as np
import tqdm

from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.planar_pushing import policies
from experiments.table import entries, saved

SAMPLES = 2048  # chunks
_DATASET = "push_target_held_out"
_HIGHEST = 0.95  # level beyond which a chunk is noise, and its loss that of a mean


def losses(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Loss of x0_hat [S, L] of the seeds there are of each policy, at ``evaluation.LEVELS``.

    Mean squared error per number in normalised units, on ``SAMPLES`` chunks of the held-out target
    demonstrations with the same noise for all. Each is measured once and kept beside its rollouts;
    {} where no demonstration was held out.
    """
    if not config.task.held_out:
        return {}
    dataset = rlds.open_dataset(pathlib.Path(expanded(config.data.root)) / _DATASET)
    about = {"steps": config.train.steps, "data": dataset.fingerprint, "samples": SAMPLES}
    chunks, found = None, {}
    shared: dict[str, Policy] = {}  # policies that differ in parameters only are compiled once
    for name in tqdm.tqdm(list(names), desc="held out", unit="policy"):
        for seed in config.task.seeds:
            folder = workdir / entries.key(name, seed)
            if saved.step(folder) != config.train.steps:
                continue
            path = folder / "held_out.npz"
            if not saved.is_current(path, about):
                policy = Policy.from_checkpoint(folder)
                if chunks is None:
                    kept = dict(padding=config.data.padding, samples=SAMPLES)
                    chunks = evaluation.recorded(dataset, policy, **kept)
                one = shared.setdefault(policy.normalizer.to_json(), policy)
                loss = evaluation.denoising_loss(one, *chunks[:3], params=policy.params)
                saved.save(path, about, {"loss": loss})
            found.setdefault(name, []).append(saved.load(path)["loss"])
    return {name: np.stack(each) for name, each in found.items()}


def ratio(policy: np.ndarray, of: np.ndarray, above: float) -> float:
    """A policy's losses [S, L] over another's [R, L]: geometric mean over the levels from ``above``
    to 0.95 of the ratio of their means over seeds."""
    levels = np.array(evaluation.LEVELS)
    some = (levels > above) & (levels < _HIGHEST)
    return float(np.exp(np.mean(np.log(policy.mean(0) / of.mean(0))[some])))


def of_methods(
    task: ml_collections.ConfigDict, found: Mapping[str, np.ndarray]
) -> dict[int, dict[str, dict[int, float]]]:
    """{target demonstrations: {method: {source demonstrations: ratio}}} of what there is.

    The ratio is that of a policy to the one of the same source data alone, above ``task.best``: 1
    where nothing is left of the target.
    """
    told: dict[int, dict[str, dict[int, float]]] = {}
    for target, method, source in itertools.product(task.targets, task.methods, task.sources):
        name, alone = policies.scaling(method, source, target), policies.source_only(source)
        if {name, alone} <= found.keys():
            by_source = told.setdefault(target, {}).setdefault(method, {})
            by_source[source] = ratio(found[name], found[alone], task.best)
    return told
