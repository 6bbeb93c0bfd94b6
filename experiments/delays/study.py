"""Rolls out policies with each strategy at each delay, and reports success and jerk."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks
from ambient_jax.cli import report
from ambient_jax.policy import chunks
from ambient_jax.policy.inpainting import Inpainting
from ambient_jax.policy.policy import Policy
from ambient_jax.train import loading
from experiments import checks
from experiments.delays import config as config_lib
from experiments.delays import figures, metrics, rollouts
from experiments.delays.metrics import Summary
from experiments.delays.rollouts import Rollouts
from experiments.maze.env import free_goals
from experiments.planar_pushing.scene import Scene
from experiments.table import cache
from experiments.table.report import Claim, expected, gain, numbers, percent

WORLDS = ("pushing", "maze")
COLUMNS = (
    *("strategy", "delay", "success", "95%", "lost, points", "95%", "jerk^2 at borders", "95%"),
    *("jerk^2 inside", "borders / receding"),
)
Cell = tuple[str, int]  # strategy and delay


def run(
    config: ml_collections.ConfigDict, checkpoints: Sequence[str], workdir: pathlib.Path
) -> str:
    """Rolls out what is not in ``workdir`` yet, writes the report there and returns its table.

    Raises:
      ValueError: for a wrong config, or no checkpoint (nor rollouts, with ``report_only``).
    """
    cells = _cells(config)
    found: dict[Cell, dict[int, Rollouts]] = {}
    world = None
    for number, checkpoint in enumerate(checkpoints):
        at, step = loading.find(checkpoint)
        policy = Policy.from_checkpoint(at, **config.solver.to_dict())
        for (name, delay), strategy in cells.items():
            if _execute(config, strategy, delay) + delay > policy.horizon:
                continue  # the old chunk would end before the new one arrives
            label = f"{name}, delay {delay}"
            path = workdir / "rollouts" / f"{number}_{name}_{delay}.npz"
            about = _about(config, [at, step], strategy, delay)
            if not cache.is_current(path, about):
                if config.report_only:
                    logging.warning("%s is not there, or outdated: it is left out", path)
                    continue
                world = world or _world(config)
                made = _rollouts(config, policy, world, strategy, delay, label)
                path.parent.mkdir(parents=True, exist_ok=True)
                cache.save(path, about, dataclasses.asdict(made))
                logging.info("%s, %s: %.1f%%", checkpoint, label, 100 * made.success.mean())
            found.setdefault((name, delay), {})[number] = Rollouts(**cache.load(path))
    if not found:
        raise ValueError("there is nothing to report, expected --checkpoint=FOLDER,FOLDER of runs")
    found = {cell: found[cell] for cell in cells if cell in found}
    return _report(config, found, len(checkpoints), workdir / "report")


def _cells(config) -> dict[Cell, Mapping[str, Any]]:
    """Returns the options of each strategy and delay that can be combined."""
    for name in config_lib.get_config():
        if name not in config:
            raise ValueError(
                f"config.{name} is missing: this command takes configs of its own study, such as "
                "experiments/delays/config.py:debug"
            )
    _checks.one_of("config.world", config.world, WORLDS)
    _checks.number("config.episodes", config.episodes, 1, 1000, whole=True)
    for options in config.strategies.values():
        _checks.one_of("a strategy's kind", options.get("kind"), chunks.STRATEGIES)
    order = [*config_lib.STRATEGIES, *config_lib.METHODS]  # a config's own is alphabetical
    place = lambda name: order.index(name) if name in order else len(order)  # noqa: E731
    return {
        (name, delay): config.strategies[name].to_dict()
        for name in sorted(config.strategies, key=place)
        for delay in config.delays
    }


def _strategy(options: Mapping[str, Any]) -> tuple[chunks.Strategy, Inpainting]:
    fields = {k: v for k, v in options.items() if k not in ("kind", "execute", "inpainting")}
    return chunks.STRATEGIES[options["kind"]](**fields), Inpainting(**options.get("inpainting", {}))


def _execute(config, options, delay):
    """Returns steps between chunks: one is begun when the last has arrived."""
    return max(options.get("execute", config.execute), delay)


def _about(config, checkpoint, options, delay):
    names = ("world", "episodes", "eval_seed", "seed", "solver")
    strategy, how = _strategy(options)
    return report.plain(
        {
            **{name: config.to_dict()[name] for name in names},
            "checkpoint": checkpoint,
            "strategy": [type(strategy).__name__, dataclasses.asdict(strategy)],
            "inpainting": how if isinstance(strategy, chunks.RealTime) else None,
            "steps": [_execute(config, options, delay), delay],
        }
    )


def _world(config) -> rollouts.World:
    if config.world == "maze":
        rng = np.random.default_rng(config.eval_seed)
        return rollouts.Maze(free_goals(rng, config.episodes))
    return rollouts.Pushing(checks.evaluation_seeds(config), Scene())


def _rollouts(config, policy, world, options, delay, label):
    strategy, how = _strategy(options)
    policy = dataclasses.replace(policy, inpainting=how)
    steps = dict(execute=_execute(config, options, delay), delay=delay)
    return rollouts.run(policy, world, strategy, **steps, seed=config.seed, label=label)


def _pool(parts: Sequence[Rollouts]) -> Rollouts:
    """Returns the episodes of all checkpoints; shorter ones are filled up."""
    steps = max(part.actions.shape[1] for part in parts)

    def filled(array):
        return np.pad(array, [(0, 0), (0, steps - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])

    values = {
        field.name: [getattr(part, field.name) for part in parts]
        for field in dataclasses.fields(Rollouts)
    }
    for name in ("actions", "arrived"):
        values[name] = [filled(array) for array in values[name]]
    return Rollouts(**{name: np.concatenate(arrays) for name, arrays in values.items()})


def _report(config, found, policies: int, folder: pathlib.Path) -> str:
    """Writes the report of {cell: {number of the checkpoint: rollouts}}; returns its table."""
    summaries: dict[Cell, Summary] = {
        cell: metrics.summarise(_pool(list(parts.values()))) for cell, parts in found.items()
    }
    first = min(config.delays)
    lines, lost = [], {}
    for (name, delay), summary in summaries.items():
        plain = summaries.get(("receding", delay))
        loss = lost[name, delay] = gain(found, ("receding", first), (name, delay))
        lines.append(
            [
                *(name.replace("_", " "), str(delay), *percent(summary.success)),
                *([f"{100 * loss.value:.1f}", _span(loss)] if loss else ["", ""]),
                *numbers(summary.border),
                f"{summary.inside.value:.4g}" if summary.inside.count else "",
                f"{summary.border.value / plain.border.value:.2f}" if plain else "",
            ]
        )
    claims = _claims(config, summaries, lost)
    caption = f"{_caption(config, policies, first)}\n\n{expected(claims)}".rstrip()
    results = {"cells": _named(summaries), "lost": _named(lost), "config": config.to_dict()}
    results["claims"] = [claim._asdict() for claim in claims]
    text = report.write(folder, COLUMNS, lines, caption, results)
    if len(config.delays) > 1:
        figure = figures.against_delay(summaries, config.execute)
        figure.savefig(folder / "delays.png", dpi=160)
    return text


def _claims(config, summaries, lost) -> list[Claim]:
    """Returns what real-time chunking is expected to show at each delay."""
    claims = []
    for delay in filter(None, config.delays):
        ours, plain = (summaries.get((name, delay)) for name in ("real_time", "receding"))
        loss = lost.get(("real_time", delay))
        if not (ours and plain and loss):
            continue
        small = loss.high <= 0.02 or (None if loss.low <= 0.02 else False)
        measured = f"{100 * loss.value:.1f} points [{_span(loss)}]"
        claims.append(Claim(f"delay {delay}: real time loses at most 2 points", measured, small))
        others = [n for n in ("receding", "unaligned") if lost.get((n, delay))]
        for name in others:
            more = f"{100 * lost[name, delay].value:.1f} points [{_span(lost[name, delay])}]"
            holds = _more(lost[name, delay], loss)
            claims.append(Claim(f"delay {delay}: {name} loses more", more, holds))
        ratio = ours.border.value / plain.border.value
        half = ours.border.high <= plain.border.low / 2 or (None if ratio <= 0.5 else False)
        claims.append(Claim(f"delay {delay}: it halves jerk at borders", f"{ratio:.2f}", half))
    return claims


def _more(one, other):
    return one.low > other.high or (False if one.high < other.low else None)


def _named(cells):
    return {f"{name}, delay {delay}": value for (name, delay), value in cells.items()}


def _span(estimate):
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _caption(config, policies, first):
    return (
        f"{config.episodes} starts, policies of {config.world}: {policies}; chunks of which "
        f"{config.execute} actions are executed (ensemble and 'soon': one is begun as soon as the "
        "last has arrived, at least two steps later). The delay is in control steps of 0.1 s. "
        f"Lost: success of receding horizon at delay {first} less that of the row, mean over "
        "policies by start, bootstrap interval over starts. Jerk^2 [m^2/s^6] is that of the "
        "executed actions, where their third difference spans the beginning of a chunk, and inside "
        "chunks."
    )
