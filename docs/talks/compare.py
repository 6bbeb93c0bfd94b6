"""Sets printed numbers beside those in the results.json files of the experiments, as tables."""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ambient_jax.cli.report import markdown
from ambient_jax.estimates import Estimate, wilson_interval
from docs.talks.published import Number, Printed

ROOT = pathlib.Path(__file__).parents[2]
MARGIN = 5.0  # points; a rate less than this below another is as good (as in our tables' claims)
_PAIRED = re.compile(r"(\S+) to (\S+): ([+-][\d.]+) points \[(-?[\d.]+), (-?[\d.]+)\]")


class Metric(NamedTuple):
    """A column of ours: its name, its field in results.json, and the part of the file it is in."""

    name: str
    field: str
    part: str = "policies"

    @property
    def rate(self) -> bool:
        return self.field not in ("jerk", "acceleration")


class Order(NamedTuple):
    """What theirs says of a row: ``word`` (above, below, not above, not below) another row in a
    metric. Ours is compared with ``key``, called ``words``, where that is not that row's."""

    word: str
    other: str
    metric: int = 0
    key: str = ""
    words: str = ""


class Row(NamedTuple):
    """A policy: its name in ``published``, ours in results.json ("" for none), the orders."""

    policy: str
    key: str
    orders: tuple[Order, ...] = ()
    printed: bool = True  # False: another policy of ours for the row above


@dataclasses.dataclass(frozen=True)
class Table:
    """An experiment's table."""

    results: str
    metrics: tuple[Metric, ...]
    printed: Mapping[str, Printed]
    rows: tuple[Row, ...]


@functools.cache
def load(name: str) -> dict[str, Any]:
    """Returns experiments/<name>/results.json; raises FileNotFoundError."""
    return json.loads((ROOT / "experiments" / name / "results.json").read_text())


def find(results: Mapping[str, Any], key: str, metric: Metric) -> Estimate | None:
    """Returns a number of ours, rates in percent; None if the policy has no such number."""
    row = results[metric.part].get(key)
    if row is None:
        return None
    return estimate(row["summary"][metric.field], 100 if metric.rate else 1)


def get(results: Mapping[str, Any], key: str, metric: Metric) -> Estimate:
    """Returns a number of ours that must be there, see ``find``; else raises ValueError."""
    found = find(results, key, metric)
    if found is None:
        there = sorted(results[metric.part])
        raise ValueError(f"no policy {key!r} among the {metric.part} of results.json: {there}")
    return found


def estimate(number: Mapping[str, float], scale: float) -> Estimate:
    """Returns a number of results.json, times ``scale``."""
    return Estimate(*(scale * number[end] for end in _ENDS), int(number["count"]))


def label(results: Mapping[str, Any], key: str) -> str:
    """Returns the name that our tables give a policy."""
    return results["policies"][key]["label"]


_ENDS = ("value", "low", "high")


def theirs(number: Number, trials: int | None, rate: bool) -> str:
    """Returns the cell of a printed number, with Wilson's interval where trials are known."""
    if not isinstance(number, int | float):
        return number or ""
    if not rate:
        return _plain(number)
    if not trials:
        return f"{number:.1f}"
    return ours(rated(number, trials), True)


def rated(number: float, trials: int) -> Estimate:
    """Returns a printed rate with Wilson's interval, in percent."""
    low, high = wilson_interval(number / 100, trials)
    return Estimate(number, 100 * low, 100 * high, trials)


def ours(estimate: Estimate | None, rate: bool) -> str:
    """Returns the cell of a number of ours with its interval."""
    if estimate is None:
        return ""
    show = "{:.1f}".format if rate else _plain
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def _plain(number):
    return f"{number / 1e3:.1f}k" if number >= 1000 else f"{number:.1f}"


def difference(high: Estimate, low: Estimate) -> Estimate:
    """Returns ``high - low`` of independent estimates, its interval from theirs (Zou and Donner
    2008; Newcombe's interval for two rates)."""
    value = high.value - low.value
    down = math.hypot(high.value - high.low, low.high - low.value)
    up = math.hypot(high.high - high.value, low.value - low.low)
    return Estimate(value, value - down, value + up, min(high.count, low.count))


def ratio(high: Estimate, low: Estimate) -> Estimate:
    """Returns ``high / low`` of independent positive estimates, see ``difference``."""
    return _each(math.exp, difference(_each(math.log, high), _each(math.log, low)))


def _each(function, estimate):
    return Estimate(*(function(getattr(estimate, end)) for end in _ENDS), estimate.count)


def paired(results: Mapping[str, Any]) -> dict[tuple[str, str], Estimate]:
    """Returns gains [points] over the same starts that the claims hold, by (low, high); those on
    fresh starts, where no policy was picked, take precedence."""
    claims = sorted(results["claims"], key=lambda c: "on fresh starts" in c["claim"])
    found = {}
    for claim in claims:
        for low, high, *numbers in _PAIRED.findall(claim["measured"]):
            value, least, most = map(float, numbers)
            found[low, high] = Estimate(value, least, most, 0)
    return found


def compare(results: Mapping[str, Any], key: str, other: str, metric: Metric) -> Estimate | None:
    """Returns by how much ``key`` is above ``other``: points for a rate, else the ratio."""
    first, second = find(results, key, metric), find(results, other, metric)
    if first is None or second is None:
        return None
    if not metric.rate:
        return ratio(first, second)
    if metric.field == "success" and (gain := paired(results).get((other, key))):
        return gain
    return difference(first, second)


def verdict(word: str, gap: Estimate, rate: bool = True) -> str:
    """Returns "holds", "does not" or "undecided" of an order: "above" and "below" by the interval
    alone; "not below" holds above -MARGIN points, and does not if all of the interval is below 0.
    """
    even, low, high = 0.0 if rate else 1.0, gap.low, gap.high
    if word.endswith("above") == word.startswith("not"):  # below, or not above: mirrored
        even, low, high = -even, -high, -low
    if word.startswith("not"):
        even -= MARGIN
        return "holds" if low > even else "does not" if high < even + MARGIN else "undecided"
    return "holds" if low > even else "does not" if high < even else "undecided"


def describe(gap: Estimate, rate: bool = True) -> str:
    """Returns a gap with its interval."""
    form = "{:+.1f} [{:+.1f}, {:+.1f}]" if rate else "x {:.2f} [{:.2f}, {:.2f}]"
    text = form.format(*(getattr(gap, end) for end in _ENDS))
    return re.sub(r"-0\.0(?!\d)", "+0.0", text)


def outcome(table: Table, row: Row, order: Order) -> tuple[Estimate | None, str]:
    """Returns our gap of an order (None: not run) and its verdict."""
    results, metric = load(table.results), table.metrics[order.metric]
    key = order.key or next(r.key for r in table.rows if r.policy == order.other)
    gap = compare(results, row.key, key, metric)
    return gap, verdict(order.word, gap, metric.rate) if gap else "not run"


def judged(table: Table, row: Row, order: Order) -> str:
    """Returns an order with its verdict for ours, and the gap between theirs."""
    metric, (gap, word) = table.metrics[order.metric], outcome(table, row, order)
    name = f"{metric.name} " if _several(table) else ""
    text = f"{name}{order.word} {order.words or order.other}: **{word}**"
    printed = "; ".join(_printed_gaps(table, row, order))
    text += f", {describe(gap, metric.rate)}" if gap else ""
    return text + (f" (theirs {printed})" if printed else "")


def _printed_gaps(table, row, order):
    """The gaps between theirs, with the word where their trials leave the order open."""
    rate = table.metrics[order.metric].rate
    for source in table.printed.values() if row.printed else ():
        both = [source.numbers.get(policy, ()) for policy in (row.policy, order.other)]
        numbers = [n[order.metric] for n in both if len(n) > order.metric]
        if len(numbers) < 2 or not all(isinstance(n, int | float) for n in numbers):
            continue
        if not rate:
            yield f"x {numbers[0] / numbers[1]:.2f}"
        elif not source.trials:
            yield f"{numbers[0] - numbers[1]:+.1f}"
        else:
            gap = difference(*(rated(n, source.trials) for n in numbers))
            word = verdict(order.word, gap)
            yield f"{gap.value:+.1f}" + (", undecided" if word == "undecided" else "")


def write_table(table: Table) -> str:
    """Returns the table as Markdown."""
    results = load(table.results)
    columns, lines = ["policy"], []
    for index, metric in enumerate(table.metrics):
        columns += [f"{metric.name}, {name}" for name in _with_metric(table, index)]
        columns.append(f"{metric.name}, ours")
    for row in table.rows:
        line = [row.policy]
        for index, metric in enumerate(table.metrics):
            for name in _with_metric(table, index):
                source = table.printed[name]
                numbers = source.numbers.get(row.policy, ()) if row.printed else ()
                line.append(theirs(numbers[index], source.trials, metric.rate) if numbers else "")
            line.append(ours(find(results, row.key, metric), metric.rate))
        seeds = results["policies"].get(row.key, {}).get("seeds", ())
        line += [
            str(len(seeds) or "not run"),
            "<br>".join(judged(table, row, o) for o in row.orders),
        ]
        lines.append(line)
    return markdown([*columns, "seeds", "their order, here"], lines)


def _several(table):
    """Whether more than one metric is printed."""
    return sum(bool(_with_metric(table, index)) for index in range(len(table.metrics))) > 1


def _with_metric(table, index):
    """The sources that print a metric; some metrics are ours alone."""
    fits = lambda source: all(len(n) > index for n in source.numbers.values())  # noqa: E731
    return [name for name, source in table.printed.items() if fits(source)]
