"""The figure of the gains of each kind, by noise level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.defects.advice import Advice
from experiments.defects.kinds import WORDS
from experiments.table.figures import COLOURS, GREY, noise_axis, panels

_LIMITS = -150.0, 100.0


def gains(given: Sequence[Advice]) -> Figure:
    """Plots a panel for each kind: by how much the held-out loss falls at each noise level.

    Levels at which the advice lets the kind train are shaded.
    """
    columns = 4
    rows = -(-len(given) // columns)
    figure, grid = panels(rows, columns, 11, 2.3 * rows + 0.4, sharex=True, sharey=True)
    for rank, (axes, one) in enumerate(zip(grid.flat, given, strict=False), 1):
        chosen, colour = one.choice, COLOURS[0]
        value, high, low = (100 * (1 - np.exp(x)) for x in (chosen.ratio, chosen.low, chosen.high))
        axes.fill_between(chosen.levels, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(chosen.levels, value, color=colour, marker="o", ms=3, lw=1.3)
        axes.axhline(0, color=GREY, lw=0.8)
        for left, right in _spans(one.bounds):
            axes.axvspan(left, right, color=COLOURS[2], alpha=0.13, lw=0)
        noise_axis(axes, ylim=_LIMITS)
        axes.set_title(f"{rank}. {WORDS[one.kind]}\ntrains {one.words}", fontsize=8)
        axes.label_outer()
    for axes in grid.flat[len(given) :]:
        axes.set_axis_off()
    figure.supylabel("held-out loss falls by, % (shaded: levels that train)", fontsize=9)
    return figure


def _spans(bounds):
    """Returns the intervals of noise levels that bounds admit, within the axis."""
    low, high = bounds
    first, last = 1e-3, 1 - 1e-3
    if low <= 0 or high >= 1 or high > low:
        return [(first, last)]
    return [(a, b) for a, b in ((first, high), (low, last)) if a < b]
