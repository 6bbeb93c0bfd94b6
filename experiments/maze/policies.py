"""The policies of the table: one base config, and what each changes of it."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config
from ambient_jax.train import sweep
from experiments.maze import chosen


class Entry(NamedTuple):
    """One policy of the table: its label, its group, and the config fields that it changes."""

    label: str
    group: str
    changes: dict[str, Any]


GROUPS = ("main", "sweep", "chosen", "alpha", "variants", "few", "shortcut")
_WEIGHT = "data.sources.gcs.weight"
_SIGMA_MIN = "data.sources.rrt.sigma_min"


def entries(task: ml_collections.ConfigDict) -> dict[str, Entry]:
    """The policies of the configured groups by name, in the order of the table.

    Raises:
      ValueError: for an unknown group.
    """
    for group in task.groups:
        _checks.one_of("config.task.groups", group, GROUPS)
    best = task.best
    few = {"data.sources.gcs.split": f"train[:{task.few}]"}
    shortcut = {"data.sources.rrt.path": "maze_shortcut"}
    hard = {"law.name": "ambient"}
    found = {
        "gcs": Entry("GCS only", "main", {"law.name": "filtering"}),
        "rrt": Entry("RRT only", "main", {"law.name": "cotraining", _WEIGHT: 0.0}),
        "cotrain": Entry("co-training, natural", "main", {"law.name": "cotraining"}),
        f"ambient_{best}": Entry(f"ambient, sigma_min {best}", "main", hard | {_SIGMA_MIN: best}),
    }
    for level in task.sigma_min:
        name = f"ambient_{level}"
        entry = Entry(f"ambient, sigma_min {level}", "sweep", hard | {_SIGMA_MIN: level})
        found.setdefault(name, entry)
    units = {"dataset": "data set", "random": "random bucket", "datapoint": "datapoint"}
    for granularity in chosen.GRANULARITIES:
        file = {"data.sources.rrt.bounds": f"{task.bounds}/{granularity}.parquet"}
        label = f"ambient, sigma_min by classifier per {units[granularity]}"
        found[f"chosen_{granularity}"] = Entry(label, "chosen", hard | file)
    divergence = {f"law.{field}": value for field, value in task.ben_david.items()}
    soft = {"law.name": "ben_david"} | divergence
    found["soft_ben_david"] = Entry("soft ambient, Ben-David's alpha", "chosen", soft)
    for alpha in task.alpha:
        law = {"law.name": "reweighted", "law.alpha": alpha}
        found[f"alpha_{alpha}"] = Entry(f"co-training, alpha {alpha}", "alpha", law)
    exclusive = {"law.name": "exclusive", _SIGMA_MIN: best}
    found["exclusive"] = Entry(f"exclusive bands, sigma_min {best}", "variants", exclusive)
    found["soft"] = Entry("soft ambient, linear alpha", "variants", {"law.name": "soft"})
    for target in ("x0", "eps"):
        loss = {"objective.loss": "ambient", "objective.prediction": target, _SIGMA_MIN: best}
        label = f"ambient loss of {target}, sigma_min {best}"
        found[f"loss_{target}"] = Entry(label, "variants", hard | loss)
    for name in ("gcs", "cotrain", f"ambient_{best}"):
        entry = found[name]
        label = f"{entry.label}, {task.few} GCS plans"
        found[f"{name}_few"] = Entry(label, "few", entry.changes | few)
    for name in ("cotrain", f"ambient_{best}"):
        entry = found[name]
        label = f"{entry.label}, shortcut RRT"
        found[f"{name}_shortcut"] = Entry(label, "shortcut", entry.changes | shortcut)
    return {name: entry for name, entry in found.items() if entry.group in task.groups}


def config_of(
    base: ml_collections.ConfigDict, name: str, entry: Entry, seed: int
) -> ml_collections.ConfigDict:
    """The training config of a policy: the base with the entry's changes and the seed."""
    config = copy.deepcopy(base)
    config.name, config.seed = name, seed
    law = {n.removeprefix("law."): v for n, v in entry.changes.items() if n.startswith("law.")}
    config.law = ml_collections.ConfigDict(law)
    for field, value in entry.changes.items():
        if not field.startswith("law."):
            *parents, last = field.split(".")
            section = config
            for parent in parents:
                section = section[parent]
            section[last] = value
    train_config.check(config)
    return config


def key(name: str, seed: int) -> str:
    """Where a policy lies below the workdir: one folder for each policy and seed."""
    return f"{name}/seed_{seed}"


def is_alone(config: ml_collections.ConfigDict) -> bool:
    """Whether a policy is trained by itself: bounds of each step are no array of a sweep."""
    return any(source.get("bounds") for source in config.data.sources.values())


def programs(
    base: ml_collections.ConfigDict, together: int
) -> list[dict[str, ml_collections.ConfigDict]]:
    """All policies of all seeds, as lists of those that one program trains (at most ``together``).

    In the order of ``task.groups`` and then of the seeds, so that a table that was interrupted has
    what matters most.
    """
    named = entries(base.task)
    found: list[tuple[dict, dict]] = []
    for index, seed in enumerate(base.task.seeds):
        for name, entry in named.items():
            if index and {name, entry.group} & set(base.task.one_seed):
                continue
            config = config_of(base, name, entry, seed)
            program = sweep.program(config)
            for other, configs in found:
                if other == program and len(configs) < together and not is_alone(config):
                    configs[key(name, seed)] = config
                    break
            else:
                found.append((program, {key(name, seed): config}))
    first = lambda configs: min(  # noqa: E731
        base.task.groups.index(named[name.split("/")[0]].group) for name in configs
    )
    return sorted((configs for _, configs in found), key=first)
