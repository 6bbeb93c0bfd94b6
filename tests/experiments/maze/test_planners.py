import numpy as np
import pytest

from experiments.maze import metrics, planners
from experiments.maze.env import DT, PADDING, WORLD, World, collides


@pytest.fixture(scope="module")
def gcs():
    return planners.generate("gcs", 6, workers=1, progress=False)


@pytest.fixture(scope="module")
def rrt():
    return planners.generate("rrt", 60, workers=1, progress=False)


@pytest.fixture(scope="module")
def shortcut():
    return planners.generate("shortcut", 40, workers=1, progress=False)


def test_free_rectangles_of_one_box():
    world = World(0.0, 4.0, ((1.0, 2.0, 1.0, 2.0),), (0.5, 0.5))
    found = {tuple(map(tuple, r)) for r in planners.free_rectangles(0.25, world).tolist()}
    assert found == {
        ((0.25, 0.25), (0.75, 3.75)),
        ((2.25, 0.25), (3.75, 3.75)),
        ((0.25, 0.25), (3.75, 0.75)),
        ((0.25, 2.25), (3.75, 3.75)),
    }


def test_free_rectangles_cover_exactly_the_free_space():
    rectangles = planners.free_rectangles()
    points = np.random.default_rng(0).uniform(0, 5, (20_000, 1, 2))
    covered = ((points > rectangles[:, 0]) & (points < rectangles[:, 1])).all(-1).any(-1)
    free = ~collides(points[:, 0], points[:, 0], WORLD.padded(PADDING))
    np.testing.assert_array_equal(covered, free)


def test_free_rectangles_overlap_into_one_piece():
    low, high = np.moveaxis(planners.free_rectangles(), 1, 0)
    overlap = (np.minimum(high[:, None], high) > np.maximum(low[:, None], low)).all(-1)
    reached = np.linalg.matrix_power(overlap.astype(float), len(low)) > 0
    assert reached.all()


@pytest.mark.parametrize("source", ["gcs", "rrt", "shortcut"])
def test_plans_start_at_the_start_end_at_the_goal_and_keep_their_distance(source, request):
    plans = request.getfixturevalue(source)
    padded = WORLD.padded(PADDING - 1e-6)
    for goal, path in zip(plans.goals, plans.positions, strict=True):
        np.testing.assert_array_equal(path[0], WORLD.start)
        np.testing.assert_array_equal(path[-1], goal)
        assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() <= DT * (1 + 1e-9)
        assert not collides(path[:-1], path[1:]).any()
        assert not collides(path, path, padded).any()
        if source == "rrt":  # a chord of GCS may cut the corner that its curve goes around
            assert not collides(path[:-1], path[1:], padded).any()


def test_gcs_keeps_its_speed_where_regions_meet(gcs):
    # A velocity kink of Drake's own timing is 0.4 to 0.6 m/s of speed.
    for path in gcs.positions:
        speed = np.linalg.norm(np.diff(path, axis=0), axis=1) / DT
        assert np.ptp(speed) < 0.2
        assert speed.max() > 0.9 or len(path) < 12


def test_shortcuts_lie_between(gcs, rrt, shortcut):
    jerk = [metrics.mean_squared_jerk(p.positions) for p in (gcs, shortcut, rrt)]
    assert jerk[0].high < jerk[1].low and jerk[1].high < 0.1 * jerk[2].low


def test_gcs_is_smooth_and_rrt_is_not(gcs, rrt):
    smooth = metrics.mean_squared_jerk(gcs.positions)
    jagged = metrics.mean_squared_jerk(rrt.positions)
    assert 100 * smooth.high < jagged.low


def test_at_constant_speed_rounds_the_duration_up():
    path = planners.at_constant_speed(np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 0.25]]))
    assert len(path) == 9  # 0.75 m are 7.5 steps
    np.testing.assert_allclose(np.abs(np.diff(path, axis=0)).sum(1), 0.75 / 8)
    np.testing.assert_array_equal(path[-1], [0.5, 0.25])
    assert len(planners.at_constant_speed(np.array([[0.0, 0.0], [0.3, 0.0]]))) == 4


def test_the_planner_and_the_environment_agree_on_collisions():
    rng = np.random.default_rng(0)
    # A grid of 0.1 m makes touching frequent.
    ends = np.round(rng.uniform(-0.2, 5.2, (5000, 2, 2)), 1)
    expected = collides(ends[:, 0], ends[:, 1])
    found = [not planners._clear(WORLD, *segment.ravel().tolist()) for segment in ends]
    np.testing.assert_array_equal(found, expected)
    assert 0.1 < expected.mean() < 0.95


@pytest.mark.parametrize("source", ["gcs", "rrt", "shortcut"])
def test_plans_do_not_depend_on_workers_or_order(source, request):
    plans = request.getfixturevalue(source)
    count = 4 if source == "gcs" else 40
    parallel = planners.generate(source, count, workers=2, progress=False)
    for one, other in zip(parallel.positions, plans.positions, strict=False):
        np.testing.assert_array_equal(one, other)
    for index in (3, 1):
        goal, path = planners.attempt(source, 0, plans.attempts[index])
        np.testing.assert_array_equal(goal, plans.goals[index])
        np.testing.assert_array_equal(path, plans.positions[index])


def test_seeds_and_planners_have_goals_of_their_own(rrt):
    other = planners.generate("rrt", 3, seed=1, workers=1, progress=False)
    goal, _ = planners.attempt("gcs", 0, 0)
    assert (other.goals != rrt.goals[:3]).any()
    assert (goal != rrt.goals[0]).any()


def test_failures_are_counted_and_replaced(monkeypatch, rrt):
    real = planners.RrtPlanner()
    blocked = {tuple(rrt.goals[1])}

    def through_walls(goal, seed):
        if tuple(goal) in blocked:
            return np.array([WORLD.start, (4.75, 3.0)])
        return real(goal, seed)

    monkeypatch.setitem(planners.PLANNERS, "rrt", lambda: through_walls)
    planners._planner.cache_clear()
    try:
        plans = planners.generate("rrt", 3, workers=1, progress=False)
    finally:
        planners._planner.cache_clear()
    assert plans.failures == 1
    assert plans.attempts.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(plans.positions[1], rrt.positions[2])


def test_a_planner_that_always_fails_is_given_up(monkeypatch):
    monkeypatch.setitem(planners.PLANNERS, "rrt", lambda: lambda goal, seed: None)
    planners._planner.cache_clear()
    try:
        with pytest.raises(ValueError, match="rrt plans: 15 of 15 .* failed.*planners.attempt"):
            planners.generate("rrt", 5, workers=1, progress=False)
    finally:
        planners._planner.cache_clear()


def test_bad_input():
    with pytest.raises(ValueError, match="did you mean 'rrt'"):
        planners.generate("rtt", 1)
    with pytest.raises(ValueError, match="n is -1"):
        planners.generate("rrt", -1)
    with pytest.raises(ValueError, match="seed is 0, expected a positive integer"):
        planners.RrtPlanner()(np.array([2.5, 2.0]), 0)
