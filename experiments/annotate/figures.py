"""Figures of an annotation: curves, bounds, chunks at both ends, calibration, spectra, locality."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ambient_jax.annotate import thresholds
from ambient_jax.annotate.mismatch import lost as lost_entropy

if TYPE_CHECKING:
    from experiments.annotate.annotate import Job

_INK, _GREY = "#22262b", "#8a8f98"
_FEW = 4  # sources that one panel can hold
_TICKS = ([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])


def write(
    folder: pathlib.Path,
    job: Job,
    results: Mapping[str, Any],
    bounds: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Writes all of them; ``bounds`` has sigma_min of every step by source and granularity."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(job.curves) > _FEW:
        _save(page(job.levels, job.curves, job.config.task), folder / "curves.png")
    else:
        _save(curves(job, results), folder / "curves.png")
        _save(distribution(bounds, job.levels), folder / "sigma_min.png")
        for name in job.curves:
            _save(chunks(job, name), folder / f"chunks_{name}.png")
    _save(quality(job, results), folder / "quality.png")
    if results["spectrum"]:
        _save(spectra(results["spectrum"]), folder / "spectra.png")
    if results["locality"]:
        _save(
            locality(job.levels, results["locality"], job.config.task.tau), folder / "locality.png"
        )

    if results["mismatch"]:
        _save(mismatch(job, results), folder / "sigma_max.png")


def _save(figure, path):
    figure.savefig(path, dpi=160)


def _noise_axis(axes):
    axes.set(xscale="logit", xlabel=r"noise level $\sigma$")
    axes.set_xticks(*_TICKS)
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def curves(job: Job, results: Mapping[str, Any]) -> Figure:
    """Mean P(clean) of each source with the spread of its datapoints; total variation."""
    task, levels = job.config.task, job.levels
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, c) in enumerate(job.curves.items()):
        low, high = np.quantile(c, [0.1, 0.9], axis=0)
        left.fill_between(levels, low, high, color=f"C{i}", alpha=0.15, lw=0)
        left.plot(levels, c.mean(0), ".", color=f"C{i}", label=name)
        left.plot(levels, thresholds.isotonic(c.mean(0)), color=f"C{i}", lw=1)
        crossing = float(thresholds.sigma_min(levels, c.mean(0), tau=task.tau, rule=task.rule))
        if 0 < crossing < 1:
            left.axvline(crossing, color=f"C{i}", lw=1, ls=":")
            left.text(crossing, 0.02, f" {crossing:.3f}", color=f"C{i}", fontsize=7)
        tv = results["total_variation"][name]
        right.fill_between(levels, tv["low"], tv["high"], color=f"C{i}", alpha=0.2, lw=0)
        right.plot(levels, tv["value"], ".-", color=f"C{i}", label=f"{name}, by the classifier")
        if results["spectrum"]:
            bound = results["spectrum"]["sources"][name]["bound"]
            label = f"{name}, bound from the spectra"
            right.plot(levels, bound, "--", color=f"C{i}", lw=0.9, label=label)
    left.axhline(0.5 - task.tau, color=_GREY, lw=0.8, ls="--")
    left.set_ylabel("P(clean), 10% to 90% of datapoints")
    right.set_ylabel("total variation (held out, 95%)")
    for axes in (left, right):
        _noise_axis(axes)
        axes.legend(fontsize=7)
    return figure


def page(
    levels: np.ndarray,
    each: Mapping[str, np.ndarray],
    task: Mapping[str, Any],
    exact: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """P(clean) of every source as small multiples in order of sigma_min, which is marked.

    Args:
      levels: [L].
      each: P(clean) [N, L] of the chunks of a source, by name.
      task: has tau and rule.
      exact: curves [L] that are known, by name.
    """
    low = {
        name: float(thresholds.sigma_min(levels, c.mean(0), tau=task["tau"], rule=task["rule"]))
        for name, c in each.items()
    }
    columns = 8
    lines = -(-len(each) // columns)
    figure = Figure(figsize=(1.45 * columns, 1.25 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.ravel()[len(each) :]:
        axes.set_visible(False)
    for axes in panels.ravel()[max(0, len(each) - columns) : len(each)]:
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes, name in zip(panels.ravel(), sorted(low, key=low.get), strict=False):
        c = each[name].mean(0)
        if exact:
            axes.plot(levels, exact[name], color=_GREY, lw=2.5, alpha=0.6)
        axes.plot(levels, c, ".", ms=3, color="C0")
        axes.plot(levels, thresholds.isotonic(c), color="C0", lw=0.8)
        axes.axhline(0.5 - task["tau"], color=_GREY, lw=0.6, ls="--")
        if 0 < low[name] < 1:
            axes.axvline(low[name], color="C3", lw=0.9)
        told = {0.0: "all", 1.0: "none"}.get(low[name], f"{low[name]:.3f}")
        axes.set(xscale="logit", ylim=(-0.02, 0.56))
        axes.set_xticks([0.02, 0.5, 0.98], ["0.02", "0.5", "0.98"], fontsize=6)
        axes.set_yticks([0, 0.25, 0.5], ["0", "", "0.5"], fontsize=6)
        axes.minorticks_off()
        axes.grid(alpha=0.2)
        axes.set_title(f"{name if len(name) < 24 else name[:22] + '..'}\n{told}", fontsize=5.5)
    figure.supxlabel(r"noise level $\sigma$", fontsize=8)
    figure.supylabel("P(clean)", fontsize=8)
    return figure


def known(folder: pathlib.Path, results: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    """``found.png`` (sigma_min against the exact one) and ``curves.png`` with the exact curves."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    ends = (2e-3, 0.998)
    axes.plot(ends, ends, color=_GREY, lw=0.8, ls="--")
    kinds = sorted({name.rpartition("_")[0] for name in results["exact"]})
    for kind, marker in zip(kinds, "os^", strict=True):
        own = [name for name in results["exact"] if name.startswith(kind)]
        x, y = (np.clip([results[k][n] for n in own], *ends) for k in ("exact", "found"))
        axes.plot(x, y, marker, ms=4.5, alpha=0.8, label=kind)
    for scale, name in ((axes.set_xscale, "exact"), (axes.set_yscale, "found")):
        scale("logit")
        getattr(axes, f"set_{'x' if name == 'exact' else 'y'}label")(
            rf"$\sigma_{{min}}$, {name} (0 and 1 at the ends)"
        )
    axes.set_xticks(*_TICKS)
    axes.set_yticks(*_TICKS)
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    _save(figure, folder / "found.png")
    levels = np.asarray(results["levels"])
    exact = {
        name: np.interp(levels, results["exact_levels"], curve)
        for name, curve in results["exact_curves"].items()
    }
    each = {name: np.asarray(c)[None] for name, c in results["curves"].items()}
    _save(page(levels, each, task, exact), folder / "curves.png")


def distribution(bounds: Mapping[str, Mapping[str, np.ndarray]], levels: np.ndarray) -> Figure:
    """Share of the datapoints of each source below each sigma_min, by granularity."""
    figure = Figure(figsize=(4.2 * len(bounds), 3.2), layout="constrained")
    edges = np.concatenate([[0.0], levels, [1.0]])
    for axes, (name, each) in zip(
        figure.subplots(1, len(bounds), squeeze=False)[0], bounds.items(), strict=True
    ):
        for granularity, low in each.items():
            share = [np.mean(low <= edge) for edge in edges]
            axes.step(np.clip(edges, 2e-3, 0.9985), share, where="post", label=granularity)
        _noise_axis(axes)
        axes.set(xlabel=r"$\sigma_{min}$", title=name, ylim=(-0.02, 1.02))
        axes.set_ylabel("share of datapoints admitted above it")
        axes.legend(fontsize=7)
    return figure


def quality(job: Job, results: Mapping[str, Any]) -> Figure:
    """Held-out calibration, losses while training, and sigma_min's noise against bucket size."""
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    found = results["classifier"]
    mean, share, count = found["reliability"]
    error = np.sqrt(np.maximum(share * (1 - share), 1e-9) / count)
    left.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls="--")
    left.errorbar(mean, share, yerr=1.96 * error, fmt="o-", ms=3, lw=1)
    left.set(xlabel="P(clean), held out", ylabel="share of clean chunks", aspect="equal")
    step = [row["step"] for row in found["history"]]
    for name, colour in (("train", _GREY), ("held_out", "C0")):
        for k, line in enumerate(np.transpose([row[name] for row in found["history"]])):
            label = name.replace("_", " ") if k == 0 else None
            middle.plot(step, line, color=colour, lw=1, label=label)
    middle.axhline(np.log(2), color=_GREY, lw=0.8, ls="--")
    middle.set(xlabel="step", ylabel="cross entropy (nats)")
    middle.legend(fontsize=7)
    for name, noise in results["bucket_noise"].items():
        right.plot(noise["size"], noise["std"], "o-", ms=3, lw=1, label=name)
    right.set(xscale="log", xlabel="datapoints in a bucket (random)")
    right.set_ylabel(r"standard deviation of $\sigma_{min}$")
    if results["bucket_noise"]:
        right.legend(fontsize=7)
    else:
        right.set_visible(False)
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
    return figure


def spectra(found: Mapping[str, Any]) -> Figure:
    """Power spectral density of the chunks of each source, with its power law."""
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    frequency = found["frequency"]
    shown = frequency > 0
    for i, (name, each) in enumerate(found["sources"].items()):
        label = name
        if "exponent" in each:
            law = each["constant"] * frequency[shown] ** -each["exponent"]
            axes.plot(frequency[shown], law, "--", color=f"C{i}", lw=0.8)
            label = rf"{name}, $f^{{-{each['exponent']:.1f}}}$"
        axes.plot(frequency[shown], each["psd"][shown], "o-", ms=3, color=f"C{i}", label=label)
    axes.set(xscale="log", yscale="log", xlabel="frequency (cycles per step)")
    axes.set_xticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    axes.minorticks_off()
    axes.set_ylabel("power spectral density (normalised$^2$)")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7)
    return figure


def locality(levels: np.ndarray, found: Mapping[str, Any], tau: float) -> Figure:
    """Error of the denoiser by crop, receptive field, and P(clean) of crops."""
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for i, (name, field) in enumerate(found["field"].items()):
        middle.plot(levels, field, "o-", ms=3, lw=1, color=f"C{i}", label=name)
        loss = np.asarray(found["losses"][name])
        for k in range(0, len(levels), max(1, len(levels) // 5)):
            shade = 0.25 + 0.75 * k / len(levels)
            line = loss[k] / loss[k, -1]
            label = name if k == 0 else None
            left.plot(found["widths"], line, color=f"C{i}", alpha=shade, lw=1, label=label)
            left.text(found["widths"][0], line[0], f"{levels[k]:.2g} ", fontsize=5, ha="right")
    left.set(yscale="log", xlabel="crop (steps)", ylabel="error / that of the whole chunk")
    middle.set_ylabel("receptive field (steps)")
    _noise_axis(middle)
    for name, lines in found["curves"].items():
        for k, (width, line) in enumerate(zip(found["crops"], lines, strict=True)):
            shade = 0.25 + 0.75 * k / len(lines)
            right.plot(levels, line, ".-", color="C3", alpha=shade, lw=1, label=f"{name}, {width}")
        if found["sigma_max"][name] > 0:
            right.axvline(found["sigma_max"][name], color="C3", lw=1, ls=":")
    right.axhline(0.5 - tau, color=_GREY, lw=0.8, ls="--")
    right.set_ylabel("P(clean) of corrupt crops, by width")
    _noise_axis(right)
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=6)
    return figure


def mismatch(job: Job, results: Mapping[str, Any]) -> Figure:
    """Share of the disagreement of denoisers against the level; P(clean) of crops without O."""
    tau, levels = job.config.task.tau, job.levels
    figure = Figure(figsize=(8.8, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, found) in enumerate(results["mismatch"]["each"].items()):
        excess = np.asarray(found["excess"])
        for each in excess:
            left.plot(levels, each / each.max(), color=f"C{i}", lw=0.6, alpha=0.6)
        mean = excess.mean(0)
        left.plot(levels, mean / mean.max(), ".-", color=f"C{i}", label=f"{name}, excess loss")
        lost = lost_entropy(np.asarray(found["relative_entropy"]).mean(0))
        label = f"{name}, relative entropy lost"
        left.plot(levels, lost, ":", color=f"C{i}", lw=1, label=label)
        left.axvspan(found["low"], found["high"], color=f"C{i}", alpha=0.15, lw=0)
        left.text(found["high"], 0.6, f" {found['sigma_max']:.3f}", color=f"C{i}", fontsize=8)
    left.axhline(tau, color=_GREY, lw=0.8, ls="--")
    left.set_ylabel("share of its largest value")
    if results["locality"]:
        for name, lines in results["locality"]["curves"].items():
            for k, (width, line) in enumerate(
                zip(results["locality"]["crops"], lines, strict=True)
            ):
                shade = 0.25 + 0.75 * k / len(lines)
                label = f"{name}, {width} actions"
                right.plot(levels, line, ".-", color="C3", alpha=shade, lw=1, label=label)
        right.axhline(0.5 - tau, color=_GREY, lw=0.8, ls="--")
        right.set(ylabel="P(clean) of corrupt crops, actions alone", ylim=(0, 0.6))
    else:
        right.set_visible(False)
    for axes in (left, right):
        _noise_axis(axes)
        axes.legend(fontsize=7)
    return figure


def chunks(job: Job, name: str, *, shown: int = 8) -> Figure:
    """The chunks of lowest and of highest sigma_min, first two action dimensions."""
    task, c = job.config.task, job.curves[name]
    low = thresholds.sigma_min(job.levels, c, tau=task.tau, rule=task.rule)
    # P(clean) over all levels breaks the ties that a grid of levels leaves.
    order = np.argsort(low - 1e-3 * c.mean(1))
    figure = Figure(figsize=(1.25 * shown, 3.0), layout="constrained")
    panels = figure.subplots(2, shown)
    actions, own = np.asarray(job.data.steps["action"]), job.judged[name]
    for line, rows, told in zip(
        panels, (order[:shown], order[-shown:]), ("lowest", "highest"), strict=True
    ):
        for axes, row in zip(line, rows, strict=False):
            start = own[row]
            end = min(start + job.config.data.horizon, int(job.data.end[start]))
            path = actions[start:end]
            second = min(1, path.shape[1] - 1)
            axes.plot(path[:, 0], path[:, second], ".-", lw=0.8, ms=2, color=_INK)
            axes.set_aspect("equal", adjustable="datalim")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"{low[row]:.2g}", fontsize=7)
        line[0].set_ylabel(f"{told}\n" + r"$\sigma_{min}$", fontsize=8)
    return figure


def three_points(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """``three_points.png``: share of 0 against the size of the corrupt set, by assignment."""
    taus = sorted({row["tau"] for row in rows}, reverse=True)
    figure = Figure(figsize=(4.4 * len(taus), 3.4), layout="constrained")
    for axes, tau in zip(figure.subplots(1, len(taus), squeeze=False)[0], taus, strict=True):
        for i, kind in enumerate(dict.fromkeys(row["assignment"] for row in rows)):
            own = [row for row in rows if row["assignment"] == kind and row["tau"] == tau]
            size = [row["corrupt"] for row in own]
            share = lambda name: [row[name][1] for row in own]  # noqa: B023, E731
            axes.plot(size, share("exact"), "-", color=f"C{i}", lw=1, label=kind)
            error = [1.96 * row["standard_error"][1] for row in own]
            axes.errorbar(size, share("drawn"), yerr=error, fmt="o", ms=4, color=f"C{i}")
            error = [1.96 * row["sampled_error"][1] for row in own]
            axes.errorbar(size, share("sampled"), error, fmt="x:", color=f"C{i}", ms=5, lw=0.8)
        axes.axhline(0.5, color=_GREY, lw=0.8, ls="--")
        axes.set(xscale="log", ylim=(0.4, 1.02), title=rf"$\tau$ = {tau:g}")
        axes.set_xlabel("number of corrupt points")
        axes.set_ylabel("share of 0: data (line, dots), samples (x)")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7)
    _save(figure, folder / "three_points.png")
