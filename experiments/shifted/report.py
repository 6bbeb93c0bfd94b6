"""Writes the report of the table: rows, gains, caption, figures, ``results.json``."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ambient_jax.cli import report as files
from ambient_jax.estimates import Estimate
from ambient_jax.evaluate import evaluation
from experiments.planar_pushing import metrics
from experiments.planar_pushing.rollout import Rollouts
from experiments.planar_pushing.task import asked, scene_of
from experiments.shifted import excess, figures, judge, losses, policies, shifts
from experiments.table import report, rollouts
from experiments.table.experiment import Table
from experiments.table.report import Claim, Row

Made = Mapping[str, Mapping[int, Rollouts]]  # rollouts by policy and training seed
COLUMNS = (
    *("policy", "seeds", "success", "95%", "of each seed", "over clean only, points"),
    *("final distance, mm", "held-out loss, of clean only: low", "middle", "high"),
)
OVER_AS_IS = ("told", "noised")  # methods that use the rows of "as_is" otherwise
BANDS = (0.0, 0.1, 0.7, 1.0)  # noise levels of the three bands of the held-out loss


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the table as markdown."""
    config, collected = table.config, rollouts.collect(table)
    rows = {name: summarise(table.rows[name].label, made) for name, made in collected.items()}
    gains = {name: report.gain(collected, name, "clean") for name in rows if name != "clean"}
    found: Any = table.annotations
    judged = {kind: found[kind] for kind in config.task.kinds if kind in found}
    by_loss = {name: one for name, one in found.items() if name not in judged}
    off = {kind: losses.off(config, kind) for kind in config.task.kinds}
    loss = losses.measure(table, rows)
    checked = claims(config.task, collected)
    seconds = {name: report.core_seconds(table, name) for name in rows}
    results = {
        "policies": rows,
        "over clean only": gains,
        "claims": [claim._asdict() for claim in checked],
        "judged": {"sigma": judge.SIGMAS, "rho": judge.RHOS, **judged},
        "by loss": {"sigma": judge.SIGMAS, "rho": excess.RHOS, **by_loss},
        "off": off,
        "held out": {"sigma": evaluation.LEVELS, "rho": losses.RHOS, "loss": loss},
        "training core seconds": seconds,
        "config": config.to_dict(),
    }
    lines = [_cells(name, row, gains.get(name), loss) for name, row in rows.items()]
    parts = [_caption(config), _off(off), report.training_took(seconds), report.expected(checked)]
    folder = table.workdir / "report"
    text = files.write(folder, COLUMNS, lines, "\n\n".join(filter(None, parts)), results)
    figures.write(folder, rows, judged, by_loss, loss)
    return text


def summarise(label: str, by_seed: Mapping[int, Rollouts]) -> Row:
    """Returns a row from the rollouts of each seed."""
    return report.row(label, by_seed, lambda r: metrics.summarise(r.success, r.error, r.lengths))


def claims(task: Any, collected: Made) -> list[Claim]:
    """Returns for each kind and method whether it gains over clean demonstrations only, and over
    the same rows as they are."""
    pairs = [("oracle", "clean", "all with true observations > clean only")]
    for kind, (method, words) in itertools.product(task.kinds, policies.METHODS.items()):
        shown = kind.replace("_", ", ")
        name, as_is = policies.name(kind, method), policies.name(kind, "as_is")
        pairs.append((name, "clean", f"{shown}: {words} > clean only"))
        if method in OVER_AS_IS:
            pairs.append((name, as_is, f"{shown}: {words} > as is"))
        elif kind.endswith(shifts.ALIGNED):
            base = policies.name(kind.removesuffix(shifts.ALIGNED), "as_is")
            pairs.append((name, base, f"{shown}: {words} > as reported"))
    checked = []
    for name, base, words in pairs:
        if found := report.gain(collected, name, base):
            holds = True if found.low > 0 else False if found.high < 0 else None
            checked.append(Claim(words, points(found), holds))
    return checked


def points(gain: Estimate) -> str:
    """Describes a gain."""
    return f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def band_ratios(loss: Mapping[str, np.ndarray], name: str) -> list[float]:
    """Returns the held-out loss at rho = 0 over that of clean only, geometric mean over the levels
    of each band and over seeds."""
    level = np.asarray(evaluation.LEVELS)
    ratio = np.log(loss[name][:, 0].mean(0) / loss["clean"][:, 0].mean(0))
    inside = [(level > a) & (level <= b) for a, b in zip(BANDS, BANDS[1:], strict=False)]
    return [float(np.exp(ratio[rows].mean())) for rows in inside]


def _cells(name, row, gained, loss):
    summary = row.summary
    ratios = band_ratios(loss, name) if name in loss and "clean" in loss else []
    return [
        *(row.label, str(len(row.seeds)), *report.percent(summary.success)),
        *(report.of_each_seed(row, "success"), points(gained) if gained else ""),
        f"{1000 * summary.position.value:.1f}",
        *(f"{ratio:.2f}" for ratio in ratios),
        *([""] * (len(BANDS) - 1 - len(ratios))),
    ]


def _off(off):
    found = [f"{kind.replace('_', ', ')} {d:.0f} mm and {a:.1f}" for kind, (d, a) in off.items()]
    return f"The slider is reported so far from where it is: {'; '.join(found)} degrees (medians)."


def _caption(config):
    task = config.task
    ends = ", ".join(f"{a:g} to {b:g}" for a, b in zip(BANDS, BANDS[1:], strict=False))
    return (
        f"{task.clean} clean demonstrations of pushing and {task.source} with the same kind of "
        f"actions and shifted observations. {task.episodes} starts of seed {task.eval_seed} for "
        f"each policy and training seed; {config.train.steps} steps of {config.train.batch_size}, "
        f"solver {config.policy.solver} {config.policy.steps}. Success: at rest within "
        f"{asked(scene_of(config))}, Wilson's interval over all seeds, which knows nothing of "
        "how seeds differ. Over clean only: difference in success by start, mean over shared "
        "seeds, bootstrap interval over starts. Levels are chosen by a classifier at tau "
        f"{task.tau:g} (ambient) or by an excess of at most {task.excess:g} of the loss "
        f"of clean only (noised, without), none by rollouts. Share of clean rows: {task.alpha:g}. "
        f"Held-out loss: of {task.held_out} clean demonstrations without noise on the observation, "
        f"over that of clean only, geometric mean over sigma {ends}."
    )
