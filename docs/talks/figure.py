"""Draws docs/figures/talks.png: rates of theirs and ours as dots in pairs."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ambient_jax.estimates import Estimate
from docs.talks import tables
from docs.talks.compare import Table, find, load, rated
from docs.talks.published import Printed

PATH = pathlib.Path(__file__).parents[1] / "figures/talks.png"
STYLE = {"talk": ("D", "#e08214"), "paper": ("s", "#7b3294"), "ours": ("o", "#1b7837")}


class Line(NamedTuple):
    """A policy: its rates in percent by source ("talk", "paper", "ours")."""

    policy: str
    rates: dict[str, Estimate]


def groups() -> dict[str, list[Line]]:
    """Returns the lines of the figure by experiment."""
    return {
        "maze, 100 plans: success": list(_lines(tables.maze_talk(), 0)),
        "maze, 50 plans: success": list(_lines(tables.maze_paper(), 0)),
        "pushing: success": list(_lines(tables.pushing(), 0)),
        "pushing at the paper's tolerance: success": list(_lines(tables.pushing_paper(), 0)),
        "sorting, arbitrary demonstrations: score": list(_lines(tables.sorting_talk(), 0)),
        "sorting, opposite demonstrations: success": list(_lines(tables.sorting_paper(), 2)),
        "motion planning with 7 joints: success": list(_lines(tables.planning(), 0)),
    }


def _lines(table: Table, metric: int) -> Iterator[Line]:
    above = ""
    for row in table.rows:
        above = row.policy if row.printed else above
        found = {name: _theirs(source, above, metric) for name, source in table.printed.items()}
        rates = {name: rate for name, rate in found.items() if rate}
        if rates and (here := find(load(table.results), row.key, table.metrics[metric])):
            yield Line(row.policy, rates | {"ours": here})


def _theirs(source: Printed, policy: str, metric: int) -> Estimate | None:
    number = source.numbers.get(policy, (None,) * (metric + 1))[metric]
    if not isinstance(number, int | float):
        return None
    return rated(number, source.trials) if source.trials else Estimate(number, number, number, 0)


def digest() -> str:
    """Returns a digest of all numbers in the figure."""
    return hashlib.sha256(repr(groups()).encode()).hexdigest()


def draw() -> plt.Figure:
    """Returns the figure."""
    made = groups()
    heights = [len(lines) + 0.6 for lines in made.values()]
    figure, axes = plt.subplots(
        *(len(made), 1), figsize=(8, 11), sharex=True, gridspec_kw={"height_ratios": heights}
    )
    for axis, (title, lines) in zip(axes, made.items(), strict=True):
        for place, line in enumerate(lines):
            values = [rate.value for rate in line.rates.values()]
            axis.plot([min(values), max(values)], [place, place], color="0.8", lw=3, zorder=1)
            for name, rate in line.rates.items():
                marker, colour = STYLE[name]
                ends = [[rate.value - rate.low], [rate.high - rate.value]]
                own = name == "ours"
                axis.errorbar(
                    *(rate.value, place, None, ends),
                    **dict(fmt=marker, color=colour, mfc=colour if own else "white"),
                    **dict(ms=9 if name == "talk" else 6, lw=1, zorder=3 if own else 2),
                )
        axis.set_yticks(range(len(lines)), [line.policy for line in lines])
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(axis="x", color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set(
        xlim=(-1, 103), xlabel="percent, with 95% intervals (of theirs where trials are given)"
    )
    handles = [
        plt.Line2D([], [], ls="", marker=m, color=c, mfc=c if n == "ours" else "white", label=n)
        for n, (m, c) in STYLE.items()
    ]
    figure.legend(handles=handles, loc="upper right", ncols=3, frameon=False)
    figure.tight_layout()
    return figure


def write() -> pathlib.Path:
    """Writes the figure with the digest of its numbers; returns its path."""
    figure = draw()
    figure.savefig(PATH, dpi=110, metadata={"Description": digest()})
    plt.close(figure)
    return PATH
