"""Makes bounds by classifiers, without rollouts or a sweep.

An annotation has numbers of demonstrations, a classifier of actions or one that also sees the
observation, and a tau. It runs once, in ``<workdir>/annotation/<name>``.
"""

import pathlib
from typing import Any

import ml_collections

from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from experiments.annotate import config as annotate_config
from experiments.table import annotations
from experiments.table.annotations import Annotation

TABLE, OBSERVED, STRICT = NAMES = ("table", "observed", "strict")
# Ways of filling buckets, and their descriptions.
WAYS = {
    "random": "{} random chunks",
    "random_episode": "{} chunks of random episodes",
    "ordered": "{} chunks in order of sigma_min",
}
# Methods of the group scaling that need an annotation.
_ANNOTATED = {"dataset", "datapoint", "random", "random_alpha", "ben_david"}
# Without blur a network memorises few target demonstrations.
_OBSERVED = dict(observed=True, encoder=(0, 64, 1), blur=0.3, learning_rate=1e-3, patience=4)


def scaled(source: int, target: int) -> str:
    """Returns the name of the annotation of these numbers of demonstrations."""
    return f"source_{source}_target_{target}"


def about(task: ml_collections.ConfigDict, name: str) -> str:
    """Describes the classifier of an annotation."""
    if name == TABLE:
        return "classifier"
    return "observing classifier" + ("" if name == OBSERVED else f", tau {task.strict:g}")


def split(count: int) -> str:
    """Returns the split of the first ``count`` demonstrations of a data set."""
    return f"train[:{count}]"


def splits(source: int, target: int) -> dict[str, str]:
    """Returns config fields of a policy with these numbers of demonstrations."""
    counts = {"source": source, "target": target}
    return {f"data.sources.{name}.split": split(count) for name, count in counts.items()}


def words(granularity: str) -> str:
    """Describes a granularity: "random_100" or "random:100" is "100 random chunks"."""
    way, _, size = granularity.replace(":", "_").rpartition("_")
    return WAYS[way].format(size) if way else granularity.replace("dataset", "data set")


def needed(task: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """Returns "fields" of configs, and "splits", of annotations that the groups need, by name.

    Of single policies in ``task.groups`` only those with the bounds of TABLE get an annotation.
    """
    simple = ("dataset", "datapoint")
    random = tuple(f"random:{size}" for size in task.buckets)
    all_sizes = [f"{way}:{n}" for n in (*task.buckets, *task.more_buckets) for way in WAYS]
    strict, groups = _OBSERVED | {"tau": task.strict}, set(task.groups)
    single = {name.partition("_alpha_")[0] for name in groups}
    bounded = {granularity.replace(":", "_") for granularity in (*simple, *all_sizes)}
    needs = {}
    if {"chosen", "buckets", "shared", "soft"} & groups or bounded & single:
        needs[TABLE] = dict(fields={"granularity": (*simple, *all_sizes)})
    if "observed" in groups:
        needs[OBSERVED] = dict(fields={"granularity": simple, **_OBSERVED})
    if {"strict", "shared"} & groups:
        needs[STRICT] = dict(fields={"granularity": (*simple, *random), **strict})
    if "scaling" in groups and set(task.methods) & _ANNOTATED:
        fields = {"granularity": (*simple, f"random:{task.bucket}"), **strict}
        for target in task.targets:
            for source in task.sources:
                options = dict(fields=fields, splits={"source": source, "target": target})
                needs[scaled(source, target)] = options
    return needs


def annotate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Annotation]:
    """Returns the annotations that the groups need; makes absent ones, except in report_only."""
    annotated = {}
    for name, needs in needed(config.task).items():
        options = annotate_config.get_config("rlds")
        options.name, options.data = name, ml_collections.ConfigDict(config.data.to_dict())
        for source, count in needs.get("splits", {}).items():
            options.data.sources[source].split = split(count)
        # The table has built the data, and its policies do not use sigma_max of annotations.
        options.task.update(dict(crops=(), analyses=()) | needs["fields"])
        options.task.update(config.task.annotate)
        root = pathlib.Path(expanded(options.data.root))
        sources = (options.data.sources[source] for source in ("target", "source"))
        sizes = [len(rlds.open_dataset(root / s.path, s.split)) for s in sources]
        folder, only = workdir / "annotation" / name, config.task.report_only
        if annotation := annotations.run(options, folder, "source", sizes, report_only=only):
            annotated[name] = annotation
    return annotated
