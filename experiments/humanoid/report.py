"""The report of the table: policies, kinds of corruption, claims, figures, ``results.json``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ambient_jax.cli import report as reports
from ambient_jax.data import rlds
from ambient_jax.estimates import Estimate
from ambient_jax.evaluate import evaluation
from experiments.humanoid import data, metrics, policies, recording, table_figures, task
from experiments.humanoid.corruptions import KINDS, WORDS, leads_of
from experiments.humanoid.metrics import BANDS, Scores
from experiments.table import report, rollouts
from experiments.table.experiment import Table
from experiments.table.report import Claim

COLUMNS = (
    *("policy", "seeds", "loss", "95%", "of each seed", "vs clean only", "vs co-training"),
    *("low", "middle", "high", "action error", "95%", "vs clean only", "vs co-training", "raw"),
)
COLUMNS_OF_KINDS = (
    *("kind", "episodes", "frames", "sigma_min, without posture", "TV"),
    *("sigma_min, given states", "TV", "sigma_min, with posture", "TV"),
)
REFERENCES = ("clean", "cotrain")
_COMPARED = ("loss", "low", "high", "error")
_LOW = 0.05  # noise level of the total variation in the table


def write(table: Table) -> str:
    """Writes ``<workdir>/report/`` from what is there; returns the tables as markdown."""
    held_out = _motions(table, "held_out")
    scale = np.concatenate([m.action for m in held_out]).std(0)
    still = metrics.standing_still(held_out, scale, table.config.data.horizon)
    made = rollouts.collect(table)
    scores = {name: metrics.scores(by_seed, scale) for name, by_seed in made.items()}
    changes = {
        name: {
            reference: {m: metrics.change(one, scores[reference], m) for m in _COMPARED}
            for reference in REFERENCES
            if reference in scores and reference != name
        }
        for name, one in scores.items()
    }
    spectra, field = recording.spectra(table), recording.receptive_field(table)
    kinds = _kinds(table)
    claims = check(scores)
    seconds = {name: report.core_seconds(table, name) for name in scores}
    rows = {name: _row(one) for name, one in scores.items()}
    results = {
        "changes": changes,
        "action error of standing still": still,
        "kinds": {row[0]: row[1:] for row in kinds},
        "loss per noise level": {
            "sigma": evaluation.LEVELS,
            **{name: one.loss.mean((0, 1)) for name, one in scores.items()},
        },
        "spectrum": {name: law._asdict() for name, (_, _, law) in spectra.items()},
        "receptive field": {name: value.tolist() for name, value in field.items()},
        "leads": leads_of(data.recorded(table.config.task).motions),
        "training core seconds": seconds,
    }
    lines = [_cells(table.rows[name].label, scores[name], changes[name]) for name in scores]
    parts = [
        _caption(table, seconds, still),
        reports.markdown(COLUMNS_OF_KINDS, kinds),
        _caption_of_kinds(table),
        _caption_of_data(spectra, field),
        report.expected(claims),
    ]
    text = report.write(table, COLUMNS, lines, parts, rows, claims, results)
    table_figures.write(table, scores, spectra, field)
    return text


def _motions(table, name):
    """The episodes of a data set of the table."""
    folder = task.below(table.config.data.root, f"humanoid_{name}")
    dataset = rlds.open_dataset(folder, last_step="keep")
    steps = [dataset[i]["steps"] for i in range(len(dataset))]
    return [data.Motion(s["observation"]["state"], s["action"]) for s in steps]


def _row(one: Scores) -> dict[str, Any]:
    names = (*BANDS, "error", "raw")
    return {
        "seeds": {s: {n: one.of_seed(n)[i] for n in names} for i, s in enumerate(one.seeds)},
        **{name: one.estimate(name) for name in names},
    }


def _cells(label: str, one: Scores, changes: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    against = {
        metric: [_percent(changes[r][metric]) if r in changes else "" for r in REFERENCES]
        for metric in ("loss", "error")
    }
    return [
        *(label, str(len(one.seeds)), *report.numbers(one.estimate("loss"))),
        *(", ".join(f"{v:.4g}" for v in one.of_seed("loss")), *against["loss"]),
        *(f"{one.estimate(band).value:.4g}" for band in ("low", "middle", "high")),
        *(*report.numbers(one.estimate("error")), *against["error"]),
        f"{one.estimate('raw').value:.4g}",
    ]


def _percent(estimate: Estimate) -> str:
    value, low, high = (f"{100 * v:+.1f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value}% [{low}, {high}]"


def check(scores: Mapping[str, Scores]) -> list[Claim]:
    """What the table is expected to show, as far as its policies are there."""
    ambient = ("ambient_actions", "ambient_observed")
    claims = []
    for metric, words in (("loss", "held-out loss"), ("error", "action error")):
        for name in ambient:
            for reference in REFERENCES:
                if name in scores and reference in scores:
                    found = metrics.change(scores[name], scores[reference], metric)
                    claim = f"{words} of {name} is below that of {reference}"
                    claims.append(Claim(claim, _percent(found), _below(found)))
    return claims


def _below(estimate):
    """Whether a change is below 0; None where its interval leaves that open."""
    return True if estimate.high < 0 else False if estimate.low > 0 else None


def _kinds(table: Table) -> list[list[str]]:
    """A line for each kind, see ``COLUMNS_OF_KINDS``."""
    lines = []
    for kind in KINDS:
        motions = _motions(table, kind)
        line = [WORDS[kind], str(len(motions)), str(sum(len(m.action) for m in motions))]
        for name in policies.ANNOTATIONS:
            found = table.annotations.get(name)
            line += _of_kind(found, kind) if found else ["", ""]
        lines.append(line)
    return lines


def _of_kind(annotation, kind):
    """sigma_min of a kind, and the total variation at a low noise level with its interval."""
    results = annotation.results
    level = int(np.argmin(np.abs(np.asarray(results["levels"]) - _LOW)))
    tv = {end: value[level] for end, value in results["total_variation"][kind].items()}
    bound = policies.sigma_min(annotation)[kind]
    return [f"{bound:.3f}", f"{tv['value']:.2f} [{tv['low']:.2f}, {tv['high']:.2f}]"]


def _caption(table: Table, seconds: Mapping[str, float], still: float) -> str:
    config, held_out = table.config, _motions(table, "held_out")
    recorded = "recorded" if config.task.recorded else "generated"
    return (
        f"{len(held_out)} held-out {recorded} episodes ({config.task.samples} chunks at most) that "
        "no policy has seen, as they were recorded. Loss: squared error of x0_hat in normalised "
        f"units, mean over {len(evaluation.LEVELS)} noise levels; low, middle, high: levels up to "
        "0.1, up to 0.7, and above. Action error: root mean squared difference of a sampled chunk "
        "from the recorded one, in standard deviations of each joint; raw: in units of the data. "
        f"That of an arm which stays where it is, the yardstick: {still:.4g}. "
        "Each episode has the same weight; intervals are 95%, by a bootstrap over episodes and "
        f"seeds. {config.train.steps} steps of {config.train.batch_size}, solver "
        f"{config.policy.solver} {config.policy.steps}. " + report.training_took(seconds)
    )


def _caption_of_kinds(table: Table) -> str:
    return (
        "sigma_min of each kind: where P(clean), averaged over its chunks, passes "
        f"{0.5 - table.config.task.annotate_actions.get('tau', 0.05):g}, by classifiers of action "
        "chunks without the mean posture of their episode, of these given the states, and of "
        "chunks as they are. TV: total variation from the clean episodes that held-out decisions "
        f"reach at the level nearest to {_LOW:g}."
    )


def _caption_of_data(spectra, field) -> str:
    laws = (
        f"{name} {law.exponent:.2f} (standard error {law.standard_error:.2f})"
        for name, (_, _, law) in spectra.items()
    )
    every = slice(None, None, 4)
    widths = zip(field["field"][every], field["sigma"][every], strict=True)
    return (
        "Exponent a of the power law f^-a of action spectra, up to 0.25 cycles a frame: "
        f"{', '.join(laws)}. Receptive field of the best denoiser of a single joint's chunk, in "
        "actions: "
        f"{', '.join(f'{width:.0f} at sigma {sigma:.2g}' for width, sigma in widths)}."
    )
