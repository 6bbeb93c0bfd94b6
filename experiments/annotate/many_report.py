"""Exact answers, processor time, table and figure of the rules for many sources."""

import pathlib
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import scipy.stats

from ambient_jax.annotate import evidence
from ambient_jax.cli import report
from experiments.annotate import known

COLUMNS = ("rule", "sources", "mean error", "largest", "signed", "rank", "seconds")
_LEVELS, _DRAWS = 24, 1000  # of exact curves where no earlier run has them
Curves = Mapping[str, Mapping[str, np.ndarray]]


class Clock:
    """Sums processor seconds by part: ``clock(name)`` books the time since the last call."""

    def __init__(self):
        self.parts: dict[str, float] = {}
        self._last = self._used()

    def __call__(self, name: str) -> None:
        now = self._used()
        self.parts[name] = self.parts.get(name, 0.0) + now - self._last
        self._last = now

    def _used(self):
        used = resource.getrusage(resource.RUSAGE_SELF)  # of all threads
        return used.ru_utime + used.ru_stime


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError if the run that ``task.classifier`` names is of other laws or decisions."""
    task, path = config.task, config.task.classifier
    if not path:
        return
    stored = report.read(path)["config"]
    for name in ("sources", "episode_steps", "tau", "rule"):
        _same(path, f"config.task.{name}", task[name], stored["task"][name])
    _same(path, "config.data.horizon", config.data.horizon, stored["data"]["horizon"])


def _same(path, field, value, stored):
    if value != stored:
        raise ValueError(
            f"{field} is {value!r}, expected {stored!r} as in {path}, whose exact answers are "
            "used: run the variant known with your values and name its known/results.json in "
            "--config.task.classifier, or give --config.task.classifier= for none"
        )


def exact_curves(
    task: Any, steps: int, horizon: int, shift: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns levels and exact curves, those of the run that ``task.classifier`` names, if any."""
    if task.classifier:
        stored = report.read(task.classifier)
        curves = {name: np.array(curve) for name, curve in stored["exact_curves"].items()}
        return np.array(stored["exact_levels"]), curves
    levels = evidence.grid(_LEVELS)
    laws = known.laws(task.sources).items()
    chunks = {name: known.Chunks(law, horizon, steps, shift, scale) for name, law in laws}
    clean = chunks.pop("clean")
    curve = lambda law: known.exact_curve(clean, law, levels, draws=_DRAWS)  # noqa: E731
    return levels, {name: curve(law) for name, law in chunks.items()}


def rows(
    exact: Mapping[str, float],
    found: Mapping[str, Mapping[str, float]],
    curves: Curves,
    seconds: Mapping[str, float],
) -> tuple[list[list[Any]], dict[str, Any]]:
    """Returns a row for each rule, and its errors.

    Args:
      exact, found: sigma_min by source, of the densities and of each rule that gives one.
      curves: [L] by rule and source, larger where the source looks cleaner.
      seconds: processor time of each rule.
    """
    table: list[list[Any]] = []
    scores: dict[str, Any] = {}
    for name, by_source in curves.items():
        pair = [exact[n] for n in exact], [-float(np.mean(by_source[n])) for n in exact]
        rank, used = float(scipy.stats.spearmanr(*pair)[0]), seconds[name]
        scores[name] = {"rank_of_mean": rank, "seconds": used}
        cells = ["", "", "", f"{rank:+.3f}"]
        if name in found:
            error = known.errors(found[name], exact)
            scores[name] |= error
            cells = _cells(error)
        table.append([name, len(exact), *cells, f"{used:.2f}"])
    return table, scores


def classifier(path: str, names: Sequence[str], scores: dict[str, Any]) -> list[Any]:
    """Returns the row of an earlier run of ``known`` on the same laws; adds it to the scores."""
    stored = report.read(path)
    found, exact = ({n: stored[field][n] for n in names} for field in ("found", "exact"))
    scores["classifier"] = known.errors(found, exact)
    return ["classifier", len(exact), *_cells(scores["classifier"]), "minutes"]


def _cells(error):
    sizes = [f"{error[name]:.3f}" for name in ("mean", "largest")]
    return sizes + [f"{error[name]:+.3f}" for name in ("signed", "rank")]


def write(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    table: list[list[Any]],
    caption: str,
    results: dict[str, Any],
    seconds: Mapping[str, float],
) -> None:
    """Writes ``table.md``, ``results.json`` and ``rules.png`` to a folder, and prints the table."""
    caption += f"\nProcessor seconds: {', '.join(f'{n} {s:.2f}' for n, s in seconds.items())}."
    results |= dict(seconds=seconds, config=config.to_dict())
    print(report.write(folder, COLUMNS, table, caption, results))
    page = figure(*(results[name] for name in ("levels", "curves", "found", "exact")))
    page.savefig(folder / "rules.png", dpi=110)


def figure(
    levels: np.ndarray,
    curves: Curves,
    found: Mapping[str, Mapping[str, float]],
    exact: Mapping[str, float],
) -> Any:
    """Plots each rule's curves, coloured by the exact sigma_min, and found against exact."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    plot = Figure(figsize=(3.2 * len(curves), 5.6), layout="constrained")
    axes = plot.subplots(2, len(curves), squeeze=False)
    for (upper, lower), (name, by_source) in zip(axes.T, curves.items(), strict=True):
        for n, curve in by_source.items():
            upper.plot(levels, curve, color=colormaps["viridis"](exact[n]), lw=0.8)
        upper.set(xscale="logit", title=name, xlabel=r"$\sigma$")
        upper.title.set_fontsize(9)
        upper.set_yscale("symlog", linthresh=1.0)
        upper.set_xticks((0.01, 0.1, 0.5, 0.9, 0.99), ("0.01", "0.1", "0.5", "0.9", "0.99"))
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
