"""The thought experiment on {-1, 0, 1}: closed form, drawn, trained and sampled."""

from __future__ import annotations

import pathlib

import ml_collections
import numpy as np
import tqdm

from ambient_jax.analysis import assignment
from ambient_jax.cli import report
from ambient_jax.data.paths import expanded
from ambient_jax.train import lock

COLUMNS = (
    "assignment",
    "tau",
    "corrupt",
    "share of 0: closed form",
    "drawn",
    "standard error",
    "trained, low noise",
    "sampled",
    "standard error",
    "-1 sampled",
)


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes ``report/`` into the workdir."""
    from experiments.annotate import figures  # they need matplotlib

    task, found = config.task, []
    grid = [(kind, tau, n) for tau in task.tau for kind in task.assignments for n in task.corrupt]
    for i, (kind, tau, n) in enumerate(tqdm.tqdm(grid, desc="three points")):
        rng = np.random.default_rng([config.seed, i])
        size = dict(bucket=task.bucket, tau=tau)
        exact = assignment.trained_law(kind, task.clean, n, **size)
        drawn, error = assignment.simulate(rng, kind, task.clean, n, repeats=task.repeats, **size)
        trained = [
            assignment.train(rng, kind, task.clean, n, draws=task.draws, **size)
            for _ in range(task.pairs)
        ]
        sampled = np.array([each.generated for each in trained])
        found.append(
            {
                "assignment": kind,
                "tau": tau,
                "corrupt": n,
                "exact": exact,
                "drawn": drawn,
                "standard_error": error,
                "trained": np.mean([each.low_noise for each in trained], 0),
                "sampled": sampled.mean(0),
                "sampled_error": sampled.std(0, ddof=1) / np.sqrt(task.pairs),
            }
        )
    rows = [
        [
            row["assignment"],
            row["tau"],
            row["corrupt"],
            *(f"{row[name][1]:.4f}" for name in ("exact", "drawn", "standard_error", "trained")),
            *(f"{row[name][1]:.3f}" for name in ("sampled", "sampled_error")),
            f"{row['sampled'][0]:.3f}",
        ]
        for row in found
    ]
    caption = (
        f"Clean data: {task.clean} points, 0 or 1; corrupt: -1 or 0. Share of 0 (right: 1/2) among "
        "the data admissible at low noise, in closed form, over "
        f"{task.repeats} drawn pairs of data sets, and among the lowest levels' training draws of "
        f"a table denoiser (mean of {task.pairs} pairs), and in what its sampler returns. Buckets "
        f"of {task.bucket} datapoints, at random (bucket) or by sigma_min (ordered)."
    )
    results = {"rows": found, "config": config.to_dict()}
    folder = pathlib.Path(expanded(workdir)) / "report"
    print(report.write(folder, COLUMNS, rows, caption, results))
    figures.three_points(folder, found)
