"""The report of the table: rows, caption, figures, ``results.json``."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.data import chunk, rlds
from ambient_jax.data.paths import expanded
from ambient_jax.evaluate import evaluation
from experiments.maze import claims, data, metrics, table_figures, task
from experiments.maze.rollout import Rollouts
from experiments.table import cache, report
from experiments.table import rollouts as table_rollouts
from experiments.table.experiment import Table
from experiments.table.report import Row

COLUMNS = (
    *("policy", "seeds", "success", "95% interval", "of each seed", "jerk^2", "95% interval"),
    *("accel^2", "time (s)", "collided", "timed out", "talk", "paper"),
)
# As printed in the talk (success / mean jerk^2, 100 trials, 100 GCS plans) and in the paper
# (success / mean accel^2, 1000 trials, 50 GCS plans): Wei 2025; arXiv 2606.12365, section 5.1.
# The talk's and the paper's best sigma_min and alpha stand for ours.
TALK = {"gcs": "50% / 7.5k", "rrt": "100% / 17k", "cotrain": "91% / 14.5k", "best": "98% / 5.5k"}
PAPER = {
    "gcs": "57.5% / 31.9",
    "cotrain": "99.4% / 62.2 (alpha 0.019)",
    "best": "99.5% / 31.0 (sigma_min 0.074)",
    "exclusive": "99.0% / 29.9",
}


def files(table: Table, key: str, config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """Returns the files of a policy's rollouts: with the config's solver and, for policies of the
    group main and of the first seed, with ``task.solvers``. See ``Experiment``."""
    base, (name, seed) = table.config, key.split("/")
    is_main = table.rows[name].group == "main" and seed == f"seed_{base.task.seeds[0]}"
    main = (base.policy.solver, base.policy.steps)
    return {
        f"rollouts_{solver}_{steps}.npz": {
            "steps": config.train.steps,
            "solver": [solver, steps, config.policy.clip],
            "execute": config.policy.execute,
            "goals": [base.task.goals, base.task.eval_seed],
        }
        for solver, steps in (main, *(base.task.solvers if is_main else ()))
    }


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the table as markdown."""
    config = table.config
    main, rollouts = f"{config.policy.solver} {config.policy.steps}", collect(table)
    rows: dict[str, Row] = {}
    more: dict[str, Row] = {}
    for name, by_solver in rollouts.items():
        for solver, by_seed in by_solver.items():
            group, suffix = (rows, "") if solver == main else (more, f", {solver}")
            label = table.rows[name].label + suffix
            group[name + suffix] = report.row(label, by_seed, metrics.summarise)
    names = ("gcs", "rrt", *(("shortcut",) if config.task.shortcut else ()))
    sources = task.positions(config, {name: f"maze_{name}" for name in names})
    jerk = {name: metrics.mean_squared_jerk(paths) for name, paths in sources.items()}
    best = claims.best_of_sweep(config.task, rows)
    losses = held_out_losses(table)
    results = {
        "other solvers": more,
        "data": {"mean squared jerk": jerk},
        "best sigma_min": best,
        "loss per noise level": losses,
        "training core seconds": {name: report.core_seconds(table, name) for name in rows},
    }
    checked = claims.check(config.task, rows, jerk["rrt"].value)
    lines = [*cells(rows, best), *cells(more)]
    lines += [data_cells(f"data: {name}", paths) for name, paths in sources.items()]
    parts = [caption(config, results["training core seconds"]), report.expected(checked)]
    text = report.write(table, COLUMNS, lines, parts, rows, checked, results)
    first = {name: s[main][min(s[main])] for name, s in rollouts.items() if main in s}
    table_figures.write(table, rows, best, sources, jerk["rrt"], first, losses)
    return text


def collect(table: Table) -> dict[str, dict[str, dict[int, Rollouts]]]:
    """Returns the current rollouts: {policy: {"ddpm 50": {seed: rollouts}}}."""
    rollouts: dict[str, dict[str, dict[int, Rollouts]]] = {}
    for name, seed, path, about in table_rollouts.current(table):
        solver, steps, _ = about["solver"]
        by_solver = rollouts.setdefault(name, {}).setdefault(f"{solver} {steps}", {})
        by_solver[seed] = Rollouts(**cache.load(path))
    return rollouts


def caption(config: ml_collections.ConfigDict, seconds: Mapping[str, float]) -> str:
    """Describes how the numbers of the table were measured."""
    return (
        f"{config.task.goals} rollouts for each policy and training seed (goals of seed "
        f"{config.task.eval_seed}), {config.train.steps} steps of {config.train.batch_size}, "
        f"solver {config.policy.solver} {config.policy.steps} unless a row says otherwise (first "
        "seed only). Success of all seeds with Wilson's interval, which knows nothing of how seeds "
        "differ, then of each seed; jerk^2 (m^2/s^6) and accel^2 (m^2/s^4): mean over successful "
        "rollouts, bootstrap interval. The best sigma_min is picked by the successes shown. "
        f"{report.BY_MEANS} The talk prints success / jerk^2, the paper success / accel^2. "
        + report.training_took(seconds)
    )


def cells(rows: Mapping[str, Row], best: str = "") -> list[list[str]]:
    """Returns the table's lines of policies, see ``COLUMNS``."""
    lines = []
    for name, row in rows.items():
        label, success, interval, jerk, *remaining = task.policy_cells(row.label, row.summary)
        reference = "best" if name == best else name
        lines.append(
            [
                *(label + (" (best)" if name == best else ""), str(len(row.seeds))),
                *(success, interval, report.of_each_seed(row, "success"), jerk, *remaining),
                *(f"{100 * v:.1f}%" for v in (row.summary.collided, row.summary.timed_out)),
                *(published.get(reference, "") for published in (TALK, PAPER)),
            ]
        )
    return lines


def data_cells(label, paths):
    """Returns the table's line of a data set."""
    label, success, interval, *jerk, acceleration, _ = task.data_cells(label, paths)
    return [label, "", success, interval, "", *jerk, acceleration, *[""] * 5]


def held_out_losses(table: Table) -> dict[str, Any]:
    """Returns loss per noise level on held-out plans, by source: of the main policies, first seed,
    and of the best linear denoiser, the yardstick: a network that is no better has learnt no more
    of a source than its spectrum. {} if no plan was held out."""
    config, main = table.config, [n for n, row in table.rows.items() if row.group == "main"]
    if not config.task.held_out:
        return {}
    root = pathlib.Path(expanded(config.data.root))
    shape = dict(history=config.data.history, horizon=config.data.horizon)
    held_out = {source: root / f"maze_{source}_held_out" for source in ("gcs", "rrt")}
    tests = {source: chunks(path, **shape) for source, path in held_out.items()}
    about = {s: rlds.open_dataset(path).fingerprint for s, path in held_out.items()}

    def measure(policy, like):
        losses = {
            source: evaluation.denoising_loss(like, *test, params=policy.params)
            for source, test in tests.items()
        }
        return {**losses, "metres": policy.normalizer.scale["action"].mean()}

    seeds = config.task.seeds[:1]
    measures = table_rollouts.kept_measures(table, main, seeds, about, measure)
    if not measures:
        return {}
    by_policy = {
        name: {"sigma": evaluation.LEVELS} | {k: v.tolist() for k, v in first.items()}
        for name, [first] in measures.items()
    }
    scale = next(iter(by_policy.values()))["metres"]
    linear: dict[str, Any] = {"sigma": evaluation.LEVELS}
    for source, test in tests.items():
        train = chunks(root / f"maze_{source}", **shape)
        linear[source] = linear_loss(train, test, scale)
    return {"best linear denoiser": linear, **by_policy}


def chunks(
    directory: str | os.PathLike[str], *, history: int, horizon: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Reads all chunks of a maze data set in metres: {name: [N, T, 2]}, actions [N, H, 2].

    Past an episode's end the last action is held.
    """
    paths = data.load_positions(directory)
    sizes = np.array([len(path) - 1 for path in paths])
    end = np.repeat(np.cumsum(sizes), sizes)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    steps = {
        "observation/state": np.concatenate([path[:-1] for path in paths]),
        "observation/goal": np.concatenate([np.tile(p[-1], (len(p) - 1, 1)) for p in paths]),
        "action": np.concatenate([path[1:] for path in paths]),
    }
    at = np.arange(len(end))
    observation, action, _ = chunk.gather(
        steps, at, start, end, history, horizon, xp=np, padding="hold"
    )
    return observation, action


def linear_loss(
    train: tuple[dict[str, np.ndarray], np.ndarray],
    test: tuple[dict[str, np.ndarray], np.ndarray],
    scale: float,
    *,
    levels: tuple[float, ...] = evaluation.LEVELS,
) -> np.ndarray:
    """Returns ``denoising_loss`` [L] of the best linear denoiser, fitted to the first set.

    x0 = B o + r: B by least squares on the observation, then the Wiener filter of r's covariance C,
    ``K = alpha C (alpha^2 C + sigma^2)^-1``, whose error is known without drawing noise. The chunks
    are in metres, and ``scale`` is metres in one normalised unit.
    """
    inputs, outputs = _design(*train, scale)
    fit = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    residual = outputs - inputs @ fit
    variances, modes = np.linalg.eigh(residual.T @ residual / len(residual))
    variances = np.maximum(variances, 0)
    inputs, outputs = _design(*test, scale)
    residual = (outputs - inputs @ fit) @ modes
    power = np.mean(residual**2, 0)
    losses = []
    for sigma in levels:
        alpha = np.sqrt((1 - sigma) * (1 + sigma))
        gain = alpha * variances / (alpha**2 * variances + sigma**2)
        losses.append(np.mean((alpha * gain - 1) ** 2 * power + sigma**2 * gain**2))
    return np.array(losses)


def _design(observation, action, scale):
    flat = [observation[name].reshape(len(action), -1) for name in sorted(observation)]
    inputs = np.concatenate([*flat, np.ones((len(action), 1))], 1)
    return inputs / scale, action.reshape(len(action), -1) / scale
