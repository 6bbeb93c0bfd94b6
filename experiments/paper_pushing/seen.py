"""Rolls out the policies of a table from pictures, by the poses that an encoder sees in them.

python -m experiments.paper_pushing.seen --config=experiments/paper_pushing/config.py:quick

The workdir is that of the table, which must have run. It trains the encoder (``sight``) unless one
of the same options is there, and writes ``report/seen``: each policy from the state and from
pictures, from the same fresh starts.
"""

import functools
import os
import pathlib

import ml_collections
import numpy as np

from ambient_jax.cli import report as files
from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.estimates import paired
from experiments import checks, launch
from experiments.paper_pushing import figures, report, sight, task
from experiments.paper_pushing import table as tables
from experiments.planar_pushing import claims
from experiments.planar_pushing.report import gains
from experiments.table import figures as drawing
from experiments.table import report as table_report
from experiments.table import rollouts
from experiments.table.experiment import Table

COLUMNS = ("policy", "seeds", "from the state", "95%", "from pictures", "95%", "difference")
FILE = "sight.npz"


def run(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Writes ``<workdir>/report/seen``; ValueError if the table has no complete policies."""
    checks.makes_its_report(config.task)
    task.check(config)
    folder, scene = pathlib.Path(expanded(workdir)), task.scene_of(config)
    table = Table(tables.EXPERIMENT, config, folder)
    program = report.trained(table)
    if not program:
        raise ValueError(
            f"{folder} has no rollouts of this config's policies, expected those of its table: "
            "run python -m experiments.paper_pushing with the same flags first"
        )
    options = config.task.sight.to_dict()
    params = sight.kept(folder / FILE, scene, **options)
    simulator = functools.partial(task.simulator, see=lambda s: sight.seen(params, s, scene))
    pictures = report.fresh(table, "seen.npz", {"sight": options}, simulator=simulator)
    rollouts.evaluate(report.fresh(table), program)
    rollouts.evaluate(pictures, program)
    print(write(table, pictures, sight.errors(params, held_out(config), scene)))


def held_out(config: ml_collections.ConfigDict) -> np.ndarray:
    """Returns the states [M, 12] of held-out target demonstrations."""
    path = pathlib.Path(expanded(config.data.root)) / report.HELD_OUT
    dataset = rlds.open_dataset(path)
    steps = [dataset[i]["steps"]["observation"]["state"] for i in range(len(dataset))]
    return np.concatenate(steps)


def write(table: Table, pictures: Table, errors: np.ndarray) -> str:
    """Writes the report, with the encoder's ``errors`` [M, 2]; returns it as markdown."""
    names = report.compared(table.config.task, report.rows_of(table, rollouts.collect(table)))
    by_state = rollouts.collect(report.fresh(table), names)
    by_picture = rollouts.collect(pictures, names)
    rows = {what: report.rows_of(table, made) for what, made in _both(by_state, by_picture)}
    lines, differences = [], {}
    for name in by_picture:
        seeds = sorted(by_state[name].keys() & by_picture[name].keys())
        mean = lambda made, n=name, s=seeds: np.mean([made[n][i].success for i in s], 0)  # noqa: E731
        gap = differences[name] = paired(mean(by_picture), mean(by_state))
        cells = [table_report.percent(rows[what][name].summary.success) for what in rows]
        lines.append([rows["state"][name].label, str(len(seeds)), *sum(cells, [])])
        lines[-1].append(claims.points(gap))
    checked = report.expected(table.config.task, rows["state"], gains(by_picture))
    quantiles = np.quantile(errors * (1000, 180 / np.pi), (0.5, 0.95), axis=0)
    o = table.config.task
    caption = (
        f"Success on {o.fresh} fresh starts for each training seed. From pictures: the same "
        "policies, given the pose that an encoder sees in the pictures of both cameras (64 x 64) "
        f"and the pusher's place. The encoder learned from {o.sight.rounds * o.sight.steps} x "
        f"{o.sight.batch} drawn "
        "random scenes; on the pictures of held-out target demonstrations it is off by "
        f"{quantiles[0, 0]:.1f} mm and {quantiles[0, 1]:.2f} degrees (median), "
        f"{quantiles[1, 0]:.1f} mm and {quantiles[1, 1]:.2f} degrees (95%). Orders from pictures:"
        f"\n\n{table_report.expected(checked)}"
    )
    results = {
        **rows,
        "difference": differences,
        "claims": [claim._asdict() for claim in checked],
        "encoder": {"median": quantiles[0], "95%": quantiles[1], "units": ["mm", "degrees"]},
        "config": table.config.to_dict(),
    }
    folder = table.workdir / "report" / "seen"
    text = files.write(folder, COLUMNS, lines, caption, results)
    labels = {name: row.label for name, row in rows["pictures"].items()}
    first = {name: made[min(made)] for name, made in by_picture.items()}
    film = figures.films(first, labels, task.scene_of(table.config))
    drawing.save(folder, {"films": film})
    return text


def _both(by_state, by_picture):
    return ("state", by_state), ("pictures", by_picture)


if __name__ == "__main__":
    launch.run("paper_pushing", run)
