"""Levels found without rollouts, and what their policies lose against the best of the sweep."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ambient_jax.cli.report import markdown
from ambient_jax.estimates import Estimate
from docs.talks import published
from docs.talks.compare import (
    compare,
    describe,
    difference,
    estimate,
    get,
    label,
    load,
    ours,
    verdict,
)
from docs.talks.tables import FRESH, MAZE, PUSHING, SCORE, SORTING, SUCCESS

CHOSEN = "which_data/results/chosen"


class Choice(NamedTuple):
    """One way to choose on one task."""

    way: str
    theirs: str  # their level, found by rollouts
    swept: str  # our best policy by rollouts
    best: Estimate  # its rate
    found: str  # our level without rollouts
    rate: Estimate
    gap: Estimate


def table() -> str:
    """Returns the table of all ways."""
    columns = ["task and way", "their sweep", "our sweep's best", "its rate", "without rollouts"]
    lines = [
        [
            *(c.way, c.theirs, c.swept, ours(c.best, True), c.found, ours(c.rate, True)),
            f"**{verdict('not below', c.gap)}**, {describe(c.gap)}",
        ]
        for c in (*_by_classifier(), *_by_losses())
    ]
    return markdown([*columns, "its rate", "as good as the sweep"], lines)


def _by_classifier() -> Iterator[Choice]:
    maze, pushing, sorting = load(MAZE), load(PUSHING), load(SORTING)
    top, swept = maze["best sigma_min"], pushing["best"]["best natural"]
    omni, task = sorting["best"]["arbitrary"], sorting["config"]["task"]
    push = {n: _level(a, "source, dataset") for n, a in pushing["annotations"].items()}
    paper, talk = f"{published.MAZE_SIGMA_MIN:g}", f"{published.SORTING_SIGMA_MAX['talk']:g}"
    strict = f"{push['strict']}, tau {pushing['config']['task']['strict']:g}"

    def by(way: str, theirs: str, results: Mapping[str, Any], best: str, found: str, key: str):
        metric = SCORE if results is sorting else SUCCESS
        top, rate = get(results, best, metric), get(results, key, metric)
        gap = compare(results, key, best, metric) or difference(rate, top)
        return Choice(way, theirs, label(results, best), top, found, rate, gap)

    in_maze = _level(load("annotate/results/maze"), "rrt, dataset")
    yield by("maze, classifier", paper, maze, top, in_maze, "chosen_dataset")
    yield by("pushing, classifier", "", pushing, swept, push["table"], "dataset")
    seeing = "pushing, classifier that observes"
    yield by(seeing, "", pushing, swept, push["observed"], "observed_dataset")
    yield by(seeing, "", pushing, swept, strict, "strict_dataset")
    found = f"sigma_max {task['chosen']:g}"
    yield by("sorting, classifier that observes", talk, sorting, omni, found, "chosen")


def _level(annotation, unit):
    return f"{annotation['sigma_min'][unit]['mean']:.3f}"


def _by_losses() -> Iterator[Choice]:
    maze, pushing, sorting = load(MAZE), load(PUSHING), load(SORTING)
    tasks = {
        "maze": ("maze", maze, maze["best sigma_min"], SUCCESS),
        "push": ("pushing", pushing, pushing["best"]["best"], FRESH),
        "bins": ("sorting", sorting, sorting["best"]["arbitrary"], SCORE),
    }
    for point in load(CHOSEN)["points"]:
        name, results, key, metric = tasks[point["point"]["task"]]
        rates = {n: estimate(e, 100) for n, e in point["success"].items()}
        best = rates.get("best") or get(results, key, metric)  # on the same starts, if there
        made = point["choice"]["words"], rates["chosen"], difference(rates["chosen"], best)
        yield Choice(f"{name}, losses on folds", "", label(results, key), best, *made)
