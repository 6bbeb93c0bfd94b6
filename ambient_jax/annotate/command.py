"""Runs the command: writes bounds files, a table and figures of a config to a workdir."""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks, mixing, schedules
from ambient_jax.annotate import annotation, classifier, findings, judging, labels
from ambient_jax.annotate import config as config_of_command
from ambient_jax.annotate.evidence import open_standing_still
from ambient_jax.annotate.options import Options
from ambient_jax.cli import report, tasks
from ambient_jax.data import bounds
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.train import config as config_lib
from ambient_jax.train import lock, runs

COLUMNS = ("source", "granularity", "units", "sigma_min", "10% to 90%", "always", "never")
COLUMNS_OF_DATASETS = "source", "chunks", "judged", "dims", "sigma_min", "TV at sigma 0.05", "95%"
COLUMNS_OF_LABELS = ("source", "steps", "labelled", "at least", "mean sigma_min")
ANALYSES = {
    "spectrum": findings.spectra,
    "jerk": findings.jerk_correlation,
    "bucket_noise": findings.bucket_noise,
}
_LOW = 0.05  # noise level of the total variation in the table
_MAY_DIFFER = 0.3  # upper end of its interval above which a source that looks clean may differ


def run(
    config: ml_collections.ConfigDict, workdir: str, short_names: Mapping[str, str] | None = None
) -> None:
    """Runs the job of ``JOBS`` that ``config.task.name`` names.

    Args:
      config: see ``config.default``; or the config of a training run without a task.
      workdir: folder of ``bounds/`` and ``report/``.
      short_names: of ``config.task.build``, the task that builds the data; see ``tasks.get``.
    """
    config = config_of_command.completed(config)
    _checks.one_of("config.task.name", config.task.name, JOBS)
    JOBS[config.task.name](config, workdir, short_names)


def _prepared(config, workdir, short_names):
    """Builds the data with ``config.task.build``, if named; returns the workdir's path."""
    if build := config.task.get("build", ""):
        tasks.get(build, short_names).build(config)
    return pathlib.Path(expanded(workdir))


@lock.alone
def by_classifier(
    config: ml_collections.ConfigDict, workdir: str, short_names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Writes ``bounds/<granularity>.parquet`` and ``report/``, unless the workdir has them.

    A size is part of the file's name, as in ``random_10.parquet``. Returns ``report/results.json``.
    """
    folder = _prepared(config, workdir, short_names)
    schedule = config_lib.build(schedules, config.schedule)
    options = Options.from_config(config.task)
    mixture = open_standing_still(config.data, options.observed)
    about = {"config": settings(config), "data": mixture.fingerprints}
    if is_done(folder / "report", about):
        logging.info("%s has the bounds of this data and config", folder)
        return report.read(folder / "report" / "results.json")
    begin = time.perf_counter()
    annotations = annotation.annotate(mixture, options, schedule=schedule, seed=config.seed)
    logging.info("annotated in %.0f s", time.perf_counter() - begin)
    if not options.head_start or options.observed:
        judging.Judge.of(annotations).write(folder / judging.FILE)
    for path in annotations.write(folder / "bounds").values():
        logging.info("%s: join it as config.data.bounds", path)
    results = results_of(annotations) | about
    try:
        from ambient_jax.annotate import figures
    except ModuleNotFoundError:
        logging.warning("there is no matplotlib, so the report has no figures")
    else:
        figures.write(folder / "report", annotations, results)
    columns, rows = _table(annotations, results)
    print(report.write(folder / "report", columns, rows, _caption(options, results), results))
    return report.read(folder / "report" / "results.json")


def settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the sections of the config that a report depends on."""
    plain = report.plain(config.to_dict())
    return {name: plain[name] for name in ("data", "schedule", "task", "seed")}


def is_done(folder: pathlib.Path, about: Mapping[str, Any]) -> bool:
    """Whether the folder has a report on this config and data, wherever the data are stored."""
    try:
        stored = report.read(folder / "results.json")
    except (FileNotFoundError, ValueError):  # absent, or damaged
        return False

    def flat(values):
        fields = runs.flat(report.plain({name: values.get(name) for name in about}))
        return {n: v for n, v in fields.items() if not runs.is_place(n.removeprefix("config."))}

    return flat(stored) == flat(about)


def results_of(annotations: annotation.Annotations) -> dict[str, Any]:
    """Returns the contents of ``report/results.json``, without the config."""
    evidence = annotations.evidence
    trained, options = evidence.fitted.trained, evidence.options
    speed = evidence.chunks_per_second
    return {
        "sigma_min": {
            f"{name}, {granularity}": _quantiles(low)
            for granularity, by_source in annotations.sigma_min.items()
            for name, low in by_source.items()
        },
        "levels": evidence.levels,
        "curves": {name: c.mean(0) for name, c in evidence.curves.items()},
        "total_variation": findings.total_variation(evidence),
        "locality": annotations.locality,
        "mismatch": annotations.mismatch,
        **{n: f(evidence) if n in options.analyses else {} for n, f in ANALYSES.items()},
        "classifier": {
            **{"history": trained.history, "temperature": trained.temperature},
            "reliability": classifier.reliability(evidence.fitted),
        },
        "chunks_per_second": speed,
        "evaluations_per_second": speed * options.levels * options.draws,
    }


def _quantiles(low):
    quantiles = np.quantile(low, [0, 0.1, 0.5, 0.9, 1])
    shares = {"always": np.mean(low <= 0), "never": np.mean(low >= 1)}
    return {"units": len(low), "mean": low.mean(), "quantiles": quantiles} | shares


def _table(annotations, results):
    if annotations.evidence.options.granularity == ("dataset",):
        return COLUMNS_OF_DATASETS, _rows_of_datasets(annotations.evidence, results)
    rows = []
    for key, low in results["sigma_min"].items():
        name, _, granularity = key.rpartition(", ")
        shares = (f"{100 * low[share]:.1f}%" for share in ("always", "never"))
        ends = f"{low['quantiles'][1]:.3f} to {low['quantiles'][3]:.3f}"
        rows.append([name, granularity, low["units"], f"{low['mean']:.3f}", ends, *shares])
    return COLUMNS, rows


def _rows_of_datasets(evidence, results):
    """Returns one row for each corrupt source, in order of sigma_min."""
    level, rows, unknown = int(np.argmin(np.abs(evidence.levels - _LOW))), [], []
    for k, (name, judged) in enumerate(evidence.judged.items()):
        low = results["sigma_min"][f"{name}, dataset"]["mean"]
        tv = {end: value[level] for end, value in results["total_variation"][name].items()}
        dims = int(evidence.fitted.pairs.mask[k].sum())
        cells = [name, len(evidence.steps(name)), len(judged), dims, f"{low:.3f}"]
        cells += [f"{tv['value']:.2f}", f"{tv['low']:.2f} to {tv['high']:.2f}"]
        unknown += [name] if low <= 0 and tv["high"] > _MAY_DIFFER else []
        rows.append((low, cells))
    if unknown:
        logging.warning(
            "%d sources look clean at every noise level, but their total variation from the clean "
            "ones may be above %g: they have few chunks, bound them by hand (%s)",
            *(len(unknown), _MAY_DIFFER, ", ".join(unknown)),
        )
    return [cells for _, cells in sorted(rows, key=lambda row: row[0])]


def _caption(options, results):
    lines = [
        "sigma_min is where P(clean), averaged over the unit and over "
        f"{options.draws} noise draws, passes {0.5 - options.tau:g} (rule {options.rule}), rounded "
        f"up to one of {options.distinct} levels: mean and quantiles of the units, and the share "
        "of those that are admissible at every level (always) and at none (never).",
        f"{results['chunks_per_second']:.0f} chunks a second at {options.levels} levels and "
        f"{options.draws} draws.",
    ]
    if options.granularity == ("dataset",):
        lines.append(
            "dims: dimensions of the action that a source has in common with the clean ones, on "
            "which they are compared. TV: total variation from the clean ones that held-out "
            f"decisions reach at the level nearest to {_LOW:g}, with its interval."
        )
    for name, jerk in results["jerk"].items():
        lines.append(
            f"{name}: rank correlation of a chunk's own mean squared jerk with its sigma_min "
            f"{jerk['sigma_min']:.2f}, with its P(clean) {jerk['clean_probability']:.2f} "
            f"({jerk['chunks']} chunks)."
        )
    for name, value in (results["locality"] or {"sigma_max": {}})["sigma_max"].items():
        lines.append(f"{name}: sigma_max by locality {value:.3g}.")
    for name, mismatch in (results["mismatch"] or {"each": {}})["each"].items():
        by_tau = [f"tau {tau}: {value:.3f}" for tau, value in mismatch["by_tau"].items()]
        lines.append(
            f"{name}: sigma_max by the denoising of clean chunks {mismatch['sigma_max']:.3f} "
            f"[{mismatch['low']:.3f}, {mismatch['high']:.3f}] (95% over episodes), of each "
            f"classifier {', '.join(f'{v:.3f}' for v in mismatch['of_seed'])}; "
            f"{', '.join(by_tau)}; by the share of relative entropy that is lost "
            f"{mismatch['by_entropy']:.3f}."
        )
    return "\n".join(lines)


@lock.alone
def by_labels(
    config: ml_collections.ConfigDict, workdir: str, short_names: Mapping[str, str] | None = None
) -> None:
    """Writes ``bounds/labels.parquet`` and ``report/`` to the workdir, see ``labels.annotate``."""
    task, folder = config.task, _prepared(config, workdir, short_names)
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining(), observed=False)
    rule = {name: task[name] for name in ("threshold", "at_least", "below", "unlabelled")}
    table, by_source = labels.annotate(mixture, task.label, **rule)
    path = bounds.write(folder / "bounds" / "labels.parquet", table)
    logging.info("%s: join it as config.data.bounds", path)
    rows = []
    for name, label in by_source.items():
        labelled = np.isfinite(label)
        share = f"{100 * (label[labelled] >= task.threshold).mean():.1f}%" if labelled.any() else ""
        low = labels.sigma_min(label, **rule).mean()
        rows.append([name, str(len(label)), f"{100 * labelled.mean():.1f}%", share, f"{low:.3f}"])
    caption = (
        f"sigma_min is {task.at_least:g} where {task.label} is at least {task.threshold:g}, "
        f"{task.below:g} where it is below, and {task.unlabelled:g} where there is no label."
    )
    results = {"sources": rows, "config": config.to_dict()}
    print(report.write(folder / "report", COLUMNS_OF_LABELS, rows, caption, results))


JOBS: dict[str, Callable[..., Any]] = {"annotate": by_classifier, "labels": by_labels}
