"""Rollouts of a table's trained policies, each from the same starts."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax.cli import report
from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.table import cache, policies
from experiments.table.experiment import Table
from experiments.table.policies import Config, Program


def simulated(table: Table, key: str, config: Config) -> dict[str, dict[str, Any]]:
    """Returns ``Experiment.files`` of a simulator: ``rollouts.npz``."""
    base = table.config
    about = {
        "steps": config.train.steps,
        "solver": [base.policy[name] for name in ("solver", "steps", "clip", "execute")],
        "starts": [base.task.episodes, base.task.eval_seed],
        "scene": report.plain(base.task.scene.to_dict()),
    }
    return {"rollouts.npz": about}


def plan(policy: Policy, execute: int) -> Callable:
    """Returns ``plan(params, observation, keys)``: the first ``execute`` actions of each chunk, of
    policies that differ from this one in their parameters only."""
    return lambda params, observation, keys: policy.chunk(params, observation, keys)[:, :execute]


def from_seeds(
    simulator: Callable[..., Any],
    policy: Policy,
    config: Config,
    scene: Any,
    constant: Mapping[str, np.ndarray],
) -> Callable[[Any], Any]:
    """Returns ``Experiment.simulator`` of a tabletop: a rollout per evaluation seed.

    ``constant`` are observations beside the state, of which the policy gets those that it sees.
    """
    actions = plan(policy, config.policy.execute)
    simulate = simulator(actions, history=policy.history, scene=scene)
    condition = {name: value for name, value in constant.items() if name in policy.dims}
    options = dict(constant=condition, seed=config.task.eval_seed)
    return lambda params: simulate(params, checks.evaluation_seeds(config.task), **options)


def evaluate(table: Table, program: Program) -> None:
    """Writes current rollouts of each policy of one program to its folder."""
    simulators: dict[str, Any] = {}
    for key, config in program.items():
        for path, about in table.files(key, config).items():
            if cache.is_current(path, about):
                continue
            solver = dict(zip(("solver", "steps", "clip"), about["solver"], strict=False))
            policy = Policy.from_checkpoint(table.workdir / key, **solver)
            # Policies of one program differ in parameters only: they share what is compiled.
            if path.name not in simulators:
                base = ml_collections.ConfigDict(table.config.to_dict())
                base.policy.execute = about.get("execute", base.policy.execute)
                simulators[path.name] = table.experiment.simulator(policy, base)
            rollouts = simulators[path.name](policy.params)
            cache.save(path, about, dataclasses.asdict(rollouts))


def current(
    table: Table, names: Iterable[str] | None = None
) -> list[tuple[str, int, pathlib.Path, dict[str, Any]]]:
    """Yields (policy, seed, file, dependencies) of current rollouts; None: of all policies.

    Rollouts that are there and not current are left out, with a warning.
    """
    up_to_date, outdated = [], []
    for name in table.rows if names is None else names:
        for seed in table.config.task.seeds:
            files = table.files(policies.key(name, seed), table.config_of(name, seed))
            for path, about in files.items():
                if not path.exists():
                    continue
                if reason := cache.outdated(path, about):
                    outdated.append(reason)
                else:
                    up_to_date.append((name, seed, path, about))
    if outdated:
        logging.warning(
            "left out %d rollouts (%s): the same command without --config.task.report_only makes "
            "them anew",
            *(len(outdated), cache.tally(outdated)),
        )
    return up_to_date


def collect(table: Table, names: Iterable[str] | None = None) -> dict[str, dict[int, Any]]:
    """Returns the current rollouts, {policy: {seed: rollouts}}, see ``current``."""
    by_policy: dict[str, dict[int, Any]] = {}
    for name, seed, path, _ in current(table, names):
        by_policy.setdefault(name, {})[seed] = table.experiment.rollouts(**cache.load(path))
    return by_policy


def pool(rollouts: Iterable[Any]) -> Any:
    """Joins rollouts of several policies; paths [N, T, ...] repeat their end to the longest."""
    rollouts = list(rollouts)

    def join(name):
        arrays = [getattr(r, name) for r in rollouts]
        longest = max(array.shape[1] for array in arrays) if arrays[0].ndim > 2 else 0
        pad = lambda a: [(0, 0), (0, longest - a.shape[1])] + [(0, 0)] * (a.ndim - 2)  # noqa: E731
        return np.concatenate([np.pad(a, pad(a), "edge") if longest else a for a in arrays])

    fields = dataclasses.fields(rollouts[0])
    return type(rollouts[0])(**{field.name: join(field.name) for field in fields})


def kept_measures(
    table: Table,
    names: Iterable[str],
    seeds: Iterable[int],
    about: Mapping[str, Any],
    measure: Callable[[Policy, Policy], Mapping[str, np.ndarray]],
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Returns the arrays of ``measure`` for each complete policy, an item per trained seed.

    Each policy is measured once; the arrays are kept in its folder as ``held_out.npz``.

    The arrays depend on ``about`` and the policy. In ``measure(policy, like)``, ``like`` differs
    from the policy in its parameters only: policies that have the same share what is compiled.
    """
    measured: dict[str, list[dict[str, np.ndarray]]] = {}
    like: dict[str, Policy] = {}

    def make(folder):
        policy = Policy.from_checkpoint(folder)
        key = f"{policy.model!r} {policy.dims} {policy.chain.to_json()}"
        one = like.setdefault(key, policy)
        return measure(policy, one)

    steps = table.config.train.steps
    for name in names:
        for seed in seeds:
            folder = table.folder(name, seed)
            if cache.step(folder) == steps:
                path = folder / "held_out.npz"
                arrays = cache.kept(path, {"steps": steps, **about}, lambda: make(folder))  # noqa: B023
                measured.setdefault(name, []).append(arrays)
    return measured


def held_out_losses(
    table: Table, dataset: str, names: Iterable[str], seeds: Iterable[int], **options: Any
) -> dict[str, np.ndarray]:
    """Returns losses of x0_hat [S, L] of the trained seeds of each policy, by level.

    Mean squared error per number in normalised units, on chunks of held-out demonstrations with the
    same noise for all policies. {} where no demonstration was held out.

    Args:
      table: whose policies they are.
      dataset: of the held-out demonstrations, below data.root.
      names, seeds: of the policies.
      options: of ``evaluation.recorded``.
    """
    data, names = table.config.data, list(names)
    if not table.config.task.held_out or not names:
        return {}
    held_out = rlds.open_dataset(pathlib.Path(expanded(data.root)) / dataset)

    @functools.cache
    def chunks(like):
        fields = dict(observation=tuple(like.dims), action=data.action, delta=data.delta or ())
        source = RldsSource(held_out, **fields)
        return evaluation.recorded(source, like, padding=data.padding, **options)[:3]

    def measure(policy, like):
        return {"loss": evaluation.denoising_loss(like, *chunks(like), params=policy.params)}

    about = {"data": held_out.fingerprint, **options}
    measured = kept_measures(table, names, seeds, about, measure)
    return {name: np.stack([item["loss"] for item in items]) for name, items in measured.items()}
