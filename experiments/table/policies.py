"""The policies of a table: one base config, and each policy's changes of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config
from ambient_jax.train import sweep

Config = ml_collections.ConfigDict
Program = dict[str, Config]  # configs that one program trains, by ``key``


class PolicyRow(NamedTuple):
    """One policy of a table: its label, its group, and the config fields that it changes.

    ``changes`` names all fields of the law that differ from the law's own defaults; it is None
    where the policy needs an annotation that has not been made.
    """

    label: str
    group: str
    changes: dict[str, Any] | None


def of_groups(
    rows: Mapping[str, PolicyRow], task: Config, groups: Sequence[str]
) -> dict[str, PolicyRow]:
    """Returns the trainable policies of the ``rows`` that ``task.groups`` names, or whose group it
    names.

    ValueError for a name in ``task.groups`` or ``task.one_seed`` that is of no group and no policy.
    """
    for field in ("groups", "one_seed"):
        for name in task[field]:
            _checks.one_of(f"config.task.{field}", name, (*groups, *rows))
    return {
        name: row
        for name, row in rows.items()
        if {name, row.group} & set(task.groups) and row.changes is not None
    }


def config_of(base: Config, name: str, row: PolicyRow, seed: int) -> Config:
    """Returns a policy's training config: a copy of the base with its changes and seed."""
    assert row.changes is not None
    config = ml_collections.ConfigDict(base.to_dict())
    config.name, config.seed, config.law = name, seed, ml_collections.ConfigDict()
    for field, value in row.changes.items():
        *parents, last = field.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[last] = value
    train_config.check(config)
    return config


def key(name: str, seed: int) -> str:
    """Returns a policy's folder below the workdir: one for each policy and seed."""
    return f"{name}/seed_{seed}"


def is_alone(config: Config) -> bool:
    """Whether a policy is trained by itself: bounds of each step are no array of a sweep, and data
    that are streamed are read by one run."""
    return config.data.placement == "stream" or any(
        source.get("bounds") for source in config.data.sources.values()
    )


def programs(base: Config, rows: Mapping[str, PolicyRow], together: int) -> list[Program]:
    """Returns all policies of all seeds, as groups that one program trains (at most ``together``).

    They are ordered by ``task.groups`` and seed: an interrupted table has what matters most.
    Policies and groups in ``task.one_seed`` are trained with the first seed only.
    """
    shared_by: list[tuple[dict, Program]] = []
    for index, seed in enumerate(base.task.seeds):
        for name, row in rows.items():
            if index and {name, row.group} & set(base.task.one_seed):
                continue
            config = config_of(base, name, row, seed)
            shared = sweep.program(config)
            for fields, configs in shared_by:
                if fields == shared and len(configs) < together and not is_alone(config):
                    configs[key(name, seed)] = config
                    break
            else:
                shared_by.append((shared, {key(name, seed): config}))
    groups = base.task.groups
    place = {
        name: min(i for i, listed in enumerate(groups) if listed in (name, row.group))
        for name, row in rows.items()
    }
    first = lambda configs: min(place[name.split("/")[0]] for name in configs)  # noqa: E731
    return sorted((configs for _, configs in shared_by), key=first)
