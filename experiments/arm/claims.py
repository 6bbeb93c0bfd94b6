"""Checks what the paper reports of 7-DoF motion planning with the numbers of the table."""

from collections.abc import Mapping

import ml_collections

from experiments.arm.rollout import Rollouts
from experiments.table.report import Claim, Row, gain

CLOSED = ", replanned"  # ends the names of closed-loop rows


def main_names(task: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns the names of the three policies of the paper, by role."""
    return {
        "filtering": "smooth",
        "co-training": f"alpha_{task.share}",
        "ambient": f"ambient_{task.best}",
    }


def check(
    task: ml_collections.ConfigDict,
    rows: Mapping[str, Row],
    rollouts: Mapping[str, Mapping[int, Rollouts]],
) -> list[Claim]:
    """Returns the claims; none while one of the three policies is missing. ``rows`` and
    ``rollouts`` {seed: rollouts} are by policy, executed open loop."""
    names = main_names(task)
    if not set(names.values()) <= rows.keys():
        return []
    claims = []
    for better, worse, paper in (
        ("co-training", "filtering", "+13.9"),
        ("ambient", "co-training", "+6.0"),
        ("ambient", "filtering", "+19.9"),
    ):
        if not (got := gain(rollouts, names[better], names[worse])):
            continue
        holds = True if got.low > 0 else False if got.high < 0 else None
        value, low, high = (100 * v for v in (got.value, got.low, got.high))
        pair = f"{names[worse]} to {names[better]}"
        measured = f"{pair}: {value:+.1f} points [{low:.1f}, {high:.1f}]"
        claims.append(Claim(f"success: {better} over {worse} (paper: {paper})", measured, holds))
    smooth = {role: rows[name].summary.acceleration for role, name in names.items()}
    for smoother, rougher, paper in (
        ("filtering", "ambient", "3.9 and 31.4"),
        ("ambient", "co-training", "31.4 and 42.7"),
    ):
        a, b = smooth[smoother], smooth[rougher]
        holds = True if a.high < b.low else False if a.low > b.high else None
        words = f"accel^2: {smoother} below {rougher} (paper: {paper})"
        claims.append(Claim(words, f"{a.value:.4g} and {b.value:.4g}", holds))
    return claims
