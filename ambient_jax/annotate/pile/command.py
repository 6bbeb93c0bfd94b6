"""The command that reports what a pile of data is worth beside clean data, without a config.

python -m ambient_jax.annotate --clean=DIR --pile=DIR [--pile=DIR ...] [--workdir=...] [--quick]

It trains small policies on parts of the clean data, with and without each data set of the pile,
measures them on the clean episodes that they have not seen, and scores the pile's episodes. Nothing
is rolled out. Each stage keeps its result in the workdir, so that the same command carries on.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import mixing
from ambient_jax.annotate import annotation, buckets, candidates
from ambient_jax.annotate import evidence as evidence_lib
from ambient_jax.annotate import options as options_lib
from ambient_jax.annotate.candidates import Candidate
from ambient_jax.annotate.pile import config as pile_config
from ambient_jax.annotate.pile import episodes, worth
from ambient_jax.annotate.pile import files as pile_files
from ambient_jax.annotate.pile import page as pile_page
from ambient_jax.annotate.pile import results as pile_results
from ambient_jax.annotate.pile.config import Request
from ambient_jax.annotate.pile.episodes import Scores
from ambient_jax.annotate.pile.results import ALPHA, CLEAN, Results
from ambient_jax.cli import console
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import storage
from ambient_jax.data.dataset import Dataset
from ambient_jax.data.files import first_line, read_arrays
from ambient_jax.data.paths import check_local, expanded, replacing, write_text
from ambient_jax.train import lock, runs

FLAGS = "--clean", "--pile"
PAGE = "report.html"


def is_meant(arguments: Sequence[str]) -> bool:
    """Whether a command line names folders rather than a config."""
    return any(a.split("=")[0] in FLAGS for a in arguments)


def main(arguments: Sequence[str]) -> None:
    """Runs the command; bad input ends the program with one line."""
    logging.use_absl_handler()
    console.setup()
    try:
        run(pile_config.parse(arguments))
    except candidates.Interrupted as signal:
        sys.exit(f"stopped by {signal}: the same command carries on")
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"error: {first_line(error)}")


def run(request: Request) -> Results:
    """Makes the report; see the module. The same request in the same workdir carries on.

    Raises:
      ValueError, OSError: the data sets are not there, do not agree or are too few.
    """
    check_local("workdir", request.workdir)
    datasets, clean = pile_config.open_all(request)
    config = pile_config.make(request, datasets, clean)
    first = next(n for n in datasets if n not in clean)
    folder = pathlib.Path(expanded(request.workdir or os.path.join("runs", "annotate", first)))
    with lock.hold(folder):
        return _run(request, config, datasets, folder)


def measuring(request: Request, fewest: int) -> candidates.Options:
    """Returns the options of the candidates for a fewest number of clean episodes of a source."""
    folds = 4 if fewest >= 24 and not request.quick else 2
    quick: dict[str, Any] = dict(chunks=600, draws=2, levels=13) if request.quick else {}
    return candidates.Options(folds=folds, **quick)


def judging(request: Request) -> options_lib.Options:
    """Returns the options of the classifier."""
    steps = min(300, request.steps or 300) if request.quick else min(2000, request.steps or 2000)
    how: dict[str, Any] = dict(steps=steps, evaluate_every=max(1, steps // 20))
    how["features"] = (request.width // 2, request.width)
    how |= dict(draws=1, levels=10) if request.quick else dict(draws=2)
    return options_lib.Options(granularity=("dataset",), analyses=(), crops=(), **how)


def _run(
    request: Request,
    config: ml_collections.ConfigDict,
    datasets: dict[str, Dataset],
    folder: pathlib.Path,
) -> Results:
    roles = {n: s.role for n, s in config.data.sources.items()}
    clean = [n for n, role in roles.items() if role == "clean"]
    piles = [n for n, role in roles.items() if role == "corrupt"]
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    options = measuring(request, min(len(datasets[n]) for n in clean))
    tried = pile_results.candidates(piles, request.quick)
    work = folder / "work" / _key(config, tried, options, judging(request))
    work.mkdir(parents=True, exist_ok=True)
    logging.info("1/4 policies with and without each data set")
    measured = candidates.measure(config, tried, options, work / "candidates")
    times = worth.resampled(measured, seed=request.seed)
    logging.info("2/4 policies on fewer clean episodes")
    curve = worth.learning_curve(config, measured, options, work / "learning_curve", times)
    logging.info("3/4 scores of the episodes")
    scored = _scores(request, config, mixture, options, piles, work)
    logging.info("4/4 the report")
    findings = tuple(
        pile_results.find(
            *(measured, curve, times, _scores_of(scored, name)),
            **dict(name=name, directory=datasets[name].directory, format=_format(datasets[name])),
        )
        for name in piles
    )
    sizes = {n: (datasets[n].directory, len(datasets[n]), _steps(mixture, n)) for n in clean}
    whole = None
    if len(piles) > 1:
        whole = worth.gain(measured, Candidate(ALPHA), CLEAN, times)
    settings = dict(
        steps=config.train.steps, batch_size=config.train.batch_size, folds=options.folds
    )
    settings |= dict(horizon=config.data.horizon, action=config.data.action, seed=request.seed)
    settings |= dict(observation=list(config.data.observation), quick=request.quick)
    settings |= dict(chunks=int(measured.losses.shape[-1]))
    settings |= dict(test_episodes=len(np.unique(measured.episode)))
    results = Results(sizes, findings, whole, curve, settings)
    _write(folder, results, config, datasets, scored)
    return results


def _key(config: ml_collections.ConfigDict, *more: Any) -> str:
    """A name of what is asked for, so that another request in a workdir begins anew."""
    fields = {n: v for n, v in runs.flat(config.to_dict()).items() if not runs.is_place(n)}
    return hashlib.sha256(repr((fields, *more)).encode()).hexdigest()[:12]


def _steps(mixture: mixtures.Mixture, name: str) -> int:
    return int(mixture.chunks[mixture.names.index(name)])


def _format(dataset: Dataset) -> str:
    return type(dataset).__name__.removesuffix("Dataset")


def _scores(
    request: Request,
    config: ml_collections.ConfigDict,
    mixture: mixtures.Mixture,
    measured_with: candidates.Options,
    piles: Sequence[str],
    folder: pathlib.Path,
) -> dict[str, np.ndarray]:
    """Returns P(clean) and influence of episodes and steps as arrays ``<what>/<data set>``."""
    options, path = judging(request), folder / "scores.npz"
    about = repr((mixture.fingerprints, config.to_json_best_effort(), options, measured_with))
    if (stored := _stored(path, about)) is not None:
        return stored
    found: dict[str, Any] = {}
    evidence = annotation.annotate(config.data, options, seed=request.seed).evidence
    found["levels"], found["influence_levels"] = evidence.levels, evidence_lib.grid(7)
    folded, names = candidates.folded(config, mixture, measured_with.folds)
    of_folds = mixtures.open_mixture(folded.data, mixing.CoTraining()).datasets
    influence = episodes.influences(
        *(folder / "candidates" / CLEAN.name, [[of_folds[n] for n in fold] for fold in names]),
        *({n: mixture.datasets[n] for n in piles}, found["influence_levels"]),
        padding=config.data.padding,
        each=8 if request.quick else 16,
        seed=request.seed,
    )
    influence = episodes.in_units(influence)
    for name in piles:
        rows, curves = evidence.steps(name), evidence.curves[name]
        episode = evidence.data.episode[rows]
        ids, number, length = np.unique(episode, return_inverse=True, return_counts=True)
        place = np.searchsorted(ids, np.asarray(mixture.datasets[name].episode_ids))
        ordered = np.zeros((len(influence[name]), len(ids)))
        ordered[:, place] = influence[name]
        odds = np.clip(curves / np.maximum(1 - curves, 1e-6), 0, 1)
        found |= {
            f"episode/{name}": ids,
            f"length/{name}": length,
            f"clean/{name}": buckets.average(curves, number),
            f"influence/{name}": ordered,
            f"step_episode/{name}": episode,
            f"step/{name}": rows - evidence.data.start[rows],
            f"keep/{name}": odds.mean(1),
            f"fingerprint/{name}": np.asarray(mixture.datasets[name].fingerprint),
        }
    with replacing(path) as file:
        np.savez_compressed(file, about=about, **found)
    return found


def _stored(path: pathlib.Path, about: str) -> dict[str, np.ndarray] | None:
    try:
        stored = read_arrays(path)
        return stored if str(stored["about"]) == about else None
    except (OSError, ValueError, KeyError):
        return None


def _scores_of(scored: dict[str, np.ndarray], name: str) -> Scores:
    own = {what: scored[f"{what}/{name}"] for what in ("episode", "length", "clean", "influence")}
    levels = {what: scored[what] for what in ("levels", "influence_levels")}
    return Scores(**own, **levels)


def _write(folder, results, config, datasets, scored):
    """Writes all files, the page last, and prints the table."""
    steps = {}
    for f in results.findings:
        parts = (scored[f"{what}/{f.name}"] for what in ("step_episode", "step"))
        steps[f.name] = str(scored[f"fingerprint/{f.name}"]), *parts
    pile_files.write(folder, results, config, steps)
    weights = []
    for f in results.findings:
        if pile_config.is_lerobot(datasets[f.name]):
            _, episode, step = steps[f.name]
            index = _frames(datasets[f.name], episode, step)
            columns = index, episode, step, scored[f"keep/{f.name}"]
            path = folder / "lerobot" / f"{f.name}.parquet"
            weights.append(pile_files.write_weights(path, f, *columns))
    print(pile_page.text(results))
    write_text(folder / PAGE, pile_page.html(results))
    for path in (folder / PAGE, folder / "config.py", folder / pile_files.BOUNDS, *weights):
        print(path)


def _frames(dataset: Dataset, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Returns LeRobot's number of each frame in the whole data set, from its own tables."""
    numbers = {}
    frames = storage.open_dataset(
        dataset.directory, dataset.split, keys=["steps/index"], last_step="keep"
    )
    for shard in range(len(frames.shard_lengths)):
        for number, one in frames.stream(shard):
            numbers[number] = np.ravel(one["steps"]["index"])
    first = np.asarray([numbers[n][0] for n in np.unique(episode)])
    return first[np.unique(episode, return_inverse=True)[1]] + step
