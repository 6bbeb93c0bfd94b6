"""Checks the claims about the maze with the numbers of the table."""

import itertools
from collections.abc import Mapping

import ml_collections

from experiments.table.report import Claim, Row, best_of


def sweep(task: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> dict[float, str]:
    """Returns the evaluated policies of the sweep, by increasing sigma_min."""
    names = {level: f"ambient_{level}" for level in sorted({*task.sigma_min, task.best})}
    return {level: name for level, name in names.items() if name in rows}


def best_of_sweep(task: ml_collections.ConfigDict, rows: Mapping[str, Row]) -> str:
    """Returns the most successful ambient policy of the sweep; of equals, the smoothest."""
    names = sweep(task, rows).values()
    return best_of(names, rows, lambda summary: (summary.success.value, -summary.jerk.value))


def check(task: ml_collections.ConfigDict, rows: Mapping[str, Row], rrt_jerk: float) -> list[Claim]:
    """Returns the claims; none while a policy that all of them compare is missing.

    ``rows`` are by policy, with the config's own solver; ``rrt_jerk`` is the mean squared jerk of
    the RRT data.
    """
    best = best_of_sweep(task, rows)
    if not best or not {"gcs", "rrt", "cotrain"} <= rows.keys():
        return []
    percent = lambda name: 100 * rows[name].summary.success.value  # noqa: E731
    jerk = lambda name: rows[name].summary.jerk.value  # noqa: E731
    compare = lambda a, b: (percent(a) - percent(b), jerk(a) / jerk(b))  # noqa: E731
    rising = lambda value, names: all(  # noqa: E731
        value(a) < value(b) for a, b in itertools.pairwise(names)
    )
    order = ["gcs", "cotrain", best, "rrt"]
    gap, ratio = compare(best, "cotrain")
    share = jerk("rrt") / rrt_jerk
    claims = [
        Claim(
            "ambient at its best sigma_min succeeds in at least 98.5%",
            f"{best}: {percent(best):.1f}%",
            percent(best) >= 98.5,
        ),
        Claim("ambient >= co-training - 0.5 points", f"{gap:+.1f} points", gap >= -0.5),
        Claim("jerk^2 of ambient <= 0.6 of co-training's", f"{ratio:.2f}", ratio <= 0.6),
        Claim(
            "success: GCS only < co-training < ambient < RRT only",
            ", ".join(f"{name} {percent(name):.1f}%" for name in order),
            rising(percent, order),
        ),
        Claim(
            "GCS only is far below in success (10 points)",
            f"{percent('gcs'):.1f}%",
            percent("gcs") < min(map(percent, order[1:])) - 10,
        ),
        Claim(
            "jerk^2: ambient < GCS only < co-training < RRT only",
            ", ".join(f"{name} {jerk(name):.3g}" for name in order),
            rising(jerk, [best, "gcs", "cotrain", "rrt"]),
        ),
        Claim("RRT only reaches 70% of its data's jerk^2", f"{share:.0%}", share >= 0.7),
    ]
    # A group may be left out, or not be done yet; a short sweep does not come near its limits.
    levels = list(sweep(task, rows).items())
    for (level, name), limit in ((levels[0], "cotrain"), (levels[-1], "gcs")):
        if not 0.005 < level < 0.99:
            first, second = rows[name].summary, rows[limit].summary
            pairs = (first.success, second.success), (first.jerk, second.jerk)
            agrees = [a.low <= b.high and b.low <= a.high for a, b in pairs]
            measured = f"success {agrees[0]}, jerk^2 {agrees[1]}"
            claims.append(Claim(f"{name} is {limit} within intervals", measured, all(agrees)))
    if "chosen_dataset" in rows:
        gap, ratio = compare("chosen_dataset", best)
        claim = f"sigma_min by classifier: within 2 points and 20% jerk^2 of {best}, or better"
        holds = gap >= -2 and ratio <= 1.2
        claims.append(Claim(claim, f"{gap:+.1f} points, jerk^2 x {ratio:.2f}", holds))
    if "exclusive" in rows:
        reference = f"ambient_{task.best}"
        gap, ratio = compare("exclusive", reference)
        claim = f"exclusive bands: within 1 point and 15% of {reference}"
        holds = abs(gap) <= 1 and abs(ratio - 1) <= 0.15
        claims.append(Claim(claim, f"{gap:+.1f} points, jerk^2 x {ratio:.2f}", holds))
    return claims
