"""Draws an annotation: curves, bounds, extreme chunks, calibration, spectra, locality."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ambient_jax.annotate import mismatch as mismatches
from ambient_jax.annotate import thresholds
from ambient_jax.annotate.annotation import Annotations
from ambient_jax.annotate.evidence import Evidence

GREY = "#8a8f98"
TICKS = ([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])
_FEW = 4  # sources that one panel can hold
_DASHED = dict(color=GREY, lw=0.8, ls="--")
_SMALL = dict(fontsize=7)


def write(folder: pathlib.Path, annotations: Annotations, results: Mapping[str, Any]) -> None:
    """Writes all figures of ``command.results_of`` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    evidence = annotations.evidence
    tau, rule = evidence.options.tau, evidence.options.rule
    figures = {"quality": quality(evidence, results)}
    if len(evidence.curves) > _FEW:
        figures["curves"] = page(evidence.levels, results["curves"], tau, rule)
    else:
        figures["curves"] = curves(evidence, results)
        figures["sigma_min"] = distribution(annotations)
        figures |= {f"chunks_{name}": chunks(evidence, name) for name in evidence.curves}
    if results["spectrum"]:
        figures["spectra"] = spectra(results["spectrum"])
    if annotations.locality:
        figures["locality"] = locality(evidence.levels, annotations.locality, tau)
    if annotations.mismatch:
        figures["sigma_max"] = mismatch(annotations)
    for name, figure in figures.items():
        for axes in figure.axes:
            if axes.get_legend_handles_labels()[0]:
                axes.legend(**_SMALL)
        figure.savefig(folder / f"{name}.png", dpi=160)


def _panels(width, height, columns):
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes in panels:
        axes.grid(alpha=0.25)
    return figure, panels


def _noise_axis(axes):
    axes.set(xscale="logit", xlabel=r"noise level $\sigma$")
    axes.set_xticks(*TICKS)
    axes.minorticks_off()


def _shade(index, count):
    """Returns the style of line ``index`` of ``count``, which grow darker."""
    return dict(alpha=0.25 + 0.75 * index / count, lw=1)


def curves(evidence: Evidence, results: Mapping[str, Any]) -> Figure:
    """Plots the mean P(clean) of each source, the spread of its datapoints, total variation."""
    levels = evidence.levels
    figure, (left, right) = _panels(8.4, 3.4, 2)
    for i, (name, c) in enumerate(evidence.curves.items()):
        color, mean = f"C{i}", c.mean(0)
        low, high = np.quantile(c, [0.1, 0.9], axis=0)
        left.fill_between(levels, low, high, color=color, alpha=0.15, lw=0)
        left.plot(levels, mean, ".", color=color, label=name)
        left.plot(levels, thresholds.isotonic(mean), color=color, lw=1)
        crossing = float(evidence.sigma_min(mean))
        if 0 < crossing < 1:
            left.axvline(crossing, color=color, lw=1, ls=":")
            left.text(crossing, 0.02, f" {crossing:.3f}", color=color, **_SMALL)
        tv = results["total_variation"][name]
        right.fill_between(levels, tv["low"], tv["high"], color=color, alpha=0.2, lw=0)
        right.plot(levels, tv["value"], ".-", color=color, label=f"{name}, by the classifier")
        if results["spectrum"]:
            bound, label = results["spectrum"]["sources"][name]["bound"], "bound from the spectra"
            right.plot(levels, bound, "--", color=color, lw=0.9, label=f"{name}, {label}")
    left.axhline(0.5 - evidence.options.tau, **_DASHED)
    left.set_ylabel("P(clean), 10% to 90% of datapoints")
    right.set_ylabel("total variation (held out, 95%)")
    _noise_axis(left)
    _noise_axis(right)
    return figure


def page(
    levels: np.ndarray,
    curves: Mapping[str, np.ndarray],
    tau: float,
    rule: str,
    exact: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Plots P(clean) of every source as small multiples in order of sigma_min, which is marked.

    ``curves`` are the mean P(clean) [L] of each source at ``levels`` [L], ``exact`` the true
    curves; for tau and rule see ``thresholds.sigma_min``.
    """
    low = {n: float(thresholds.sigma_min(levels, c, tau=tau, rule=rule)) for n, c in curves.items()}
    columns = 8
    lines = -(-len(low) // columns)
    figure = Figure(figsize=(1.45 * columns, 1.25 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for i, axes in enumerate(panels.ravel()):
        axes.set_visible(i < len(low))
        axes.xaxis.set_tick_params(labelbottom=i >= len(low) - columns)
    for axes, name in zip(panels.ravel(), sorted(low, key=low.__getitem__), strict=False):
        if exact:
            axes.plot(levels, exact[name], color=GREY, lw=2.5, alpha=0.6)
        axes.plot(levels, curves[name], ".", ms=3, color="C0")
        axes.plot(levels, thresholds.isotonic(curves[name]), color="C0", lw=0.8)
        axes.axhline(0.5 - tau, color=GREY, lw=0.6, ls="--")
        if 0 < low[name] < 1:
            axes.axvline(low[name], color="C3", lw=0.9)
        bound = {0.0: "all", 1.0: "none"}.get(low[name], f"{low[name]:.3f}")
        axes.set(xscale="logit", ylim=(-0.02, 0.56))
        axes.set_xticks([0.02, 0.5, 0.98], ["0.02", "0.5", "0.98"], fontsize=6)
        axes.set_yticks([0, 0.25, 0.5], ["0", "", "0.5"], fontsize=6)
        axes.minorticks_off()
        axes.grid(alpha=0.2)
        axes.set_title(f"{name if len(name) < 24 else name[:22] + '..'}\n{bound}", fontsize=5.5)
    figure.supxlabel(r"noise level $\sigma$", fontsize=8)
    figure.supylabel("P(clean)", fontsize=8)
    return figure


def distribution(annotations: Annotations) -> Figure:
    """Plots the share of each source's datapoints below each sigma_min, by granularity."""
    edges = np.concatenate([[0.0], annotations.evidence.levels, [1.0]])
    names = annotations.evidence.corrupt
    figure, panels = _panels(4.2 * len(names), 3.2, len(names))
    for axes, name in zip(panels, names, strict=True):
        for granularity, file in annotations.bounds.items():
            low = file.sigma_min[file.rows(name)]
            share = [np.mean(low <= edge) for edge in edges]
            axes.step(np.clip(edges, 2e-3, 0.9985), share, where="post", label=granularity)
        _noise_axis(axes)
        axes.set(xlabel=r"$\sigma_{min}$", title=name, ylim=(-0.02, 1.02))
        axes.set_ylabel("share of datapoints admitted above it")
    return figure


def quality(evidence: Evidence, results: Mapping[str, Any]) -> Figure:
    """Plots held-out calibration, training losses, and sigma_min's noise against bucket size."""
    figure, (left, middle, right) = _panels(10.5, 3.2, 3)
    mean, share, count = results["classifier"]["reliability"]
    error = np.sqrt(np.maximum(share * (1 - share), 1e-9) / count)
    left.plot([0, 1], [0, 1], **_DASHED)
    left.errorbar(mean, share, yerr=1.96 * error, fmt="o-", ms=3, lw=1)
    left.set(xlabel="P(clean), held out", ylabel="share of clean chunks", aspect="equal")
    history = evidence.fitted.trained.history
    steps = [row["step"] for row in history]
    for name, color in (("train", GREY), ("held_out", "C0")):
        lines = middle.plot(steps, [row[name] for row in history], color=color, lw=1)
        lines[0].set_label(name.replace("_", " "))
    middle.axhline(np.log(2), **_DASHED)
    middle.set(xlabel="step", ylabel="cross entropy (nats)")
    for name, noise in results["bucket_noise"].items():
        right.plot(noise["size"], noise["std"], "o-", ms=3, lw=1, label=name)
    right.set(xscale="log", xlabel="datapoints in a bucket (random)")
    right.set_ylabel(r"standard deviation of $\sigma_{min}$")
    right.set_visible(bool(results["bucket_noise"]))
    return figure


def spectra(spectrum: Mapping[str, Any]) -> Figure:
    """Plots the power spectral density of the chunks of each source, with its power law."""
    figure, (axes,) = _panels(4.6, 3.4, 1)
    shown = spectrum["frequency"] > 0
    frequency = spectrum["frequency"][shown]
    for i, (name, source) in enumerate(spectrum["sources"].items()):
        label = name
        if "exponent" in source:
            law = source["constant"] * frequency ** -source["exponent"]
            axes.plot(frequency, law, "--", color=f"C{i}", lw=0.8)
            label = rf"{name}, $f^{{-{source['exponent']:.1f}}}$"
        axes.plot(frequency, source["psd"][shown], "o-", ms=3, color=f"C{i}", label=label)
    axes.set(xscale="log", yscale="log", xlabel="frequency (cycles per step)")
    axes.set_xticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    axes.minorticks_off()
    axes.set_ylabel("power spectral density (normalised$^2$)")
    return figure


def locality(levels: np.ndarray, finding: Mapping[str, Any], tau: float) -> Figure:
    """Plots the error of the denoiser by crop, the receptive field, and P(clean) of crops."""
    figure, (left, middle, right) = _panels(10.5, 3.3, 3)
    for i, (name, field) in enumerate(finding["field"].items()):
        middle.plot(levels, field, "o-", ms=3, lw=1, color=f"C{i}", label=name)
        loss = np.asarray(finding["losses"][name])
        for k in range(0, len(levels), max(1, len(levels) // 5)):
            line, label = loss[k] / loss[k, -1], None if k else name
            left.plot(finding["widths"], line, label=label, color=f"C{i}", **_shade(k, len(levels)))
            left.text(finding["widths"][0], line[0], f"{levels[k]:.2g} ", fontsize=5, ha="right")
    left.set(yscale="log", xlabel="crop (steps)", ylabel="error / that of the whole chunk")
    middle.set_ylabel("receptive field (steps)")
    _noise_axis(middle)
    _crops(right, levels, finding, tau, "{name}, {width}")
    for value in finding["sigma_max"].values():
        if value > 0:
            right.axvline(value, color="C3", lw=1, ls=":")
    right.set_ylabel("P(clean) of corrupt crops, by width")
    return figure


def _crops(axes, levels, finding, tau, label):
    """Plots P(clean) of the crops of ``findings.locality``."""
    for name, lines in finding["curves"].items():
        for k, (width, line) in enumerate(zip(finding["crops"], lines, strict=True)):
            text, style = label.format(name=name, width=width), _shade(k, len(lines))
            axes.plot(levels, line, ".-", label=text, color="C3", **style)
    axes.axhline(0.5 - tau, **_DASHED)
    _noise_axis(axes)


def mismatch(annotations: Annotations) -> Figure:
    """Plots the relative disagreement of denoisers, and P(clean) of crops without O, by level."""
    levels, tau = annotations.evidence.levels, annotations.evidence.options.tau
    figure, (left, right) = _panels(8.8, 3.5, 2)
    for i, (name, finding) in enumerate((annotations.mismatch or {})["each"].items()):
        color, excess = f"C{i}", np.asarray(finding["excess"])
        for line in excess:
            left.plot(levels, line / line.max(), color=color, lw=0.6, alpha=0.6)
        mean = excess.mean(0)
        left.plot(levels, mean / mean.max(), ".-", color=color, label=f"{name}, excess loss")
        lost = mismatches.lost(np.asarray(finding["relative_entropy"]).mean(0))
        left.plot(levels, lost, ":", color=color, lw=1, label=f"{name}, relative entropy lost")
        left.axvspan(finding["low"], finding["high"], color=color, alpha=0.15, lw=0)
        left.text(finding["high"], 0.6, f" {finding['sigma_max']:.3f}", color=color, fontsize=8)
    left.axhline(tau, **_DASHED)
    left.set_ylabel("share of its largest value")
    _noise_axis(left)
    if annotations.locality:
        _crops(right, levels, annotations.locality, tau, "{name}, {width} actions")
        right.set(ylabel="P(clean) of corrupt crops, actions alone", ylim=(0, 0.6))
    right.set_visible(bool(annotations.locality))
    return figure


def chunks(evidence: Evidence, name: str, *, shown: int = 8) -> Figure:
    """Plots the chunks of lowest and of highest sigma_min in their first two action dimensions."""
    c, first, end = evidence.curves[name], evidence.judged[name], evidence.data.end
    low = evidence.sigma_min(c)
    # A grid of levels leaves ties; the mean P(clean) breaks them.
    order = np.argsort(low - 1e-3 * c.mean(1))
    figure = Figure(figsize=(1.25 * shown, 3.0), layout="constrained")
    actions = np.asarray(evidence.data.steps["action"])
    rows = {"lowest": order[:shown], "highest": order[-shown:]}
    for line, (label, row) in zip(figure.subplots(2, shown), rows.items(), strict=True):
        for axes, i in zip(line, row, strict=False):
            path = actions[first[i] : min(first[i] + evidence.horizon, int(end[first[i]]))]
            second = min(1, path.shape[1] - 1)
            axes.plot(path[:, 0], path[:, second], ".-", lw=0.8, ms=2, color="#22262b")
            axes.set_aspect("equal", adjustable="datalim")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{low[i]:.2g}", **_SMALL)
        line[0].set_ylabel(f"{label}\n" + r"$\sigma_{min}$", fontsize=8)
    return figure
