"""Parts that the figures of the tables share."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ambient_jax.estimates import Estimate

INK, GREY = "#22262b", "#8a8f98"
# Told apart with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK, "#7f4f24")
MARKS = "osD^vPX*"


def style(index: int) -> dict[str, str]:
    """Returns colour and marker of a line."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKS[index % len(MARKS)]}


def panels(rows: int, columns: int, width: float, height: float, **options) -> tuple:
    """Returns a figure and its axes [rows, columns]; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(folder: pathlib.Path, figures: Mapping[str, Figure | None], dpi: int = 160) -> None:
    """Writes the figures by name; None is left out."""
    for name, figure in figures.items():
        if figure:
            figure.savefig(folder / f"{name}.png", dpi=dpi)


def intervals(estimates: Iterable[Estimate], scale: float = 100) -> tuple[np.ndarray, np.ndarray]:
    """Returns values [N] and the ends [2, N] of their intervals; percent by default."""
    ends = [(e.value, e.low, e.high) for e in estimates]
    value, low, high = scale * np.array(ends).T
    return value, np.stack([low, high])


def band(
    axes: Axes, x: Sequence[float], estimates: Iterable[Estimate], scale: float = 100, **style
) -> None:
    """Plots a line with its intervals as a band."""
    value, (low, high) = intervals(estimates, scale)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)
    axes.plot(x, value, **{"marker": "o", "ms": 4, "lw": 1.4, **style})
    axes.grid(alpha=0.25)


def level_ticks(
    axes: Axes, levels: Sequence[float], names: Mapping[float, str] | None = None
) -> None:
    """Sets ticks at the levels of a sweep; those in ``names`` say the policy that stands there."""
    labels = [(names or {}).get(level, f"{level:g}") for level in levels]
    axes.set_xticks(levels, labels, fontsize=7, rotation=60)
    axes.minorticks_off()


def noise_axis(axes: Axes, **options) -> None:
    """Makes an x axis of noise levels sigma in (0, 1)."""
    axes.set(xscale="logit", xlabel=r"noise level $\sigma$", **options)
    axes.set_xticks([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
