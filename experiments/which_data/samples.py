"""Scores candidates by chunks that they sample for observations of unseen clean episodes."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
import tqdm

from ambient_jax import mixing
from ambient_jax.annotate import candidates
from ambient_jax.annotate.candidates import Candidate
from ambient_jax.data import mixture as mixtures
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.table import cache

CHUNKS, DRAWS = 300, 4  # of each fold, and samples of each chunk


def scored(
    config: ml_collections.ConfigDict,
    tried: Sequence[Candidate],
    options: candidates.Options,
    folder: pathlib.Path,
) -> dict[Candidate, dict[str, float]] | None:
    """Returns the mean "error" and "energy" of each candidate, see ``distances``; None where
    ``config.task.report_only`` finds no current ones.

    The arguments are those of ``candidates.measure``, which has trained the policies in ``folder``.
    """
    about = {"chunks": CHUNKS, "draws": DRAWS, "candidates": [c.name for c in tried]}
    about |= {"steps": options.steps, "data": config.data.root}
    file = folder / "samples.npz"
    if cache.is_left_out(file, about, config.task.report_only):
        return None
    arrays = cache.kept(file, about, lambda: _measure(config, tried, options, folder))
    values = dict(zip(tried, arrays["scores"].mean(1).tolist(), strict=True))
    return {c: {"error": error, "energy": energy} for c, (error, energy) in values.items()}


def distances(samples: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """Returns the mean error and energy score (Gneiting and Raftery 2007) of samples [S, N, H, D]
    of chunks x0 [N, H, D]: distances are roots of mean squares, normalised; the energy score is the
    mean distance to x0 less half of that between two samples."""

    def size(gap):
        return np.sqrt(np.mean(gap**2, axis=(-2, -1)))

    pairs = [(i, j) for i in range(len(samples)) for j in range(i)]
    error = size(samples - x0).mean()
    spread = np.mean([size(samples[i] - samples[j]).mean() for i, j in pairs])
    return np.array([error, error - spread / 2])


def _measure(config, tried, options, folder):
    whole = mixtures.open_mixture(config.data, mixing.CoTraining())
    cut, folds = candidates.folded(config, whole, options.folds)
    mixture = mixtures.open_mixture(cut.data, mixing.CoTraining())
    found = np.zeros((len(tried), len(folds), 2))
    for k, [name] in enumerate(folds):
        loaded = [Policy.from_checkpoint(folder / c.name / str(k)) for c in tried]
        like = loaded[0]
        padding = config.data.padding
        chunks = evaluation.recorded(mixture.datasets[name], like, padding=padding, samples=CHUNKS)
        observation = like.check(chunks.observation, (like.history,))
        x0, sample = like.normalised(chunks.action), jax.jit(like.chunk)
        keys = jax.random.split(jax.random.key(0), (DRAWS, len(x0)))
        for i, policy in enumerate(tqdm.tqdm(loaded, desc=f"samples of fold {k + 1}")):
            drawn = [
                like.normalised(np.asarray(sample(policy.params, observation, s))) for s in keys
            ]
            found[i, k] = distances(np.stack(drawn), x0)
    return {"scores": found}
