"""The report of a table: rows, claims, caption and ``results.json``."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from absl import logging

from ambient_jax.cli import report
from ambient_jax.data.paths import expanded
from ambient_jax.estimates import Estimate, paired
from ambient_jax.policy.policy import Policy
from ambient_jax.train import metrics
from experiments.table import rollouts
from experiments.table.experiment import Table
from experiments.table.policies import Config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What ``results.json`` holds of an annotation.
_ANNOTATION = ("sigma_min", "levels", "curves", "total_variation", "classifier")
# Of captions whose claims have no paired gains.
BY_MEANS = (
    "Verdicts compare means and not their intervals, unless they say so; docs/talks.md has orders "
    "with intervals."
)
_HOLDS = {True: "yes", False: "**no**", None: "undecided"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A policy's metrics, over all its seeds and of each seed."""

    label: str
    summary: Any
    seeds: dict[int, Any]


class Claim(NamedTuple):
    """What a table is expected to show; ``holds`` is None where intervals leave it open, if the
    table compares by intervals (``BY_MEANS``)."""

    claim: str
    measured: str
    holds: bool | None


def row(label: str, by_seed: Mapping[int, Any], summarise: Callable[[Any], Any]) -> Row:
    """Returns the row of the rollouts of each seed; ``summarise(rollouts)`` gives their metrics."""
    seeds = {seed: summarise(rollouts) for seed, rollouts in by_seed.items()}
    return Row(label, summarise(rollouts.pool(by_seed.values())), seeds)


def best_of(
    names: Iterable[str],
    rows: Mapping[str, Row],
    value: Callable[[Any], Any] = lambda summary: summary.success.value,
) -> str:
    """Returns the policy with the largest ``value(summary)`` of those with the most seeds; "" if
    none is evaluated."""
    order = lambda name: (len(rows[name].seeds), value(rows[name].summary))  # noqa: E731
    return max((name for name in names if name in rows), key=order, default="")


def gain(
    collected: Mapping[Any, Mapping[int, Any]],
    name: Any,
    base: Any,
    value: Callable[[Any], np.ndarray] = lambda rollouts: rollouts.success,
) -> Estimate | None:
    """Returns by how much ``value(rollouts)`` [N] of a policy is above that of the base.

    Differences by start, of means over the seeds that both have, with a bootstrap interval over
    starts; None if they share no seed. ``collected`` has rollouts by policy and training seed.
    """
    seeds = sorted(collected.get(name, {}).keys() & collected.get(base, {}).keys())
    if not seeds:
        return None
    means = [np.mean([value(collected[n][seed]) for seed in seeds], 0) for n in (name, base)]
    return paired(*means)


def percent(estimate: Estimate, digits: int = 1) -> list[str]:
    """Returns cells of a rate and its interval."""
    value, low, high = (f"{100 * v:.{digits}f}" for v in _ends(estimate))
    return [f"{value}%", f"{low} to {high}"]


def numbers(estimate: Estimate) -> list[str]:
    """Returns cells of a number and its interval."""
    value, low, high = (f"{v:.4g}" for v in _ends(estimate))
    return [value, f"{low} to {high}"]


def of_each_seed(row: Row, field: str) -> str:
    """Returns the cell of a rate of each seed, in percent."""
    return ", ".join(f"{100 * getattr(s, field).value:.1f}" for s in row.seeds.values())


def _ends(estimate):
    return estimate.value, estimate.low, estimate.high


def expected(claims: Sequence[Claim]) -> str:
    """Returns the table of claims; "" if there are none."""
    if not claims:
        return ""
    lines = [(claim, measured, _HOLDS[holds]) for claim, measured, holds in claims]
    return report.markdown(("expected", "measured", "holds"), lines)


def core_seconds(table: Table, name: str) -> float:
    """Returns core seconds of a policy's training: its share of the programs that trained it."""
    total = 0.0
    for seed in table.config.task.seeds:
        last = 0
        path = table.folder(name, seed) / "timing.jsonl"
        for line in metrics.read(path, ("step", "steps_per_second")):
            share = line.get("policies", 1)
            total += (line["step"] - last) / line["steps_per_second"] / share
            last = line["step"]
    return total


def training_took(seconds: Mapping[str, float]) -> str:
    """Returns the caption's sentence on core seconds of each policy."""
    hours = sum(seconds.values()) / 3600
    return f"Training took {hours:.1f} core hours, rollouts not counted."


def write(
    table: Table,
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    caption: Iterable[str],
    rows: Mapping[str, Row],
    claims: Sequence[Claim],
    results: Mapping[str, Any],
) -> str:
    """Writes ``table.md`` and ``results.json`` into ``<workdir>/report``; returns the table.

    The table has ``columns`` and ``lines``, and below it the paragraphs of the ``caption`` that are
    not empty. ``results.json`` holds ``rows``, ``claims``, ``results`` and the config.
    """
    content = {
        "policies": rows,
        "claims": [claim._asdict() for claim in claims],
        "annotations": {
            name: {field: annotation.results[field] for field in _ANNOTATION}
            for name, annotation in table.annotations.items()
            if annotation.results  # bounds that no classifier made have none
        },
        **results,
        "config": table.config.to_dict(),
    }
    text = "\n\n".join(filter(None, caption))
    return report.write(table.workdir / "report", columns, lines, text, content)


class Description(NamedTuple):
    """The report of one policy: the table, its caption and figures by file name."""

    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str
    figures: Mapping[str, Figure]


def of_one_policy(
    config: Config,
    workdir: str | os.PathLike[str],
    simulator: Callable[[Policy, Config], Callable[[Any], Any]],
    summarise: Callable[[Any], Any],
    describe: Callable[[str, Any, Any], Description],
) -> None:
    """Rolls out the workdir's policy and writes table, JSON and figures to ``report/``.

    ``config`` is that of its training, ``simulator`` as in ``Experiment``; ``summarise(rollouts)``
    gives metrics, ``describe(label, rollouts, metrics)`` the report.
    """
    if jax.process_index() != 0:
        return
    folder = pathlib.Path(expanded(workdir))
    options = {name: config.policy[name] for name in ("solver", "steps", "clip")}
    policy = Policy.from_checkpoint(folder, **options)
    begin = time.perf_counter()
    simulated = simulator(policy, config)(policy.params)
    logging.info("%d rollouts in %.1f s", len(simulated.lengths), time.perf_counter() - begin)
    label = f"{config.law.name}, {config.policy.solver} {config.policy.steps} steps"
    summary = summarise(simulated)
    columns, lines, caption, figures = describe(label, simulated, summary)
    results = {"policy": label, "summary": summary, "config": config.to_dict()}
    table = report.write(folder / "report", columns, lines, caption, results)
    loss = report.loss_figure(metrics.read(folder / "metrics.jsonl"))
    for name, figure in {**figures, "loss": loss}.items():
        figure.savefig(folder / "report" / f"{name}.png", dpi=160)
    print(table)
