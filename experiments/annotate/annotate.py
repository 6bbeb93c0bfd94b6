"""Trains the noise classifier, judges every corrupt chunk, writes bounds files and a report."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks, mixing, schedules
from ambient_jax.annotate import buckets as units
from ambient_jax.annotate import classifier, thresholds
from ambient_jax.cli import report
from ambient_jax.data import bounds, device
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.train import lock, runs, trainer
from experiments import tasks
from experiments.annotate import analyse

COLUMNS = ("source", "granularity", "units", "sigma_min", "10% to 90%", "always", "never")
OF_DATASETS = ("source", "chunks", "judged", "dims", "sigma_min", "TV at sigma 0.05", "95%")
_LOW = 0.05  # noise level of the total variation in the table
_MAY_DIFFER = 0.3  # of the end of its interval: a source that looks clean may not be


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """The data and the fitted classifier.

    Attributes:
      config: of the experiment.
      schedule: whose training law draws the classifier's noise levels.
      mixture, data: the sources, and all their steps on the device.
      fitted: classifiers of whole chunks.
      levels: [L] of the grid.
      judged: [M] positions of the steps of each corrupt source that are judged, by name: all, or
        ``task.judged`` of them.
      curves: P(clean) [M, L] of these, by name.
    """

    config: ml_collections.ConfigDict
    schedule: schedules.Schedule
    mixture: mixtures.Mixture
    data: device.DeviceData
    fitted: classifier.Fitted
    levels: np.ndarray
    judged: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]

    def steps(self, name: str) -> np.ndarray:
        """Positions of the steps of a source."""
        k = self.mixture.names.index(name)
        return np.arange(self.data.offset[k], self.data.offset[k] + self.data.size[k])

    def options(self, crop: int = 0) -> classifier.Options:
        """How the classifier of whole chunks, or of their first ``crop`` actions, is made."""
        return options_of(self.config, crop)

    def role(self, role: str) -> list[str]:
        """Names of the sources of a role."""
        clean = role == "clean"
        pairs = zip(self.mixture.names, self.mixture.sources.clean, strict=True)
        return [name for name, is_clean in pairs if bool(is_clean) == clean]


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Leaves ``bounds/<granularity>.parquet`` and ``report/`` in the workdir, if not there yet."""
    from experiments.annotate import figures  # they need matplotlib, bounds do not

    task, folder = config.task, pathlib.Path(expanded(workdir))
    if build := task.get("build", ""):
        tasks.get(build).build(config)
    schedule = trainer.build(schedules, config.schedule)
    _check(config)
    mixture = mixtures.open_mixture(_held(config.data), mixing.CoTraining(), observed=task.observed)
    about = {"config": _settings(config), "data": mixture.fingerprints}
    if _is_done(folder / "report", about):
        logging.info("%s has the bounds of this data and config", folder)
        return
    data = device.load_device_data(mixture)
    levels = grid(task.levels)
    fitted = classifier.fit(
        data, options_of(config), schedule=schedule, seed=config.seed, names=mixture.names
    )
    job = Job(config, schedule, mixture, data, fitted, levels, {}, {})
    begin = time.perf_counter()
    chunks = _judge(job)
    seconds = time.perf_counter() - begin
    logging.info("%d chunks, %d levels, %d draws: %.0f s", chunks, task.levels, task.draws, seconds)

    locality = analyse.locality(job) if task.crops else None
    mismatch = analyse.mismatch(job) if task.mismatch else None
    sigma_max = (mismatch or locality or {}).get("sigma_max", {})
    rows, low, each = [], {}, {}
    for granularity in task.granularity:
        parts = []
        for name in job.curves:
            found, made = decide(job, name, granularity, sigma_max.get(name, 0.0))
            parts.append(made)
            low[f"{name}, {granularity}"] = _quantiles(found)
            each.setdefault(name, {})[granularity] = np.asarray(made.sigma_min)
            rows.append([name, granularity, *_cells(found)])
            logging.info("%s, %s: sigma_min %.3f", name, granularity, found.mean())
        path = folder / "bounds" / f"{granularity.replace(':', '_')}.parquet"
        bounds.write(path, bounds.concatenate(parts))
        logging.info("%s: join it as config.data.bounds", path)
    results = {
        "sigma_min": low,
        "levels": levels,
        "curves": {name: c.mean(0) for name, c in job.curves.items()},
        "total_variation": analyse.contraction(job),
        "locality": locality,
        "mismatch": mismatch,
        **{name: ANALYSES[name](job) if name in task.analyses else {} for name in ANALYSES},
        "classifier": {
            "history": fitted.history,
            "temperature": fitted.temperature,
            "reliability": classifier.reliability(fitted),
        },
        "chunks_per_second": chunks / seconds,
        "evaluations_per_second": chunks * task.levels * task.draws / seconds,
        **about,
    }
    figures.write(folder / "report", job, results, each)
    columns = COLUMNS
    if tuple(task.granularity) == ("dataset",):
        columns, rows = OF_DATASETS, _of_datasets(job, results)
    table = report.write(folder / "report", columns, rows, _caption(job, results), results)
    print(table)


ANALYSES = {
    "spectrum": analyse.spectra,
    "jerk": analyse.jerk_correlation,
    "bucket_noise": analyse.bucket_noise,
}


def _held(data):
    """The data section with chunks that stand still past an episode's end, as classifiers see them:
    a mask would tell them where an episode ends."""
    if missing := mixtures.missing_delta(data):
        raise ValueError(missing)
    data = data.copy_and_resolve_references()
    data.padding = "hold"
    if mixtures.missing_delta(data):
        logging.warning(
            "chunks repeat the last action past an episode's end: if dimensions of the action are "
            "displacements, name them in config.data.delta, such as (0, 1, 2); () says that none is"
        )
        data.delta = ()
    return data


def _check(config):
    task = config.task
    for name in task.analyses:
        _checks.one_of("config.task.analyses", name, ANALYSES)
    if task.judged and set(task.granularity) != {"dataset"}:
        raise ValueError(
            f"config.task.judged is {task.judged} and granularity {tuple(task.granularity)}: some "
            "chunks alone are judged only for bounds by data set; set judged to 0 (all), or "
            "granularity to ('dataset',)"
        )
    for name, source in config.data.sources.items():
        if config.data.bounds or source.bounds:
            raise ValueError(
                f"source {name!r} has a bounds file, expected none: bounds are what is made here"
            )


def _judge(job: Job) -> int:
    """Fills in ``job.judged`` and ``job.curves``; returns the number of chunks."""
    task, names = job.config.task, job.role("corrupt")
    rng = np.random.default_rng(job.config.seed)
    for name in names:
        own = job.steps(name)
        some = task.judged and len(own) > task.judged
        job.judged[name] = np.sort(rng.permutation(own)[: task.judged]) if some else own
    # All in one go, as batches are then full.
    positions = np.concatenate([job.judged[name] for name in names])
    c = classifier.probabilities(
        job.fitted, job.data, positions, job.levels, draws=task.draws, progress=True
    )
    ends = np.cumsum([len(job.judged[name]) for name in names])
    job.curves.update(zip(names, np.split(c, ends[:-1]), strict=True))
    return len(positions)


def grid(count: int) -> np.ndarray:
    """Noise levels sigma, equidistant in log(sigma / alpha) from 0.004 to 16."""
    s = np.geomspace(0.004, 16, count)
    return s / np.hypot(1, s)


def options_of(config: ml_collections.ConfigDict, crop: int = 0) -> classifier.Options:
    """See ``Job.options``."""
    task = config.task
    return classifier.Options(
        history=config.data.history,
        horizon=config.data.horizon,
        crop=crop,
        observed=task.observed and not crop,
        folds=task.folds,
        steps=task.crop_steps if crop else task.steps,
        batch_size=task.batch_size,
        evaluate_every=task.evaluate_every,
        features=tuple(task.features),
        patience=task.patience,
        learning_rate=task.learning_rate,
        encoder=tuple(task.encoder),
        blur=task.blur,
    )


def decide(
    job: Job, name: str, granularity: str, sigma_max: float
) -> tuple[np.ndarray, bounds.Bounds]:
    """sigma_min of each unit [U] of a corrupt source, and the bounds of its steps. A granularity
    with a size, as in "random:1000", is of buckets of this size rather than ``task.bucket``."""
    task, own, c = job.config.task, job.steps(name), job.curves[name]
    kind, _, size = granularity.partition(":")
    episode = job.data.episode[own]
    rule = dict(tau=task.tau, rule=task.rule)
    scores = thresholds.sigma_min(job.levels, c, **rule) if kind == "ordered" else None
    size = int(size) if size else task.bucket
    unit = units.assign(kind, episode, size=size, seed=job.config.seed, scores=scores)
    mean = np.clip(units.average(c, unit[job.judged[name] - own[0]]), 0, 1)
    low = thresholds.sigma_min(job.levels, mean, **rule)
    low = thresholds.round_up(low, grid(task.distinct))
    each = units.spread(low, unit)
    if np.all(low >= 1):
        logging.warning(
            "%s looks corrupt at every noise level (%s): nothing of it will be trained on",
            *(name, granularity),
        )
    how = {"granularity": granularity, "levels": job.levels.tolist(), "config": task.to_dict()}
    made = bounds.for_source(
        name,
        job.mixture.datasets[name].fingerprint,
        episode,
        own - job.data.start[own],
        each,
        # Looks clean at every level: admitted everywhere.
        np.where(each <= 0, 1.0, np.minimum(sigma_max, each)),
        method="classifier",
        how=how,
    )
    return low, made


def _settings(config):
    settings = report.plain(config.to_dict())
    return {name: settings[name] for name in ("data", "schedule", "task", "seed")}


def _is_done(folder, about):
    try:
        found = report.read(folder / "results.json")
    except (FileNotFoundError, ValueError):  # absent, or no JSON: damaged
        return False
    made, now = (_unplaced({name: of.get(name) for name in about}) for of in (found, about))
    return made == now


def _unplaced(about):
    """Without where the data lie, as their fingerprints tell which they are."""
    fields = runs.flat(report.plain(about))
    return {n: v for n, v in fields.items() if not runs.is_place(n.removeprefix("config."))}


def _of_datasets(job, results):
    """A row of each corrupt source, by sigma_min."""
    at, rows = int(np.argmin(np.abs(job.levels - _LOW))), []
    unknown = []
    for k, (name, positions) in enumerate(job.judged.items()):
        low = results["sigma_min"][f"{name}, dataset"]["mean"]
        tv = {end: value[at] for end, value in results["total_variation"][name].items()}
        cells = [name, len(job.steps(name)), len(positions), int(job.fitted.pairs.mask[k].sum())]
        told = f"{tv['low']:.2f} to {tv['high']:.2f}"
        unknown += [name] if low <= 0 and tv["high"] > _MAY_DIFFER else []
        rows.append((low, [*cells, f"{low:.3f}", f"{tv['value']:.2f}", told]))
    if unknown:
        logging.warning(
            "%d sources look clean at every noise level, but their total variation from the clean "
            "ones may be above %g: they have few chunks, bound them by hand (%s)",
            *(len(unknown), _MAY_DIFFER, ", ".join(unknown)),
        )
    return [cells for _, cells in sorted(rows, key=lambda row: row[0])]


def _quantiles(low: np.ndarray) -> dict[str, Any]:
    return {
        "units": len(low),
        "mean": low.mean(),
        "quantiles": np.quantile(low, [0, 0.1, 0.5, 0.9, 1]),
        "always": np.mean(low <= 0),
        "never": np.mean(low >= 1),
    }


def _cells(low):
    found = _quantiles(low)
    q = found["quantiles"]
    return [
        found["units"],
        f"{found['mean']:.3f}",
        f"{q[1]:.3f} to {q[3]:.3f}",
        f"{100 * found['always']:.1f}%",
        f"{100 * found['never']:.1f}%",
    ]


def _caption(job, results):
    task = job.config.task
    lines = [
        "sigma_min is where P(clean), averaged over the unit and over "
        f"{task.draws} noise draws, passes {0.5 - task.tau:g} (rule {task.rule}), rounded up to "
        f"one of {task.distinct} levels: mean and quantiles of the units, and the share of those "
        "that are admissible at every level (always) and at none (never).",
        f"{results['chunks_per_second']:.0f} chunks a second at {task.levels} levels and "
        f"{task.draws} draws.",
    ]
    if tuple(task.granularity) == ("dataset",):
        lines.append(
            "dims: dimensions of the action that a source has in common with the clean ones, on "
            "which they are compared. TV: total variation from the clean ones that held-out "
            f"decisions reach at the level nearest to {_LOW:g}, with its interval."
        )
    for name, found in results["jerk"].items():
        lines.append(
            f"{name}: rank correlation of a chunk's own mean squared jerk with its sigma_min "
            f"{found['sigma_min']:.2f}, with its P(clean) {found['clean_probability']:.2f} "
            f"({found['chunks']} chunks)."
        )
    if results["locality"]:
        for name, value in results["locality"]["sigma_max"].items():
            lines.append(f"{name}: sigma_max by locality {value:.3g}.")
    for name, found in (results["mismatch"] or {"each": {}})["each"].items():
        each = [f"tau {tau}: {value:.3f}" for tau, value in found["by_tau"].items()]
        lines.append(
            f"{name}: sigma_max by the denoising of clean chunks {found['sigma_max']:.3f} "
            f"[{found['low']:.3f}, {found['high']:.3f}] (95% over episodes), of each classifier "
            f"{', '.join(f'{v:.3f}' for v in found['of_seed'])}; {', '.join(each)}; by the share "
            f"of relative entropy that is lost {found['by_entropy']:.3f}."
        )
    return "\n".join(lines)
