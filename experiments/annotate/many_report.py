"""The table and the figure of ``many``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from ambient_jax.cli import report
from experiments.annotate import known, tau

COLUMNS = ("rule", "sources", "mean error", "largest", "signed", "rank", "interval", "seconds")


def rows(
    exact: Mapping[str, float],
    found: Mapping[str, Mapping[str, float]],
    curves: Mapping[str, Mapping[str, np.ndarray]],
    parts: Mapping[str, float],
) -> tuple[list[list[Any]], dict[str, Any]]:
    """Returns a row for each rule, and its errors; ``parts`` are processor seconds."""
    table: list[list[Any]] = []
    scores: dict[str, Any] = {}
    for name, by_source in curves.items():
        area = {n: -float(np.mean(c)) for n, c in by_source.items()}
        pairs = [exact[n] for n in exact], [area[n] for n in exact]
        score: dict[str, Any] = {"rank_of_mean": float(scipy.stats.spearmanr(*pairs)[0])}
        part = name if name in parts else name.rpartition(", ")[0]
        used = parts[part] + (0 if "linear" in name else parts["training"])
        if name in found:
            score |= known.errors(found[name], exact)
            cells = [f"{score[k]:+.3f}" for k in ("mean", "largest", "signed", "rank")]
            cells = [cells[0][1:], cells[1][1:], *cells[2:]]
        else:
            cells = ["", "", "", f"{score['rank_of_mean']:+.3f}"]
        scores[name] = score | {"seconds": used}
        table.append([name, len(exact), *cells, "", f"{used:.1f}"])
    return table, {"scores": scores}


def classifier(path: str, names: Sequence[str], results: dict[str, Any]) -> list[Any]:
    """Returns the row of an earlier run of ``known``, on the same laws."""
    stored = report.read(path)
    pair = {f: {n: stored[f][n] for n in names if n in stored[f]} for f in ("found", "exact")}
    error = known.errors(pair["found"], pair["exact"])
    results["scores"]["classifier"] = error
    cells = [f"{error['mean']:.3f}", f"{error['largest']:.3f}"]
    cells += [f"{error['signed']:+.3f}", f"{error['rank']:+.3f}"]
    return ["classifier", len(pair["exact"]), *cells, "", "see caption"]


def caption(
    task: Any, config: Any, paid: Mapping[int, tau.Paid], parts: Mapping[str, float]
) -> str:
    """Returns the words below the table."""
    best = lambda nats: f"{task.taus[int(np.argmin(nats))]:g} ({np.min(nats):.4f})"  # noqa: E731
    by_size = [
        f"{size} episodes: {best(p.alone)} for one source, {best(p.together)} for all, none "
        f"admitted ({p.alone[0]:.4f}), rule {p.rule:.4f}"
        for size, p in paid.items()
    ]
    return (
        f"{task.sources} sources, one seed. Influence: sigma_min is where the increasing fit to a "
        "source's influence, divided by that of held-out clean chunks, passes 0. Excess, nats: "
        "where the loss of the clean-only policy less that of the policy of all data, integrated "
        f"over snr, falls below 4 tau = {4 * task.tau:g}. Group DRO gives no bound; its rank is "
        "that of the mean log weight over the levels. Linear: the same with the best linear "
        "denoiser of each level, from the moments of all chunks; group DRO then fits it anew to "
        "the weights, 30 times; over own: less the loss of the source's own linear denoiser; of "
        "pair: clean data and the source with one denoiser, less with two, below tau; more "
        f"episodes: {task.more_episodes} of each source and five times as many clean ones. Rank: "
        "Spearman's correlation with the exact sigma_min. Interval: 95% over episodes. Seconds: "
        "processor time, with the training of both policies where they are used "
        f"({config.train.steps} steps, {task.judged} chunks of each source, {task.levels} levels), "
        "without reading the data. The classifier's row and the exact answers are of "
        "experiments/annotate/results/mixture: the same laws, more episodes.\n"
        "Best tau by clean data, and its cost in nats (linear denoisers, exact P(clean), every "
        f"fourth source, tau of {tuple(task.taus)}): {'; '.join(by_size)}.\n"
        f"Processor seconds: {', '.join(f'{n} {s:.0f}' for n, s in parts.items())}."
    )


def figure(
    levels: np.ndarray,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    found: Mapping[str, Mapping[str, float]],
    exact: Mapping[str, float],
) -> Any:
    """Plots each rule's curves, coloured by the exact sigma_min, and found against exact."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    plot = Figure(figsize=(3.4 * len(curves), 6), layout="constrained")
    axes = plot.subplots(2, len(curves), squeeze=False)
    for (upper, lower), (name, by_source) in zip(axes.T, curves.items(), strict=True):
        for n, curve in by_source.items():
            upper.plot(levels, curve, color=colormaps["viridis"](exact[n]), lw=0.8)
        upper.set(xscale="logit", title=name, xlabel=r"$\sigma$")
        upper.set_yscale("symlog", linthresh=1.0)
        upper.minorticks_off()
        if name in found:
            y, label = found[name], r"$\sigma_{min}$ found"
            lower.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls="--")
        else:
            y, label = {n: -float(np.mean(c)) for n, c in by_source.items()}, "- mean log weight"
        for change, marker in zip(sorted(known.CHANGES), "os^", strict=True):
            some = [n for n in exact if n.startswith(change)]
            x = [exact[n] for n in some]
            lower.plot(x, [y[n] for n in some], marker, ms=4, alpha=0.8, label=change)
        lower.set(xlabel=r"$\sigma_{min}$ exact", ylabel=label)
    axes[1, 0].legend(fontsize=7)
    return plot
