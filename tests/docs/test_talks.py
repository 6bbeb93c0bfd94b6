"""docs/talks.md is what its command writes; printed numbers are copied right; the verdicts."""

import re

import pytest
from PIL import Image

from ambient_jax import estimates
from ambient_jax.estimates import Estimate
from docs.talks import blocks, compare, figure, published, tables
from docs.talks.__main__ import PAGE

ROOT = compare.ROOT
TABLES = {
    "maze": (published.MAZE_TALK, published.MAZE_PAPER),
    "planar_pushing": (published.PUSHING_TALK, published.PUSHING_PAPER),
    "bin_sorting": (published.SORTING_TALK, published.SORTING_PAPER),
}
MADE = (
    *(tables.maze_talk(), tables.maze_paper(), tables.pushing(), tables.few()),
    *(tables.sorting_talk(), tables.sorting_paper(), tables.planning()),
)
ORDERS = [(table, row, order) for table in MADE for row in table.rows for order in row.orders]


def test_the_page_is_what_the_command_writes():
    page = PAGE.read_text(encoding="utf-8")
    assert blocks.fill(page) == page, "python -m docs.talks"


def test_the_figure_shows_the_numbers_of_today():
    assert Image.open(figure.PATH).text["Description"] == figure.digest(), "python -m docs.talks"


def test_no_figure_stands_outside_of_the_blocks():
    outside = blocks.BLOCK.sub("", PAGE.read_text(encoding="utf-8")).replace("intervals 95%", "")
    assert not re.findall(r"\d\.\d|\d ?%", re.sub(r"\]\(\S+\)", "", outside))


@pytest.mark.parametrize("name", ["pushing", "none"])
def test_a_page_with_other_blocks_is_refused(name):
    page = PAGE.read_text(encoding="utf-8")
    more = page.replace("<!-- talks: choice -->", f"<!-- talks: {name} -->")
    with pytest.raises(ValueError, match=f"has the blocks .*'{name}'"):
        blocks.fill(more)


@pytest.mark.parametrize("name", TABLES)
def test_the_experiment_s_own_table_quotes_the_same_numbers(name):
    """Both were copied from the sources by hand."""
    lines = (ROOT / f"experiments/{name}/results/table.md").read_text().split("\n\n")[0].split("\n")
    heads, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    for head, source in zip(("talk", "paper"), TABLES[name], strict=True):
        quoted = {row[heads.index(head)] for row in rows[1:]} - {""}
        assert quoted
        ours = [{_number(n) for n in numbers} for numbers in source.numbers.values()]
        for cell in quoted:
            found = {_number(n) for n in re.sub(r" \(.*\)", "", cell).split(" / ")}
            assert any(found <= numbers for numbers in ours), cell


def _number(text):
    text = str(text).removesuffix("%")
    if text.endswith("k"):
        return 1000 * float(text[:-1])
    return float(text) if text.replace(".", "").isdigit() else text


def test_the_paper_s_success_in_sorting_is_logic_times_motion():
    for logic, motion, success in published.SORTING_PAPER.numbers.values():
        if logic is not None and success is not None:
            assert logic * motion / 100 == pytest.approx(success, abs=0.1)


@pytest.mark.parametrize(
    ("table", "row", "order"), ORDERS, ids=[f"{r.policy} {o.word} {o.other}" for _, r, o in ORDERS]
)
def test_printed_numbers_do_not_contradict_the_orders_that_they_are_said_to_show(table, row, order):
    rate = table.metrics[order.metric].rate
    for source in table.printed.values() if row.printed else ():
        both = [
            source.numbers.get(policy, ())[order.metric :] for policy in (row.policy, order.other)
        ]
        numbers = [n[0] for n in both if n and isinstance(n[0], int | float)]
        if len(numbers) == 2:
            gap = numbers[0] - numbers[1] if rate else numbers[0] / numbers[1]
            assert compare.verdict(order.word, Estimate(gap, gap, gap, 1), rate) == "holds"


def test_every_policy_of_ours_is_in_its_results():
    for table in MADE:
        for row in table.rows:
            assert compare.find(compare.load(table.results), row.key, table.metrics[0]), row.key


def test_a_policy_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no policy 'ambient_7' among the policies"):
        compare.get(compare.load("maze/results"), "ambient_7", tables.SUCCESS)


def test_the_interval_of_a_difference_is_newcombe_s():
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 by method 10 (Newcombe 1998, table II)."""
    gap = compare.difference(estimates.wilson(56, 70), estimates.wilson(48, 80))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_a_ratio_of_exact_numbers_is_exact_and_its_interval_is_that_of_logs():
    gap = compare.ratio(Estimate(8, 4, 16, 1), Estimate(2, 2, 2, 1))
    assert (gap.value, gap.low, gap.high) == pytest.approx((4, 2, 8))


@pytest.mark.parametrize(
    ("word", "low", "high", "said"),
    [
        ("above", 0.1, 2, "holds"),
        ("above", -0.1, 2, "undecided"),
        ("above", -2, -0.1, "does not"),
        ("below", -2, -0.1, "holds"),
        ("below", 0.1, 2, "does not"),
        ("not below", -4.9, 9, "holds"),
        ("not below", -5.1, 9, "undecided"),
        ("not below", -9, -0.1, "does not"),
        ("not above", -9, 4.9, "holds"),
        ("not above", -9, 5.1, "undecided"),
        ("not above", 0.1, 9, "does not"),
    ],
)
def test_verdicts(word, low, high, said):
    assert compare.verdict(word, Estimate((low + high) / 2, low, high, 1)) == said


def test_verdicts_of_ratios_are_about_one():
    assert compare.verdict("below", Estimate(0.5, 0.4, 0.9, 1), rate=False) == "holds"
    assert compare.verdict("above", Estimate(1.1, 0.9, 1.3, 1), rate=False) == "undecided"


def test_paired_gains_on_fresh_starts_take_precedence():
    claims = [
        {"claim": "a < b, on fresh starts", "measured": "a to b: +1.5 points [0.2, 3.4]"},
        {
            "claim": "a < b",
            "measured": "a to b: +4.0 points [-1.0, 9.0]; b to c: -2.0 points [-3, -1]",
        },
    ]
    gains = compare.paired({"claims": claims})
    assert gains["a", "b"] == Estimate(1.5, 0.2, 3.4, 0) and gains["b", "c"].value == -2
