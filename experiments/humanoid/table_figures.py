"""Figures of the table: the data, the kinds of corruption, and losses at each noise level."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ambient_jax.analysis import spectrum
from ambient_jax.evaluate import evaluation
from experiments.humanoid import data, metrics, policies
from experiments.humanoid.corruptions import KINDS, WORDS, leads_of
from experiments.humanoid.metrics import Scores
from experiments.humanoid.recording import Spectra
from experiments.table.experiment import Table
from experiments.table.figures import COLOURS, GREY, INK, band, noise_axis, panels, save, style

_SHOWN, _LONG = 120, 300  # frames of an example
_PALE = (GREY, "#c5c9d0")  # of what was recorded
_BANDS = (
    "cotrain",
    "ambient_actions",
    "ambient_observed",
    "uncorrupted",
)  # drawn with their intervals


def write(
    table: Table, scores: Mapping[str, Scores], spectra: Spectra, field: Mapping[str, np.ndarray]
) -> None:
    """Writes the figures of the report, see ``recording`` for the last two arguments."""
    labels = {name: table.rows[name].label for name in scores}
    figures = {"data": data_figure(spectra, field), "corruptions": examples_figure(table)}
    if table.annotations:
        figures["kinds"] = kinds_figure(table)
    if "clean" in scores and len(scores) > 1:
        figures["levels"] = levels_figure(scores, labels)
    save(table.workdir / "report", figures)


def data_figure(spectra: Spectra, field: Mapping[str, np.ndarray]) -> Figure:
    """Spectra of the recorded actions, and how far the best denoiser of a joint looks."""
    figure, [[left, right]] = panels(1, 2, 9.0, 3.6)
    for index, (name, (hz, psd, law)) in enumerate(spectra.items()):
        look = style(index)
        left.plot(hz[1:], psd[1:], label=f"{name}: slope {-law.exponent:.2f}", ms=3, lw=1.2, **look)
        rate = hz[1] * int(name.split()[0])
        fitted = spectrum.power_law(hz[1:] / rate, law.exponent, law.constant)
        left.plot(hz[1:], fitted, color=look["color"], lw=0.8, ls="--")
    left.set(xscale="log", yscale="log", xlabel="frequency (Hz)")
    left.set_ylabel("power spectral density (normalised)")
    left.grid(alpha=0.25)
    left.legend(fontsize=7)
    right.plot(field["sigma"], field["field"], "o-", color=INK, ms=3, lw=1.2)
    noise_axis(right, ylabel="receptive field (actions)", ylim=(0, field["width"][-1] + 1))
    return figure


def examples_figure(table: Table) -> Figure:
    """The joint that changes most in one episode, as recorded and as each kind makes of it."""
    task = table.config.task
    source, made = data.recorded(task), data.strengths(task)
    leads = leads_of(source.motions)
    parts = data.split(len(source.motions), task)
    figure, axes = panels(2, 4, 11.0, 4.4)
    for kind, one in zip(KINDS, axes.flat, strict=False):
        episode = parts[kind][0]
        before = source.motions[episode]
        [after] = data.corrupted(source, kind, [episode], made, leads, task.data_seed)
        count = min(len(before.action), len(after.action))
        gap = np.abs(after.action[:count] - before.action[:count])
        joint = int(np.argmax(gap.mean(0) if kind != "tremor" else before.action.std(0)))
        first, width = 0, _LONG if kind in ("undone", "slow") else _SHOWN
        if kind != "slow":
            first = int(np.argmax(gap[:, joint] > 0.5 * gap[:, joint].max()))
        time = max(0, first - _SHOWN // 3) + np.arange(width)
        for motion, colours, size in ((before, _PALE, 1.0), (after, COLOURS, 1.3)):
            shown = time[time < len(motion.action)]
            for values, colour, line in zip(motion, colours[1::-1], ("--", "-"), strict=True):
                one.plot(shown / source.hz, values[shown, joint], line, color=colour, lw=size)
        one.set_title(WORDS[kind], fontsize=8)
        one.grid(alpha=0.25)
        one.tick_params(labelsize=7)
    last = axes[-1, -1]
    last.axis("off")
    lines = [
        last.plot([], [], line, color=colour)[0]
        for colours in (COLOURS, _PALE)
        for colour, line in zip(colours[:2], ("-", "--"), strict=True)
    ]
    last.legend(lines, ["action", "state", "recorded action", "recorded state"], loc="center")
    figure.supxlabel("time (s)", fontsize=8)
    return figure


def kinds_figure(table: Table) -> Figure:
    """P(clean) of each kind at each noise level, of each annotation."""
    figure, [axes] = panels(1, len(table.annotations), 12.0, 3.6, sharey=True)
    for one, (name, annotation) in zip(axes, table.annotations.items(), strict=True):
        results, bounds = annotation.results, policies.sigma_min(annotation)
        for index, kind in enumerate(KINDS):
            label = f"{WORDS[kind]}: {bounds[kind]:.2f}"
            colour = COLOURS[index % len(COLOURS)]
            one.plot(results["levels"], results["curves"][kind], color=colour, lw=1.3, label=label)
        one.axhline(0.5, color=GREY, lw=0.8)
        tau = results["config"]["task"]["tau"]
        one.axhline(0.5 - tau, color=GREY, lw=0.8, ls="--")
        noise_axis(one, title=policies.ANNOTATIONS[name])
        one.legend(fontsize=6, title=r"$\sigma_{min}$", title_fontsize=7)
    axes[0].set_ylabel("P(clean)")
    return figure


def levels_figure(scores: Mapping[str, Scores], labels: Mapping[str, str]) -> Figure:
    """Held-out loss at each noise level as a share of that of clean data alone, with intervals."""
    figure, [[left, right]] = panels(1, 2, 11.0, 4.2, width_ratios=(1, 1.6))
    levels, clean = evaluation.LEVELS, scores["clean"]
    for index, (name, one) in enumerate(scores.items()):
        look = {"color": COLOURS[index % len(COLOURS)]}
        left.plot(levels, one.loss.mean((0, 1)), lw=1.2, label=labels[name], **look)
        if name == "clean":
            right.axhline(1, lw=1.2, **look)
            continue
        both = [seed for seed in one.seeds if seed in clean.seeds]
        mine, other = (s.loss[[s.seeds.index(seed) for seed in both]] for s in (one, clean))
        ratio = [
            metrics.crossed(lambda a, b: a / b, mine[..., i], other[..., i])
            for i in range(len(levels))
        ]
        if name in _BANDS:
            band(right, levels, ratio, scale=1, ms=2, **look)
        else:
            right.plot(levels, [e.value for e in ratio], "--", lw=1.1, **look)
    left.set(yscale="log", ylabel=r"held-out squared error of $\hat{x}_0$")
    noise_axis(left)
    noise_axis(right, ylabel="as a share of clean only")
    figure.legend(
        *left.get_legend_handles_labels(), fontsize=7, ncols=2, loc="outside lower center"
    )
    return figure
