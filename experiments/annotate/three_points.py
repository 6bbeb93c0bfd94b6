"""The thought experiment on {-1, 0, 1}: closed form, drawn, trained and sampled."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import tqdm

from ambient_jax.analysis import assignment
from ambient_jax.cli import report
from ambient_jax.data.paths import expanded
from ambient_jax.train import lock

COLUMNS = (
    *("assignment", "tau", "corrupt", "share of 0: closed form", "drawn", "standard error"),
    *("trained, low noise", "sampled", "standard error", "-1 sampled"),
)


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes ``report/`` to the workdir."""
    task = config.task
    cells = [(a, tau, n) for tau in task.tau for a in task.assignments for n in task.corrupt]
    results = [
        _row(task, np.random.default_rng([config.seed, i]), *cell)
        for i, cell in enumerate(tqdm.tqdm(cells, desc="three points"))
    ]
    rows = [
        [
            *(row[name] for name in ("assignment", "tau", "corrupt")),
            *(f"{row[name][1]:.4f}" for name in ("exact", "drawn", "standard_error", "trained")),
            *(f"{row[name][1]:.3f}" for name in ("sampled", "sampled_error")),
            f"{row['sampled'][0]:.3f}",
        ]
        for row in results
    ]
    caption = (
        f"Clean data: {task.clean} points, 0 or 1; corrupt: -1 or 0. Share of 0 (right: 1/2) among "
        "the data admissible at low noise, in closed form, over "
        f"{task.repeats} drawn pairs of data sets, and among the lowest levels' training draws of "
        f"a table denoiser (mean of {task.pairs} pairs), and in what its sampler returns. Buckets "
        f"of {task.bucket} datapoints, at random (bucket) or by sigma_min (ordered)."
    )
    folder = pathlib.Path(expanded(workdir)) / "report"
    contents = {"rows": results, "config": config.to_dict()}
    print(report.write(folder, COLUMNS, rows, caption, contents))
    figure(results).savefig(folder / "three_points.png", dpi=160)


def _row(task, rng, name, tau, corrupt):
    cell, size = (name, task.clean, corrupt), dict(bucket=task.bucket, tau=tau)
    simulated, error = assignment.simulate(rng, *cell, repeats=task.repeats, **size)
    trained = [assignment.train(rng, *cell, draws=task.draws, **size) for _ in range(task.pairs)]
    sampled = np.array([t.generated for t in trained])
    sampled_error = sampled.std(0, ddof=1) / np.sqrt(task.pairs)
    row = dict(assignment=name, tau=tau, corrupt=corrupt)
    row |= dict(exact=assignment.trained_law(*cell, **size), drawn=simulated, standard_error=error)
    row |= dict(trained=np.mean([t.low_noise for t in trained], 0))
    return row | dict(sampled=sampled.mean(0), sampled_error=sampled_error)


def figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Plots the share of 0 against the size of the corrupt set, by assignment."""
    from matplotlib.figure import Figure

    taus = sorted({row["tau"] for row in rows}, reverse=True)
    plot = Figure(figsize=(4.4 * len(taus), 3.4), layout="constrained")
    for axes, tau in zip(plot.subplots(1, len(taus), squeeze=False)[0], taus, strict=True):
        for i, name in enumerate(dict.fromkeys(row["assignment"] for row in rows)):
            line = [row for row in rows if row["assignment"] == name and row["tau"] == tau]
            size = [row["corrupt"] for row in line]
            share = lambda key, rows=line: np.array([row[key][1] for row in rows])  # noqa: E731
            axes.plot(size, share("exact"), "-", lw=1, label=name, color=f"C{i}")
            style = dict(color=f"C{i}", fmt="o", ms=4)
            axes.errorbar(size, share("drawn"), 1.96 * share("standard_error"), **style)
            style |= dict(fmt="x:", ms=5, lw=0.8)
            axes.errorbar(size, share("sampled"), 1.96 * share("sampled_error"), **style)
        axes.axhline(0.5, color="#8a8f98", lw=0.8, ls="--")
        axes.set(xscale="log", ylim=(0.4, 1.02), title=rf"$\tau$ = {tau:g}")
        axes.set_xlabel("number of corrupt points")
        axes.set_ylabel("share of 0: data (line, dots), samples (x)")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7)
    return plot
