"""The table of the measurements."""

from collections.abc import Mapping
from typing import Any

from ambient_jax.cli.report import markdown

COLUMNS = ("measured", "local", "served", "asked for", "holds")
_SAYS = {True: "yes", False: "**no**"}


def table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table of the parts that were measured, with a caption."""
    lines: list[tuple[str, ...]] = []
    for name in ("maze", "pushing"):
        if name in parts:
            lines.append(_success(name, parts[name]))
    for sees, clients in parts.get("round_trip", {}).items():
        lines += [_round_trip(sees, client, one) for client, one in clients.items()]
    if "memory" in parts:
        lines += _memory(parts["memory"])
    if "restart" in parts:
        lines.append(_restart(parts["restart"]))
    return markdown(COLUMNS, lines) + "\n"


def _success(name, one):
    rate = lambda e: f"{100 * e['value']:.1f}% ({100 * e['low']:.1f} to {100 * e['high']:.1f})"  # noqa: E731
    gap, solver = one["difference"], " ".join(map(str, one["solver"]))
    holds = gap["low"] <= 0 <= gap["high"]
    return (
        f"success in {name}, {one['episodes']} episodes, {solver}, by {one['client']}",
        rate(one["local"]),
        rate(one["served"]),
        f"same; {one['other_outcome']} episodes end otherwise",
        _SAYS[holds],
    )


def _round_trip(sees, client, one):
    limit, whose = one["limit_ms"], {"ours": "our client", "openpi": "openpi-client"}[client]
    return (
        f"median of {one['calls']} calls, {sees} ({one['bytes']} bytes), {whose}",
        f"{one['local_ms']:.2f} ms",
        f"{one['served_ms']:.2f} ms, {one['beside_policy_ms']:.2f} of them not the policy's",
        f"at most {limit:.2f} ms (1.2 local + 2)",
        _SAYS[one["served_ms"] <= limit],
    )


def _memory(one):
    slope, low, high = one["slope_mib_per_100k"]
    rate = one["requests_per_second"]
    return [
        (
            f"{one['requests']} requests of {one['robots']} robots at once",
            "",
            f"{rate:.0f} a second in batches of {one['mean_rows_in_a_batch']:.1f}, "
            f"{one['wrong_answers']} wrong",
            "none wrong",
            _SAYS[not one["wrong_answers"]],
        ),
        (
            "the server's memory meanwhile",
            "",
            f"{one['memory_first_mib']:.0f} to {one['memory_last_mib']:.0f} MiB, slope "
            f"{slope:.2f} ({low:.2f} to {high:.2f}) MiB a 10^5",
            "slope's interval below 5",
            _SAYS[high < 5],
        ),
    ]


def _restart(one):
    waits = ", ".join(f"{s:.2f}" for s in one["seconds_until_all_were_answered"])
    return (
        f"kill -9 and restart, {one['kills']} times, {one['robots']} robots asking",
        "",
        f"all go on {waits} s after the port is open; {one['answers']} answers, "
        f"{one['answers_of_openpi_clients']} of openpi's clients, {one['wrong_answers']} wrong",
        "all go on, none wrong",
        _SAYS[not one["wrong_answers"] and not one["still_waiting"]],
    )
