"""The policies of a table: one base config, and what each changes of it."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from ambient_jax import _checks
from ambient_jax.train import config as train_config
from ambient_jax.train import metrics, sweep

Program = dict[str, ml_collections.ConfigDict]
# ``files(key, config, base, workdir)``, the files of a policy's rollouts and what each hangs on.
Files = Callable[
    [str, ml_collections.ConfigDict, ml_collections.ConfigDict, pathlib.Path],
    dict[pathlib.Path, dict[str, Any]],
]


class Entry(NamedTuple):
    """One policy of a table: its label, its group, and the config fields that it changes.

    The fields of its law are all of them: what it does not name has the law's own default.
    """

    label: str
    group: str
    changes: dict[str, Any]


class Table(NamedTuple):
    """An experiment as the workers see it; the functions are of a module, as processes share them.

    Attributes:
      entries: ``entries(config.task)``, the policies by name in the order of the table.
      files: of each policy's rollouts, see ``saved``.
      evaluate: ``evaluate(program, base, workdir)``, of trained policies of one program.
    """

    entries: Callable[[ml_collections.ConfigDict], dict[str, Entry]]
    files: Files
    evaluate: Callable[[Program, ml_collections.ConfigDict, pathlib.Path], None]


def of_groups(
    found: Mapping[str, Entry], task: ml_collections.ConfigDict, groups: tuple[str, ...]
) -> dict[str, Entry]:
    """The policies of ``task.groups``.

    Args:
      found: the policies of all groups.
      task: the config's section.
      groups: names of all groups.

    Raises:
      ValueError: an unknown group, or an unknown group or policy in ``task.one_seed``.
    """
    for group in task.groups:
        _checks.one_of("config.task.groups", group, groups)
    for name in task.one_seed:
        _checks.one_of("config.task.one_seed", name, (*groups, *found))
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
    base: ml_collections.ConfigDict, named: Mapping[str, Entry], together: int
) -> list[Program]:
    """All policies of all seeds, as lists of those that one program trains (at most ``together``).

    In the order of ``task.groups`` and then of the seeds, so that a table that was interrupted has
    what matters most.

    Args:
      base: of the table; of ``task.one_seed``, policies and groups, only the first seed is made.
      named: the entries by name.
      together: most policies of a program.
    """
    found: list[tuple[dict, Program]] = []
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


def core_seconds(base: ml_collections.ConfigDict, workdir: pathlib.Path, name: str) -> float:
    """Core seconds that a policy's training took, its share of the programs it was part of."""
    total = 0.0
    for seed in base.task.seeds:
        path, last = workdir / key(name, seed) / "timing.jsonl", 0
        rows = metrics.read(path, ("step", "steps_per_second"))
        for row in rows:
            share = row.get("policies", 1)
            total += (row["step"] - last) / row["steps_per_second"] / share
            last = row["step"]
    return total
