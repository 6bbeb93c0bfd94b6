"""The figure of the study: success and jerk at borders against the delay."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from experiments.delays.metrics import Summary
from experiments.table.figures import band, panels, style

WORDS = {
    "receding": "receding horizon",
    "unaligned": "receding horizon, from the first action",
    "ensemble": "temporal ensembling",
    "real_time": "real-time chunking",
    "guidance": "real-time chunking by guidance",
    "open_loop": "whole chunks, open loop",
}


def against_delay(cells: Mapping[tuple[str, int], Summary], execute: int) -> Figure:
    """Plots success, and jerk at borders and inside chunks, of each (strategy, delay)."""
    figure, ((left, right),) = panels(1, 2, 10, 3.6)
    for index, name in enumerate(dict.fromkeys(name for name, _ in cells)):
        own = {delay: cell for (other, delay), cell in cells.items() if other == name}
        delays, look = list(own), style(index)
        band(left, delays, [cell.success for cell in own.values()], label=WORDS.get(name), **look)
        band(right, delays, [cell.border for cell in own.values()], scale=1, **look)
        inside = [cell.inside.value for cell in own.values()]
        right.plot(delays, inside, color=look["color"], lw=1, ls=":")
    ticks = sorted({delay for _, delay in cells})
    for axes in (left, right):
        axes.set_xticks(ticks)
        axes.set_xlabel(f"delay, steps ({execute} of a chunk are executed)")
    left.set_ylabel("success, %")
    figure.legend(
        *left.get_legend_handles_labels(), fontsize=7, ncols=5, loc="outside lower center"
    )
    right.set_ylabel("squared jerk, m$^2$/s$^6$")
    if any(cell.border.value > 0 for cell in cells.values()):
        right.set_yscale("log")
    right.set_title("at borders of chunks (dotted: inside them)", fontsize=8)
    return figure
