"""A maze policy by solver and number of steps: success and jerk, as a table and a figure.

python -m experiments.maze.few_steps --checkpoint=runs/open_x/demo

It writes ``<checkpoint's workdir>/report/few_steps/``. Rollouts that are there are not made again.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import ml_collections
from absl import flags, logging
from matplotlib import ticker
from matplotlib.figure import Figure
from tqdm import tqdm

from ambient_jax import _checks
from ambient_jax.cli import console
from ambient_jax.cli import report as files
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint
from experiments.maze import metrics, task
from experiments.maze.rollout import Rollouts
from experiments.table import cache
from experiments.table import figures as common

COLUMNS = ("solver", "steps", "evaluations", *task.COLUMNS[1:6], "collided", "timed out")


@dataclasses.dataclass(frozen=True)
class Row:
    """A solver's rollouts; ``evaluations`` of the network for each chunk."""

    solver: str
    steps: int
    evaluations: int
    summary: metrics.Summary


def measure(
    path: str | pathlib.Path,
    out: str | pathlib.Path | None = None,
    *,
    solvers: Sequence[str] = _checks.SOLVERS,
    steps: Sequence[int] = (10, 20, 50),
    goals: int = 0,
) -> str:
    """Rolls out a maze policy with each solver and number of steps; returns the table.

    Args:
      path: workdir, its checkpoints folder or one step's folder.
      out: folder of the report; default: ``report/few_steps`` in the workdir.
      goals: number of rollouts, 0 for the config's.

    Raises:
      ValueError: the policy is not the maze's, or a solver or number is not allowed.
      FileNotFoundError: there is no finished checkpoint at the path.
    """
    for solver in solvers:
        for n in steps:
            _checks.solver_options(solver, n, None)
    directory, step = checkpoint.find(path)
    config = checkpoint.load_assets(directory / str(step))["config"]
    config = ml_collections.ConfigDict(config)
    if config.get("task", {}).get("name") != "maze":
        raise ValueError(f"{path} holds no maze policy, expected the workdir of the demo")
    config.task.goals = goals or config.task.goals
    folder = pathlib.Path(out or directory.parent / "report" / "few_steps")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    settings = [(n, solver) for n in sorted(steps) for solver in solvers]
    for n, solver in tqdm(settings, desc="rollouts", unit="setting"):
        about = {
            "checkpoint": [str(directory), step],
            "solver": [solver, n, config.policy.clip, config.policy.execute],
            "goals": [config.task.goals, config.task.eval_seed],
        }

        def make(n=n, solver=solver):
            policy = Policy.from_checkpoint(path, solver=solver, steps=n)
            return dataclasses.asdict(task.simulator(policy, config)(policy.params))

        arrays = cache.kept(folder / f"rollouts_{solver}_{n}.npz", about, make)
        evaluations = 2 * n if solver == "heun" else n
        rows.append(Row(solver, n, evaluations, metrics.summarise(Rollouts(**arrays))))
    caption = (
        f"{config.task.goals} rollouts each (the same goals, of seed {config.task.eval_seed}) of "
        f"one policy of {step} training steps, schedule {config.schedule.name}. Evaluations: of "
        "the network, for each chunk. Success with Wilson's interval; jerk^2 (m^2/s^6) and accel^2 "
        "(m^2/s^4): mean over successful rollouts, bootstrap interval."
    )
    text = files.write(folder, COLUMNS, [cells(row) for row in rows], caption, {"rows": rows})
    common.save(folder, {"few_steps": figure(rows)}, dpi=160)
    logging.info("wrote %s", folder)
    return text


def cells(row: Row) -> list[str]:
    """Returns the table's line, see ``COLUMNS``."""
    _, *values = task.policy_cells("", row.summary)
    failed = (row.summary.collided, row.summary.timed_out)
    counts = [str(row.steps), str(row.evaluations)]
    return [row.solver, *counts, *values[:5], *(f"{100 * v:.1f}%" for v in failed)]


def figure(rows: Sequence[Row]) -> Figure:
    """Draws success and jerk against evaluations of the network, a line for each solver."""
    drawn, axes = common.panels(1, 2, 8.5, 3.4)
    (left, right) = axes[0]
    for i, solver in enumerate(dict.fromkeys(row.solver for row in rows)):
        own = [row for row in rows if row.solver == solver]
        x, style = [row.evaluations for row in own], common.style(i) | {"label": solver}
        common.band(left, x, [row.summary.success for row in own], **style)
        common.band(right, x, [row.summary.jerk for row in own], scale=1, **style)
    left.set(ylabel="success (%)")
    right.set(ylabel=r"jerk$^2$ (m$^2$/s$^6$)")
    if any(row.summary.jerk.value > 0 for row in rows):  # of no successful rollout it is NaN
        right.set_yscale("log")
        right.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_major_formatter(ticker.FormatStrFormatter("%d"))
        right.yaxis.set_minor_locator(ticker.NullLocator())
    ticks = sorted({row.evaluations for row in rows})
    for panel in (left, right):
        panel.set(xscale="log", xlabel="evaluations of the network for a chunk")
        panel.set_xticks(ticks, [str(n) for n in ticks])
        panel.xaxis.set_minor_locator(ticker.NullLocator())
    left.legend(fontsize=8, frameon=False)
    return drawn


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        values = flags.FLAGS
        if not values.checkpoint:
            raise ValueError("expected --checkpoint=<workdir of a maze policy>, as the demo makes")
        steps = [int(n) if n.isdigit() else n for n in values.steps]
        options = dict(solvers=values.solvers, steps=steps, goals=values.goals)
        print(measure(values.checkpoint, values.out or None, **options))


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", "", "workdir or checkpoint of a maze policy")
    flags.DEFINE_string("out", "", "folder of the report; default: report/few_steps in the workdir")
    flags.DEFINE_list("solvers", list(_checks.SOLVERS), "such as ddim,dpmpp_2m")
    flags.DEFINE_list("steps", ["10", "20", "50"], "numbers of steps")
    flags.DEFINE_integer("goals", 0, "number of rollouts; 0 for the config's", lower_bound=0)
    console.run(_main)
