"""What each kind of defect does to a known plan."""

import numpy as np
import pytest

from experiments.defects import kinds
from experiments.defects.kinds import KINDS, Strengths

GOAL = np.array([8.0, 16.0])


def line(steps=8):
    """x rises by 1 and y by 2 in each step, from (0, 0) on."""
    return kinds.from_path(np.arange(steps + 1)[:, None] * np.array([1.0, 2.0]), GOAL)


def xs(values):
    return values[:, 0].tolist()


def follows(episode):
    """Whether each action is the next state."""
    return np.array_equal(episode.action[:-1], episode.state[1:])


def test_a_plan_without_defect_is_its_path():
    episode = line(3)
    assert (xs(episode.state), xs(episode.action)) == ([0, 1, 2], [1, 2, 3])
    np.testing.assert_array_equal(episode.path[:, 1], [0, 2, 4, 6])
    assert KINDS["none"](episode, None, Strengths(), None) is episode


def test_tremor_moves_states_and_actions_alike_and_not_the_start():
    noise = np.random.default_rng(0).normal(size=(8, 2))
    made = kinds.tremor(line(), noise)
    np.testing.assert_allclose(made.action - line().action, noise)
    np.testing.assert_array_equal(made.state[0], [0, 0])
    assert follows(made)
    drawn = [
        KINDS["tremor"](line(2000), np.random.default_rng(s), Strengths(), None) for s in (0, 1)
    ]
    assert (drawn[0].action - line(2000).action).std(0) == pytest.approx([0.03, 0.03], rel=0.05)
    assert not np.array_equal(drawn[0].action, drawn[1].action)


def test_late_actions_leave_the_states():
    made = kinds.late(line(), 3)
    assert xs(made.action) == [0, 0, 0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(made.state, line().state)


def test_backwards_goes_from_the_goal_to_the_start_under_the_same_label():
    made = kinds.backwards(line(3))
    assert (xs(made.state), xs(made.action)) == ([3, 2, 1], [2, 1, 0])
    np.testing.assert_array_equal(made.goal, GOAL)


def test_mirrored_actions_are_as_far_from_the_middle_on_the_other_side():
    made = kinds.mirrored(line(4), 2.5)
    assert xs(made.action) == [4, 3, 2, 1]
    np.testing.assert_array_equal(made.action[:, 1], line(4).action[:, 1])
    np.testing.assert_array_equal(made.state, line(4).state)


@pytest.mark.parametrize(("steps", "left"), [(8, [2, 4, 6, 8]), (7, [2, 4, 6, 7])])
def test_dropped_frames_double_the_speed_up_to_the_same_end(steps, left):
    made = kinds.dropped(line(steps), 2)
    assert xs(made.action) == left
    assert follows(made)


def test_repeated_frames_hold_each_position():
    made = kinds.repeated(line(3), 2)
    assert (xs(made.action), xs(made.state)) == ([1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 2, 3])


def test_another_goal_changes_the_label_alone():
    made = kinds.wrong_goal(line(), np.array([1.0, 1.0]))
    assert made.goal.tolist() == [1, 1]
    np.testing.assert_array_equal(made.path, line().path)


def test_a_clipped_workspace_bounds_states_and_actions():
    made = kinds.clipped(line(), 2.0, 5.0)
    assert xs(made.action) == [2, 2, 3, 4, 5, 5, 5, 5]
    assert (made.state.min(), made.state.max()) == (2, 5)


def test_an_offset_shifts_states_and_actions_and_not_the_goal():
    made = kinds.offset(line(), np.array([0.25, -0.25]))
    np.testing.assert_allclose(made.path - line().path, np.tile([0.25, -0.25], (9, 1)))
    np.testing.assert_array_equal(made.goal, GOAL)


def test_a_detour_is_undone_and_done_again():
    made = kinds.detour(line(), 5, 3)
    assert xs(made.path) == [0, 1, 2, 3, 4, 5, 4, 3, 2, 3, 4, 5, 6, 7, 8]
    for seed in range(20):
        drawn = KINDS["detour"](line(10), np.random.default_rng(seed), Strengths(), None)
        assert len(drawn.action) == 16  # 3 of 10 steps back, and on again
        assert np.abs(np.diff(drawn.path[:, 0])).max() == 1
        assert (drawn.path[0, 0], drawn.path[-1, 0]) == (0, 10)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"tremr": 0.1}, "did you mean 'tremor'"),
        ({"late": 0}, "config.task.strengths: late is 0, expected a positive whole number"),
        ({"low": 4.0}, "workspace 4.0 to 3.75, expected .* a low end below the high one"),
    ],
)
def test_strengths_that_cannot_be_are_told(section, told):
    with pytest.raises(ValueError, match=told):
        kinds.strengths(section)
    assert kinds.strengths({"late": 2}).late == 2


def test_every_kind_has_words():
    assert KINDS.keys() == kinds.WORDS.keys()
    assert len(KINDS) == 11
