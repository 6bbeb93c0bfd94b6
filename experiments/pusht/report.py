"""Writes the report of the table: rows, caption, figures, ``results.json``."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import ml_collections
import numpy as np

from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.estimates import Estimate
from ambient_jax.evaluate import evaluation
from experiments.pusht import figures, metrics, task
from experiments.pusht.rollout import Rollouts
from experiments.table import policies, report, rollouts
from experiments.table.experiment import Table
from experiments.table.report import Claim, Row

Made = Mapping[str, Mapping[int, Rollouts]]  # rollouts by policy and training seed
# Gain in success or score of the second policy over the first, from the same starts; or None.
Gap = Callable[[str, str, str], Estimate | None]
COLUMNS = (
    *("policy", "seeds", "success", "95%", "of each seed", "score", "95%", "shake, px"),
    "seconds of successes",
)


def rows_of(table: Table, collected: Made) -> dict[str, Row]:
    """Returns the rows of the table by policy."""
    label = lambda name: table.rows[name].label  # noqa: E731
    return {n: report.row(label(n), seeds, metrics.summarise) for n, seeds in collected.items()}


def _fresh(table: Table) -> Table:
    """Returns the table with rollouts ``fresh.npz`` from the starts of ``task.fresh``."""
    files = lambda *args: {"fresh.npz": task.files(*args)["rollouts.npz"]}  # noqa: E731
    experiment = dataclasses.replace(table.experiment, files=files)
    return dataclasses.replace(table, experiment=experiment, config=task.fresh(table.config))


def picked(table: Table, rows: Mapping[str, Row]) -> list[str]:
    """Returns clean only and the best of each kind, as far as they are evaluated."""
    names = ("steady", *task.best(table.config.task, rows).values())
    return [name for name in dict.fromkeys(names) if name in rows]


def confirm(table: Table) -> None:
    """Writes ``fresh.npz`` of the policies picked as the best, for all seeds."""
    program = {
        policies.key(name, seed): table.config_of(name, seed)
        for name in picked(table, rows_of(table, rollouts.collect(table)))
        for seed in table.config.task.seeds
        if (table.folder(name, seed) / "rollouts.npz").exists()
    }
    rollouts.evaluate(_fresh(table), program)


def gains(collected: Made) -> Gap:
    """Returns the function of gains, see ``report.gain``."""
    of = {
        "success": lambda r: r.success.astype(float),
        "score": lambda r: np.minimum(r.coverage / 0.95, 1),
    }
    return lambda what, low, high: report.gain(collected, high, low, of[what])


def claims(best: Mapping[str, str], gap: Gap) -> list[Claim]:
    """Returns what the table is expected to show, by gains on fresh starts."""
    checked = []
    for what in ("success", "score"):
        for low, words in (("steady", "clean only"), (best["co-training"], "the best co-training")):
            if gain := gap(what, low, best["ambient"]):
                value, ends = 100 * gain.value, f"{100 * gain.low:.1f}, {100 * gain.high:.1f}"
                holds = True if gain.low > 0 else False if gain.high < 0 else None
                measured = f"{low}, {best['ambient']}: {value:+.1f} points [{ends}]"
                checked.append(Claim(f"{words} < the best ambient in {what}", measured, holds))
    return checked


def demonstrations(config: ml_collections.ConfigDict) -> dict[str, list[dict[str, np.ndarray]]]:
    """Returns "state" [T, 5] and "action" [T, 2] of the episodes of each source."""
    root = pathlib.Path(expanded(config.data.root))
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for name, source in config.data.sources.items():
        found[name] = []
        dataset = rlds.open_dataset(root / source.path, source.split)
        for position in range(len(dataset)):
            steps = dataset[position]["steps"]
            arrays = {"state": steps["observation"]["state"], "action": steps["action"]}
            found[name].append(arrays)
    return found


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from all rollouts; returns the table as markdown."""
    config, collected = table.config, rollouts.collect(table)
    rows = rows_of(table, collected)
    best, fresh = task.best(config.task, rows), rollouts.collect(_fresh(table), picked(table, rows))
    confirmed, demos = rows_of(table, fresh), demonstrations(config)
    names = [n for n in rows if table.rows[n].group != "images"]
    losses = rollouts.held_out_losses(table, "pusht_steady_held_out", names, config.task.seeds)
    seconds = {name: report.core_seconds(table, name) for name in rows}
    checked = claims(best, gains(fresh))
    shakes = {n: metrics.shake([d["state"][:, :2] for d in some]) for n, some in demos.items()}
    results = {
        "fresh starts": confirmed,
        "best": best,
        "demonstrations": {"shake": shakes, "count": {n: len(some) for n, some in demos.items()}},
        "levels": evaluation.LEVELS,
        "held out": {n: loss.mean(0) for n, loss in losses.items()},
        "training core seconds": seconds,
    }
    lines = [*cells(rows, best), *data_cells(demos, shakes)]
    parts = [_measured(config, seconds), _again(config, confirmed), _expected(checked)]
    text = report.write(table, COLUMNS, lines, parts, rows, checked, results)
    first = {name: by_seed[min(by_seed)] for name, by_seed in collected.items()}
    figures.write(table, rows, best, first, demos, losses)
    return text


def cells(rows: Mapping[str, Row], best: Mapping[str, str]) -> list[list[str]]:
    """Returns the table's lines of policies, see ``COLUMNS``."""
    lines = []
    for name, row in rows.items():
        role = next((role for role, policy in best.items() if policy == name), "")
        summary = row.summary
        score = summary.score
        lines.append(
            [
                row.label + (f" (best {role})" if role else ""),
                *(str(len(row.seeds)), *report.percent(summary.success)),
                report.of_each_seed(row, "success"),
                *(f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}"),
                f"{summary.shake.value:.2f}",
                f"{summary.seconds.value:.1f}" if summary.seconds.count else "",
            ]
        )
    return lines


def data_cells(demos, shakes):
    """Returns the table's lines of data sets."""
    seconds = {n: 0.1 * np.mean([len(d["action"]) for d in some]) for n, some in demos.items()}
    return [
        [f"data: {name}", *[""] * 6, f"{shakes[name].value:.2f}", f"{seconds[name]:.1f}"]
        for name in demos
    ]


def _measured(config, seconds):
    o, data = config.task, config.data.sources
    images = (f" ({o.image.steps} for images)", f" (images: {o.image.shaky})")
    steps, fewer = images if "images" in o.groups else ("", "")
    return (
        f"{o.episodes} episodes for each policy and training seed (the same starts), at most "
        f"{o.max_steps} steps; {config.train.steps} training steps of {config.train.batch_size}"
        f"{steps}, solver {config.policy.solver} {config.policy.steps}, "
        f"planned anew every {config.policy.execute} steps. Clean demonstrations: "
        f"{data.steady.split} of {o.steady}; corrupt: {data.shaky.split} of {o.shaky}{fewer}, "
        f"tremor {o.tremor:g} px, left at a coverage of {o.content:g}. Success: "
        "more than 95% of the goal covered; Wilson's interval over the episodes of all seeds, "
        "which knows nothing of how seeds differ: their own successes stand beside it. Score: "
        "largest min(coverage / 0.95, 1), mean over episodes, as Diffusion Policy reports it. "
        "Shake: root mean square second difference of the pusher's path. The best of a kind is "
        "picked by the successes shown. " + report.training_took(seconds)
    )


def _again(config, rows):
    lines = [
        f"{row.label} ({len(row.seeds)} seeds): success {' ('.join(report.percent(s.success))}), "
        f"score {s.score.value:.3f} ({s.score.low:.3f} to {s.score.high:.3f})"
        for row in rows.values()
        for s in [row.summary]
    ]
    if not lines:
        return ""
    head = f"From {config.task.fresh} fresh starts, which picked no policy:"
    return "\n".join([head, "", *(f"- {line}" for line in lines)])


def _expected(checked):
    if not checked:
        return ""
    return (
        f"{report.expected(checked)}\n\nGains on the fresh starts: means over the same starts and "
        "seeds, with bootstrap intervals of 95% over starts. An order holds if its interval is "
        "above 0."
    )
