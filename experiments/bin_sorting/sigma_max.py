"""Measures sigma_max without rollouts, by a policy whose condition is the rule to follow.

python -m experiments.bin_sorting.sigma_max --config=experiments/bin_sorting/config.py:table

Where x0_hat does not depend on the condition, arbitrary demonstrations denoise like correct ones
(``ambient_jax.annotate.mismatch``). Policies come from the table's workdir or are trained.
"""

import functools
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.annotate import mismatch
from ambient_jax.cli import report
from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import trainer
from experiments import checks, launch
from experiments.bin_sorting import data, policies, task
from experiments.table.figures import noise_axis, panels
from experiments.table.policies import config_of, key

LEVELS = tuple(float(s / np.hypot(1, s)) for s in np.geomspace(0.004, 32, 19))
TAUS = (0.02, 0.05, 0.1, 0.2)
_CONDITIONED = "task_arbitrary"
COLUMNS = ("demonstrations judged", "chunks", *(f"tau {tau:g}" for tau in TAUS), "of each seed")


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes ``sigma_max/`` to the workdir: table, figure and JSON."""
    checks.makes_its_report(config.task)
    task.build(config)
    folder = pathlib.Path(expanded(workdir))
    trained = [_policy(config, folder, seed) for seed in config.task.seeds]
    judged = {"held out": ("bins_correct_held_out", "train")} if config.task.held_out else {}
    judged["trained on"] = ("bins_correct", config.data.sources.correct.split)
    rows, measures = [], {}
    for name, (dataset, split) in judged.items():
        episodes = rlds.open_dataset(pathlib.Path(expanded(config.data.root)) / dataset, split)
        options = dict(padding=config.data.padding, samples=1024)
        source = RldsSource(episodes, observation=tuple(trained[0].dims))
        chunks = evaluation.recorded(source, trained[0], **options)
        arbitrary = np.broadcast_to(data.TASK[False], chunks.observation["task"].shape)
        changed = chunks.observation | {"task": arbitrary}
        # Policies of seeds differ only in their parameters, so they share a compiled program.
        change = functools.partial(evaluation.differences, trained[0], chunks, changed)
        differences = np.stack([change(levels=LEVELS, params=p.params) for p in trained])
        measure = measures[name] = measured(differences) | {"chunks": len(chunks.action)}
        of_seed = ", ".join(f"{v:.3f}" for v in measure["of_seed"])
        by_tau = [f"{v:.3f}" for v in measure["by_tau"].values()]
        rows.append([name, measure["chunks"], *by_tau, of_seed])
    results = {"levels": LEVELS, "found": measures, "config": config.to_dict()}
    caption = (
        "sigma_max: the level up to which the mean square of the change of x0_hat, when the policy "
        "is told the arbitrary rule instead of the correct one, stays below a share tau of its "
        f"largest value; of correct demonstrations, mean over {len(trained)} training seeds, and "
        f"of each seed at tau {TAUS[1]:g}. "
    )
    caption += "".join(
        f"By products of the changes of two seeds, in which errors cancel, {measure['cross']:.3f} "
        f"({name}). "
        for name, measure in measures.items()
        if measure["cross"]
    )
    table = report.write(folder / "sigma_max", COLUMNS, rows, caption.strip(), results)
    figure(measures).savefig(folder / "sigma_max" / "told.png", dpi=160)
    print(table)


def measured(differences: np.ndarray) -> dict:
    """Measures sigma_max from the changes of x0_hat [S, L, N, H, D] of S policies.

    "excess" [S, L] is their mean square, "product" [L] the mean product of two policies, which has
    no independent errors."""
    excess = np.mean(differences**2, (2, 3, 4))
    pairs = list(itertools.combinations(differences, 2))
    product = np.mean([np.mean(a * b, (1, 2, 3)) for a, b in pairs], 0) if pairs else None
    bound = lambda e, tau=TAUS[1]: mismatch.sigma_max(LEVELS, e, tau=tau)  # noqa: E731
    return {
        "excess": excess,
        "product": product,
        "by_tau": {f"{tau:g}": bound(excess.mean(0), tau) for tau in TAUS},
        "of_seed": [bound(curve) for curve in excess],
        "cross": bound(product) if pairs else None,
    }


def figure(measures: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Plots the share of the largest change against the noise level."""
    plot, [[axes]] = panels(1, 1, 5, 3.4)
    for i, (name, measure) in enumerate(measures.items()):
        for curve in measure["excess"]:
            axes.plot(LEVELS, curve / curve.max(), color=f"C{i}", lw=0.6, alpha=0.6)
        mean = measure["excess"].mean(0)
        axes.plot(LEVELS, mean / mean.max(), ".-", color=f"C{i}", label=name)
        axes.axvline(measure["by_tau"]["0.05"], color=f"C{i}", ls=":", lw=1)
    axes.axhline(TAUS[1], color="0.5", lw=0.8, ls="--")
    noise_axis(axes, ylabel="share of its largest value")
    axes.legend(fontsize=7, title="correct demonstrations", title_fontsize=7)
    return plot


def _policy(config, folder, seed):
    """Returns the task-conditioned policy; trains it if it is absent, else checks it."""
    base = config.copy_and_resolve_references()
    base.task.groups = ("main",)
    row, path = policies.rows(base.task)[_CONDITIONED], folder / key(_CONDITIONED, seed)
    trainer.train(config_of(config, _CONDITIONED, row, seed), str(path))
    return Policy.from_checkpoint(path)


if __name__ == "__main__":
    launch.run("bin_sorting", run)
