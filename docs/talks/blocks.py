"""The blocks of docs/talks.md, by name, and the way into the page."""

import collections
import re
from collections.abc import Callable, Mapping

from ambient_jax.cli.report import markdown
from docs.talks import choice, differences, published, tables
from docs.talks.compare import get, label, load, ours, outcome, theirs, write_table
from docs.talks.tables import PUSHING, SCALING, SUCCESS

BLOCK = re.compile(r"(<!-- talks: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
# What the long talk (part 4) says of methods with more and more source data.
SAID = {
    "hard": "drifts to source only",
    "low": "drifts to source only",
    "random": "mends the bias of bounds",
    "soft": "mends the drift",
    "ben_david": "mends the drift",
}
_HOLDS = {True: "holds", False: "does not", None: "undecided"}


def summary() -> str:
    """Returns a sentence that counts the orders of theirs by their verdicts."""
    sorting = tables.sorting_talk(), tables.sorting_paper()
    made = (
        *(tables.maze_talk(), tables.maze_paper(), tables.pushing(), tables.pushing_paper()),
        *(*sorting, tables.planning()),
    )
    words = collections.Counter(
        outcome(table, row, order)[1]
        for table in made
        for row in table.rows
        for order in row.orders
        if row.printed
    )
    return (
        f"Of {words.total()} orders that we read from their numbers on maze, pushing, sorting and "
        f"planning, {words['holds']} hold for ours, {words['does not']} do not, and "
        f"{words['undecided']} are undecided."
    )


def scaling() -> str:
    """Returns the table of more source data."""
    results, ends = load(SCALING), [str(n) for n in published.SCALING]
    below = results["held out"]["of source only"]["50"]
    lines = []
    for method, said in SAID.items():
        keys = [f"{method}_source_{n}_target_50" for n in ends]
        name = label(results, keys[0]).split(f", {ends[0]} source")[0]
        success = [ours(get(results, key, SUCCESS), True) for key in keys]
        loss = [f"{100 * (1 - below[method][n]):.1f}%" for n in ends]
        here = _bias() if method == "random" else _drift(results, name)
        lines.append([name, said, *success, *loss, here])
    columns = [*("policy", "the talk"), *(f"success, {n}" for n in ends)]
    return markdown([*columns, *(f"loss below source only, {n}" for n in ends), "here"], lines)


def _drift(results, name):
    """What a policy loses, or keeps, of what the target data teach it above sigma_min."""
    for word, drifts in (("loses", True), ("keeps", False)):
        start = f"{name}, 50 target demonstrations: {word} more than half"
        for claim in results["claims"]:
            if claim["claim"].startswith(start):
                return f"{'drifts' if drifts else 'keeps half'}: **{_HOLDS[claim['holds']]}**"
    raise ValueError(f"experiments/{SCALING}/results.json has no claim on the drift of {name!r}")


def _bias():
    bias = load(PUSHING)["modes"]["bias"]
    random, datapoint = (
        max(v for v in bias[n]["bias"] if v is not None) for n in ("random_100", "datapoint")
    )
    word = "holds" if random < datapoint / 2 else "does not"
    return f"bias {random:.3f}, per datapoint {datapoint:.3f}: **{word}**"


def theirs_only(source: published.Printed, metrics: Mapping[str, bool]) -> str:
    """Returns a table of printed numbers without any of ours; ``metrics`` says which are rates."""
    lines = []
    for policy, numbers in source.numbers.items():
        both = zip(numbers, metrics.values(), strict=True)
        lines.append([policy, *(theirs(n, source.trials, rate) for n, rate in both), "not run"])
    return markdown(["policy", *(f"{m}, paper" for m in metrics), "ours"], lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "summary": summary,
    "maze talk": lambda: write_table(tables.maze_talk()),
    "maze paper": lambda: write_table(tables.maze_paper()),
    "maze differs": differences.maze,
    "pushing": lambda: write_table(tables.pushing()),
    "pushing paper": lambda: write_table(tables.pushing_paper()),
    "pushing paper differs": differences.pushing_paper,
    "pushing few": lambda: write_table(tables.few()),
    "pushing scaling": scaling,
    "pushing differs": differences.pushing,
    "sorting talk": lambda: write_table(tables.sorting_talk()),
    "sorting paper": lambda: write_table(tables.sorting_paper()),
    "sorting few": lambda: write_table(tables.sorting_few()),
    "sorting differs": differences.sorting,
    "choice": choice.table,
    "choice differs": differences.choice,
    "planning": lambda: write_table(tables.planning()),
    "planning differs": differences.planning,
    "open x": lambda: theirs_only(
        published.OPEN_X_PAPER, {"50 demonstrations": True, "150 demonstrations": True}
    ),
    "sources": differences.sources,
}


def fill(page: str) -> str:
    """Returns the page with its blocks written anew.

    Raises:
      ValueError: the page has a block that is none, or lacks one.
    """
    there = [match[2] for match in BLOCK.finditer(page)]
    if sorted(there) != sorted(BLOCKS):
        raise ValueError(f"the page has the blocks {there}, expected each of {list(BLOCKS)} once")
    return BLOCK.sub(lambda m: f"{m[1]}{BLOCKS[m[2]]()}\n{m[3]}", page)
