import math

import numpy as np
import pytest

from experiments.bin_sorting import metrics
from experiments.bin_sorting.scene import BLUE, LEFT, NOWHERE, RED, RIGHT

COLOURS = (RED, RED, BLUE, BLUE)
# Placed: 4, 3, 2, 0 of 4. Right: red left and blue right, so 4, 1, 1, 0.
PLACEMENTS = np.array(
    [
        [LEFT, LEFT, RIGHT, RIGHT],
        [RIGHT, LEFT, NOWHERE, LEFT],
        [NOWHERE, NOWHERE, RIGHT, LEFT],
        [NOWHERE, NOWHERE, NOWHERE, NOWHERE],
    ]
)


def test_by_hand():
    found = metrics.summarise(PLACEMENTS, COLOURS)
    assert (found.completion.value, found.completion.count) == (9 / 16, 16)
    assert (found.logic.value, found.logic.count) == (6 / 9, 9)
    assert (found.score.value, found.score.count) == (6 / 16, 16)
    assert math.isclose(found.score.value, found.completion.value * found.logic.value)
    assert (found.all_placed.value, found.all_placed.count) == (0.25, 4)
    assert (found.all_right.value, found.all_right.count) == (0.25, 4)
    for estimate in (found.completion, found.logic, found.score):
        assert 0 <= estimate.low < estimate.value < estimate.high <= 1


def test_no_block_placed_is_no_logic():
    found = metrics.summarise(PLACEMENTS[3:], COLOURS)
    assert found.completion.value == found.score.value == 0.0
    assert math.isnan(found.logic.value) and found.logic.count == 0


def test_a_ratio_of_exactly_one_has_an_interval_too():
    """50 episodes without a mistake: Wilson's lower bound is n / (n + z^2) = 50 / 53.841."""
    found = metrics.ratio(np.full(50, 4), np.full(50, 4))
    assert (found.value, found.high, found.count) == (1.0, 1.0, 200)
    assert math.isclose(found.low, 50 / (50 + 1.959963984540054**2))
    # An episode in which no block was placed says nothing about logic.
    fewer = metrics.ratio([4, 0, 3], [4, 0, 3])
    assert math.isclose(fewer.low, 2 / (2 + 1.959963984540054**2))


def test_the_interval_covers_as_often_as_it_says():
    """Episodes that succeed or fail as a whole: 300 tables of 60 such episodes with p = 0.6; 95% of
    the intervals should hold 0.6, four standard deviations of 300 draws are 5 points."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        whole = 4 * (rng.random(60) < 0.6)
        found = metrics.ratio(whole, np.full(60, 4), resamples=400)
        covered += found.low <= 0.6 <= found.high
    assert 0.90 <= covered / 300 <= 1.0
    # A bootstrap over blocks, as if they were independent, would be half as wide.
    episodes = metrics.ratio(whole, np.full(60, 4))
    blocks = metrics.ratio(np.repeat(whole / 4, 4), np.ones(240))
    assert episodes.high - episodes.low > 1.6 * (blocks.high - blocks.low)


def test_bad_input():
    with pytest.raises(ValueError, match=r"placements have shape \(0, 4\), expected \[N, 4\]"):
        metrics.summarise(PLACEMENTS[:0], COLOURS)
    with pytest.raises(ValueError, match=r"expected \[N, 2\]"):
        metrics.summarise(PLACEMENTS, COLOURS[:2])
