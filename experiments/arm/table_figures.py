"""Figures of the table: the front of success and smoothness, and the two sweeps."""

from collections.abc import Mapping

import ml_collections
from matplotlib.figure import Figure

from ambient_jax.estimates import Estimate
from experiments.table import figures as common
from experiments.table.figures import COLOURS, GREY, panels
from experiments.table.report import Row

_COLOURS = {"smooth": COLOURS[2], "rrt": COLOURS[1], "cotrain": COLOURS[4], "alpha": COLOURS[4]}
_AMBIENT = COLOURS[0]


def colour(name: str) -> str:
    """Returns the colour of a policy by its name in the table."""
    return next((c for start, c in _COLOURS.items() if name.startswith(start)), _AMBIENT)


def swept(prefix: str, rows: Mapping[str, Row]) -> dict[float, str]:
    """Returns the evaluated policies ``<prefix>_<value>`` by their increasing value."""
    found = {float(n.removeprefix(prefix + "_")): n for n in rows if n.startswith(prefix + "_")}
    return dict(sorted(found.items()))


def front(
    task: ml_collections.ConfigDict, rows: Mapping[str, Row], data: Estimate
) -> Figure | None:
    """Plots success against mean squared acceleration, a point per policy with both intervals; the
    sweeps of sigma_min and alpha are lines, the main policies larger. ``data`` is the acceleration
    of RRT-Connect's plans. None where no rollout succeeded."""
    points = {n: row.summary for n, row in rows.items() if row.summary.acceleration.count > 1}
    if not points:
        return None
    figure, [[axes]] = panels(1, 1, 7.2, 4.8)
    main = {"smooth", "rrt", "cotrain", f"alpha_{task.share}", f"ambient_{task.best}"}
    symbols = {"alpha": r"$\alpha$ ", "ambient": r"$\sigma_{min}$ "}
    for prefix in symbols:
        line = [points[n] for n in swept(prefix, points).values()]
        if prefix == "alpha" and "cotrain" in points:
            line = [points["cotrain"], *line]
        at = [(p.acceleration.value, 100 * p.success.value) for p in line]
        if at:
            axes.plot(*zip(*at, strict=True), color=colour(prefix), lw=0.9, alpha=0.5)
    for name, point in points.items():
        x, across = common.intervals([point.acceleration], 1)
        y, along = common.intervals([point.success])
        errors = dict(xerr=abs(across - x), yerr=abs(along - y))
        mark = dict(fmt="*", ms=11) if name in main else dict(fmt="o", ms=4)
        axes.errorbar(x, y, color=colour(name), lw=1, **errors, **mark)
        prefix, _, value = name.partition("_")
        text = symbols[prefix] + value if value else {"smooth": "smooth only"}.get(name, name)
        style = dict(textcoords="offset points", xytext=(6, 4), fontsize=7, color=colour(name))
        axes.annotate(text, (x[0], y[0]), **style)
    axes.axvline(data.value, color=GREY, lw=1, ls=":")
    bottom = axes.get_ylim()[0]
    axes.text(data.value, bottom, "RRT-Connect's plans ", fontsize=7, color=GREY, ha="right")
    axes.set(xscale="log", xlabel="mean squared acceleration of successful plans [rad²/s⁴]")
    axes.set_ylabel("success [%]")
    axes.grid(alpha=0.25)
    return figure


def sweep(rows: Mapping[str, Row]) -> Figure | None:
    """Plots success and acceleration against sigma_min and alpha, with the limits of both; None
    while one of the sweeps has fewer than two policies."""
    sweeps = {"ambient": r"$\sigma_{min}$ of RRT-Connect", "alpha": r"co-training's $\alpha$"}
    if any(len(swept(prefix, rows)) < 2 for prefix in sweeps):
        return None
    figure, grid = panels(2, 2, 8.4, 5.6, sharey="row", sharex="col")
    parts = (("success", 100, "success [%]"), ("acceleration", 1, "accel² [rad²/s⁴]"))
    for line, (field, scale, label) in zip(grid, parts, strict=True):
        value = lambda name, field=field: getattr(rows[name].summary, field)  # noqa: E731
        for axes, (prefix, words) in zip(line, sweeps.items(), strict=True):
            names = swept(prefix, rows)
            estimates = [value(name) for name in names.values()]
            common.band(axes, list(names), estimates, scale, color=colour(prefix))
            limits = {"smooth": "smooth only", "rrt": "RRT-Connect only", "cotrain": "co-training"}
            for limit, text in limits.items():
                if limit in rows:
                    [middle], ends = common.intervals([value(limit)], scale)
                    axes.axhspan(*ends[:, 0], color=colour(limit), alpha=0.12, lw=0)
                    axes.axhline(middle, color=colour(limit), lw=1, ls="--", label=text)
            axes.set(xscale="logit")
            common.level_ticks(axes, list(names))
            if field == "acceleration":
                axes.set(yscale="log", xlabel=words)
        line[0].set_ylabel(label)
    grid[0][1].legend(fontsize=7)
    return figure
