"""Bounds that a classifier chose: no rollout, no sweep.

An annotation is of so many source and target demonstrations, with a classifier of actions alone or
one that also sees the observation, and by a tau. Each runs once, in
``<workdir>/annotation/<name>``; the bounds files and the total variation that it leaves are what
the table's policies train with.
"""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import ml_collections

from ambient_jax.annotate import command
from ambient_jax.cli import report
from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from experiments.annotate import config as annotate_config

TABLE, OBSERVED, STRICT = "table", "observed", "strict"
# Ways of filling buckets, and what is in one of so many chunks.
WAYS = {
    "random": "{} random chunks",
    "random_episode": "{} chunks of random episodes",
    "ordered": "{} chunks in order of sigma_min",
}
# Methods of the group scaling that hang on an annotation.
_ANNOTATED = {"dataset", "datapoint", "random", "random_alpha", "ben_david"}
# Few target demonstrations are known by heart unless blurred.
_OBSERVED = dict(observed=True, encoder=(0, 64, 1), blur=0.3, learning_rate=1e-3, patience=4)
# What is known of an annotation that has not been made: nothing is admitted.
_NONE = {
    "bounds": "",
    "sigma_min": 1.0,
    "sigmas": (0.0, 1.0),
    "divergences": (1.0, 1.0),
    "n_clean": 1,
    "n_corrupt": 1,
}


def scaled(source: int, target: int) -> str:
    """Name of the annotation of so many source and target demonstrations."""
    return f"source_{source}_target_{target}"


def about(task: ml_collections.ConfigDict, name: str) -> str:
    """The classifier of an annotation in words."""
    if name == TABLE:
        return "classifier"
    return "observing classifier" + ("" if name == OBSERVED else f", tau {task.strict:g}")


def split(count: int) -> str:
    """The split of the first demonstrations of a data set."""
    return f"train[:{count}]"


def splits(source: int, target: int) -> dict[str, str]:
    """Config fields of a policy of so many source and target demonstrations."""
    return {
        "data.sources.source.split": split(source),
        "data.sources.target.split": split(target),
    }


def of(task: ml_collections.ConfigDict, name: str) -> dict[str, Any]:
    """What an annotation found: its folder of bounds files, sigma_min of the data set, the total
    variation ``divergences`` at the levels ``sigmas``, and numbers of demonstrations (and not of
    chunks, as those of one hang together)."""
    found = task.annotations.get(name)
    return found.to_dict() if found else dict(_NONE)


def buckets(task: ml_collections.ConfigDict) -> list[str]:
    """The granularities of the table's buckets, as ``annotate`` names them."""
    return [f"{way}:{size}" for size in (*task.buckets, *task.more_buckets) for way in WAYS]


def words(granularity: str) -> str:
    """What shares a bound: of "random_100" or "random:100", "100 random chunks"."""
    way, _, size = granularity.replace(":", "_").rpartition("_")
    return WAYS[way].format(size) if way else granularity.replace("dataset", "data set")


def needed(task: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """What the configured groups hang on: for each annotation the fields of the data that it
    changes ("changes"), and those of the annotation ("fields")."""
    found: dict[str, dict[str, Any]] = {}
    one = ("dataset", "datapoint")
    random = tuple(f"random:{size}" for size in task.buckets)

    def add(name, granularity, changes=(), **fields):
        found[name] = dict(changes=dict(changes), fields=dict(granularity=granularity, **fields))

    if {"chosen", "buckets", "shared", "soft"} & set(task.groups):
        add(TABLE, (*one, *buckets(task)))
    if "observed" in task.groups:
        add(OBSERVED, one, **_OBSERVED)
    strict = _OBSERVED | {"tau": task.strict}
    if {"strict", "shared"} & set(task.groups):
        add(STRICT, (*one, *random), **strict)
    if "scaling" in task.groups and set(task.methods) & _ANNOTATED:
        for target in task.targets:
            for source in task.sources:
                units = (*one, f"random:{task.bucket}")
                add(scaled(source, target), units, splits(source, target), **strict)
    return found


def annotate_data(base: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Runs the annotations that are missing, and tells ``base.task`` what came out. With
    ``report_only`` nothing runs, and what is not there stays unknown."""
    found = {}
    for name, options in needed(base.task).items():
        config, folder = _config(base, name, **options), workdir / "annotation" / name
        if not base.task.report_only:
            command.by_classifier(config, str(folder))
        file = folder / "report" / "results.json"
        if file.exists():
            found[name] = _told(config, folder, report.read(file))
    base.task.annotations = ml_collections.ConfigDict(found)


def results(workdir: pathlib.Path, name: str) -> dict[str, Any]:
    """All that an annotation reports, see ``experiments.annotate``; {} if it was not made."""
    file = workdir / "annotation" / name / "report" / "results.json"
    return report.read(file) if file.exists() else {}


def _config(base, name, changes, fields):
    config = annotate_config.get_config("rlds")
    config.name = name
    config.data = copy.deepcopy(base.data)
    for field, value in changes.items():
        *_, source, last = field.split(".")
        config.data.sources[source][last] = value
    # The table has built the data, and no policy of it takes sigma_max from here.
    config.task.update(dict(crops=(), analyses=()) | fields)
    config.task.update(base.task.annotate)
    return config


def _told(config, folder, results):
    sources = config.data.sources
    sizes = {
        name: len(rlds.open_dataset(pathlib.Path(expanded(config.data.root)) / s.path, s.split))
        for name, s in sources.items()
    }
    return {
        "bounds": str(folder / "bounds"),
        "sigma_min": results["sigma_min"]["source, dataset"]["mean"],
        "sigmas": tuple(results["levels"]),
        "divergences": tuple(results["total_variation"]["source"]["value"]),
        "n_clean": sizes["target"],
        "n_corrupt": sizes["source"],
    }
