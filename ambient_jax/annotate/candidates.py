"""Trains candidate mixtures on folds of the clean data and measures them on the fold left out.

A candidate says at which noise levels corrupt data train, and how much they count there. Each is
trained once for each fold, without that fold's clean episodes, so that the few clean episodes both
train and test. Candidates differ in weights and bounds only: one vmapped program trains all of
them (``train.sweep``).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tqdm

from ambient_jax import _checks, mixing
from ambient_jax.annotate import evidence
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.files import read_arrays
from ambient_jax.data.paths import expanded, replacing
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import runs, sweep


class Interrupted(Exception):
    """A signal ended the training of candidates; the same call carries on."""


class Candidate(NamedTuple):
    """A mixture to try.

    Attributes:
      alpha: share of clean data where corrupt data are admitted; None by number of samples, 1 for
        clean data only, 0 for corrupt data only.
      sigma_min, sigma_max: corrupt data train above the first and below the second.
      corrupt: names of the corrupt sources that are used; None for all.
    """

    alpha: float | None
    sigma_min: float = 0.0
    sigma_max: float = 0.0
    corrupt: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """A short name, also of the folder of its policies."""
        if self.alpha == 1:
            return "clean"
        parts = ["natural" if self.alpha is None else f"alpha_{self.alpha:g}"]
        parts += [f"above_{self.sigma_min:g}"] if 0 < self.sigma_min < 1 else []
        parts += [f"below_{self.sigma_max:g}"] if self.sigma_max > 0 else []
        return "_".join(["+".join(self.corrupt), *parts] if self.corrupt else parts)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the candidates' training and measurement.

    Attributes:
      folds: parts of the clean episodes, each held out once.
      steps, batch_size: of a candidate's training; 0 for the config's.
      together: most policies in one program; 0 for all.
      chunks: most held-out chunks of each fold and clean source.
      draws: noise draws of each chunk at each level.
      levels: number of noise levels, see ``evidence.grid``.
    """

    folds: int = 2
    steps: int = 0
    batch_size: int = 0
    together: int = 0
    chunks: int = 2500
    draws: int = 2
    levels: int = 19

    def __post_init__(self):
        for name, least in (("folds", 2), ("draws", 2), ("chunks", 1), ("levels", 4)):
            _checks.number(name, getattr(self, name), least, whole=True)
        for name in ("steps", "batch_size", "together"):
            _checks.number(name, getattr(self, name), 0, whole=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Losses of A candidates on N held-out clean chunks at L noise levels.

    Attributes:
      candidates: the A candidates.
      levels: [L] sigma, increasing.
      losses: [A, draws, L, N] mean squared errors of x0_hat per number (normalised units) of a
        policy that has not seen the chunk's episode; all candidates get the same noise.
      episode: [N] the chunk's episode, numbered from 0 over all clean sources.
      fold: [N] the fold that the episode belongs to.
      variance: of the clean chunks' numbers, in normalised units.
      decisions: times that a policy plans in a clean episode, on average.
      natural: share of the clean data by number of samples.
    """

    candidates: tuple[Candidate, ...]
    levels: np.ndarray
    losses: np.ndarray
    episode: np.ndarray
    fold: np.ndarray
    variance: float
    decisions: float
    natural: float

    def of(self, candidate: Candidate) -> np.ndarray:
        """Returns the losses [draws, L, N] of a candidate."""
        return self.losses[self.candidates.index(candidate)]


def folded(
    config: ml_collections.ConfigDict, mixture: mixtures.Mixture, folds: int
) -> tuple[ml_collections.ConfigDict, list[list[str]]]:
    """Cuts each clean source into ``folds`` sources of consecutive episodes.

    Returns:
      A copy of the config with these sources, and the names of each fold's sources.

    Raises:
      ValueError: a clean source has fewer episodes than folds, or sources have transforms of their
        own, which no candidate's policy could be loaded with.
    """
    if mixture.chain.sources:
        per = config.data.normalize_per
        found = f"config.data.normalize_per is {per!r}, expected 'mixture'"
        if not mixture.chain.normalizer.sources:
            found = "the format masks dimensions by source, expected another data.format"
        raise ValueError(f"{found}: candidates are compared with one map for all sources")
    config = config.copy_and_resolve_references()
    names: list[list[str]] = [[] for _ in range(folds)]
    for source, section in list(config.data.sources.items()):
        if section.role != "clean":
            continue
        ids = np.asarray(mixture.datasets[source].episode_ids)
        if len(ids) < folds:
            raise ValueError(
                f"clean source {source!r} has {len(ids)} episodes, expected at least {folds}, one "
                "for each fold"
            )
        whole = section.split.split("[")[0].strip()
        edges = np.linspace(0, len(ids), folds + 1).astype(int)
        del config.data.sources[source]
        for k in range(folds):
            part = ml_collections.ConfigDict(section.to_dict())
            part.split = f"{whole}[{ids[edges[k]]}:{ids[edges[k + 1] - 1] + 1}]"
            config.data.sources[f"{source}_{k}"] = part
            names[k].append(f"{source}_{k}")
    return config, names


def policies(
    config: ml_collections.ConfigDict,
    folds: Sequence[Sequence[str]],
    candidates: Sequence[Candidate],
) -> dict[str, ml_collections.ConfigDict]:
    """Returns the config of each candidate and fold left out, as ``<candidate>/<fold>``.

    ``config`` and ``folds`` come from ``folded``.
    """
    configs = {}
    for candidate in candidates:
        for k, left_out in enumerate(folds):
            one = ml_collections.ConfigDict(config.to_dict())
            one.name = f"{candidate.name}_{k}"
            one.law = ml_collections.ConfigDict({"name": "ambient", "alpha": candidate.alpha})
            if candidate.alpha is None or candidate.alpha in (0, 1):
                one.law = ml_collections.ConfigDict({"name": "ambient"})
            for name, section in one.data.sources.items():
                if section.role == "clean":
                    if name in left_out or candidate.alpha == 0:
                        section.weight = 0.0
                elif candidate.alpha == 1 or name not in (candidate.corrupt or (name,)):
                    section.weight = 0.0
                else:
                    low, high = candidate.sigma_min, candidate.sigma_max
                    section.sigma_min, section.sigma_max = low, high if low > 0 else None
            configs[f"{candidate.name}/{k}"] = one
    return configs


def measure(
    config: ml_collections.ConfigDict,
    candidates: Sequence[Candidate],
    options: Options,
    workdir: str | os.PathLike[str],
) -> Measured:
    """Trains the candidates and measures them on the clean episodes that they have not seen.

    The same arguments carry on where an earlier call ended.

    Args:
      config: of the training run that the choice is for; its law and its sources' bounds are the
        candidates'. ``data.placement`` must be "device".
      candidates: what to try.
      options: see ``Options``.
      workdir: folder of the candidates' policies and of ``measured.npz``.

    Raises:
      ValueError: no clean or no corrupt source, too few clean episodes, transforms of their own for
        sources, or a config or data that cannot train.
      Interrupted: a signal ended the training.
    """
    workdir = pathlib.Path(expanded(workdir))
    candidates = tuple(dict.fromkeys(candidates))
    config, folds, about = _prepared(config, candidates, options)
    if (stored := _stored(workdir / "measured.npz", about)) is not None:
        return stored
    configs = policies(config, folds, candidates)
    keys, size = list(configs), options.together or len(configs)
    for first in range(0, len(keys), size):
        part = {key: configs[key] for key in keys[first : first + size]}
        if stopped := sweep.train(part, workdir).signal:
            raise Interrupted(stopped)
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    of_fold = functools.partial(_fold, config, mixture, folds)
    parts = [of_fold(k, candidates, options, workdir) for k in range(options.folds)]
    losses, episode = (np.concatenate([part[i] for part in parts], axis=-1) for i in (0, 1))
    fold = np.repeat(np.arange(options.folds), [len(part[1]) for part in parts])
    clean = [mixture.statistics[name] for names in folds for name in names]
    steps = sum(s.num_steps for s in clean)
    length = steps / sum(len(s.lengths) for s in clean)
    _, episode = np.unique(np.stack([fold, episode]), axis=1, return_inverse=True)
    arrays: dict[str, Any] = dict(losses=losses, episode=episode.ravel(), fold=fold)
    arrays |= dict(levels=evidence.grid(options.levels), decisions=length / config.policy.execute)
    arrays["natural"] = steps / mixture.chunks.sum()
    arrays["variance"] = np.concatenate([part[2] for part in parts]).var(0).mean()
    with replacing(workdir / "measured.npz") as file:
        np.savez_compressed(file, about=about, **arrays)
    return Measured(candidates, **arrays)


def read(
    config: ml_collections.ConfigDict,
    candidates: Sequence[Candidate],
    options: Options,
    workdir: str | os.PathLike[str],
) -> Measured | None:
    """Returns what ``measure`` with the same arguments has kept, and trains nothing; None if there
    is nothing, or if the config, the data, the candidates or the options have changed since."""
    path = pathlib.Path(expanded(workdir)) / "measured.npz"
    if not path.exists():
        return None
    _, _, about = _prepared(config, tuple(dict.fromkeys(candidates)), options)
    return _stored(path, about)


def _prepared(config, candidates, options):
    """Returns the config of the training with its folds, and all that it depends on, as text."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.train.steps = options.steps or config.train.steps
    config.train.batch_size = options.batch_size or config.train.batch_size
    config.train.checkpoint_every = min(config.train.checkpoint_every, config.train.steps)
    config.train.warmup = min(config.train.warmup, 3 * config.train.steps // 4)
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    roles = np.asarray(mixture.sources.clean)
    if roles.all() or not roles.any():
        raise ValueError(
            f"all {len(roles)} sources are {'clean' if roles.all() else 'corrupt'}, expected both "
            "clean and corrupt ones: set data.sources.<name>.role"
        )
    config, folds = folded(config, mixture, options.folds)
    about = json.dumps(
        {
            "candidates": candidates,
            "options": dataclasses.asdict(options),
            "data": mixture.fingerprints,
            "config": {n: v for n, v in runs.flat(config.to_dict()).items() if not runs.is_free(n)},
        }
    )
    return config, folds, about


def _fold(config, mixture, folds, k, candidates, options, workdir):
    """Returns losses [A, draws, L, N] on a fold's clean chunks, their episodes [N] and x0."""
    levels = tuple(evidence.grid(options.levels).tolist())
    loaded = [Policy.from_checkpoint(workdir / c.name / str(k)) for c in candidates]
    like = loaded[0]  # policies of one program differ in their parameters only
    losses, episodes, x0 = [], [], []
    for number, name in enumerate(folds[k]):
        how = dict(padding=config.data.padding, samples=options.chunks)
        chunks = evaluation.recorded(mixture.datasets[name], like, **how)
        assert chunks.origin is not None
        episodes.append(chunks.origin[:, 0] + (number << 32))
        x0.append(like.normalised(chunks.action))

        def measured(policy, seed, chunks=chunks):
            how = dict(levels=levels, seed=seed, params=policy.params)
            return evaluation.row_losses(like, chunks, target="x0", **how)

        bar = tqdm.tqdm(loaded, desc=f"measuring fold {k + 1} of {len(folds)}", unit="policy")
        losses.append([[measured(policy, s) for s in range(options.draws)] for policy in bar])
    losses = np.concatenate(losses, axis=-1).astype(np.float32)
    return losses, np.concatenate(episodes), np.concatenate(x0)


def _stored(path: pathlib.Path, about: str) -> Measured | None:
    """Returns what an earlier call measured, if it was about the same."""
    try:
        # Numbers are arrays without axes.
        arrays: dict[str, Any] = {name: v[()] for name, v in read_arrays(path).items()}
        if str(arrays.pop("about")) != about:
            return None
        candidates = tuple(_candidate(*c) for c in json.loads(about)["candidates"])
    except (ValueError, KeyError, OSError):
        return None
    return Measured(candidates, **arrays)


def _candidate(alpha, sigma_min, sigma_max, corrupt):
    return Candidate(alpha, sigma_min, sigma_max, corrupt and tuple(corrupt))
