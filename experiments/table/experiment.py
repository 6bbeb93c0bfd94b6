"""The functions of an experiment, and one run of its table."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections

from ambient_jax.policy.policy import Policy
from experiments.table import policies
from experiments.table.annotations import Annotations
from experiments.table.policies import Config, PolicyRow


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What an experiment supplies. The functions belong to modules, so that they can be pickled."""

    get_config: Callable[[], Config]  # makes the default config
    check: Callable[[Config], None]  # raises ValueError for a value that cannot work
    build: Callable[[Config], None]  # writes the data sets that are missing
    # policies(task, annotations): the rows of the table by name, in order.
    policies: Callable[[Config, Annotations], dict[str, PolicyRow]]
    # files(table, key, config): the files of a policy's rollouts, with what the rollouts depend on
    # besides the policy's parameters (JSON values).
    files: Callable[[Table, str, Config], dict[str, dict[str, Any]]]
    # simulator(policy, config) returns rollouts = simulate(params), for policies that differ in
    # their parameters only.
    simulator: Callable[[Policy, Config], Callable[[Any], Any]]
    rollouts: type  # a dataclass of arrays
    report: Callable[[Table], str]  # writes <workdir>/report/; returns the table as markdown
    # annotate(config, workdir) makes the annotations that the policies need.
    annotate: Callable[[Config, pathlib.Path], Annotations] | None = None
    confirm: Callable[[Table], None] | None = None  # measures more that the report needs
    # baselines(table) makes annotations with the policies that can be trained without them; the
    # policies that need them are trained afterwards. Called if ``task.groups`` has "baselines".
    baselines: Callable[[Table], Annotations] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """One run of an experiment's table, with a config that cannot be changed, a folder in
    ``workdir`` for each policy and seed and for the report, and annotations by name."""

    experiment: Experiment
    config: Config
    workdir: pathlib.Path
    annotations: Annotations = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "config", ml_collections.FrozenConfigDict(self.config))

    @functools.cached_property
    def rows(self) -> dict[str, PolicyRow]:
        """The policies by name, in the order of the table."""
        return self.experiment.policies(self.config.task, self.annotations)

    def folder(self, name: str, seed: int) -> pathlib.Path:
        """Returns the folder of a policy's checkpoints and rollouts."""
        return self.workdir / policies.key(name, seed)

    def config_of(self, name: str, seed: int) -> Config:
        """Returns the training config of a policy."""
        return policies.config_of(self.config, name, self.rows[name], seed)

    def files(self, key: str, config: Config) -> dict[pathlib.Path, dict[str, Any]]:
        """Returns the files of a policy's rollouts, and their dependencies besides parameters."""
        files = self.experiment.files(self, key, config)
        return {self.workdir / key / name: about for name, about in files.items()}
