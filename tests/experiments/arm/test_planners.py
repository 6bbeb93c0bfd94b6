"""The planners: free of collisions, the same from the same seed, smooth against rough."""

import numpy as np
import pytest

from experiments.arm import metrics, planners, problems, rollout, scene, smooth, timing


@pytest.fixture(scope="module")
def plans():
    """The first plans of both planners: {planner: [(problem, plan)]}."""
    options = dict(workers=1, progress=False)
    return {
        name: [plan for _, plan in planners.generate(name, 3, 5, **options)]
        for name in planners.PLANNERS
    }


def test_plans_solve_their_problems(plans):
    arm = scene.Arm()
    for name, made in plans.items():
        for problem, plan in made:
            assert plan.shape == (timing.STEPS + 1, scene.JOINTS), name
            np.testing.assert_allclose(plan[0], problem.start)
            np.testing.assert_allclose(plan[-1], problem.goal)
            arm.place(problem.scene)
            assert planners.path_is_free(arm, plan)
            assert (plan >= arm.limits[:, 0]).all() and (plan <= arm.limits[:, 1]).all()


def test_the_optimised_plans_are_smoother(plans):
    of = {n: metrics.smoothness([p for _, p in m], 2).value for n, m in plans.items()}
    assert of["smooth"] < 0.3 * of["rrt"]


def test_an_attempt_is_a_function_of_its_numbers(plans):
    problem, again = planners.Planner("rrt").attempt(5, 0)
    first = next(planners.generate("rrt", 1, 5, workers=1, progress=False))
    assert first[0] == 0
    np.testing.assert_array_equal(first[1][1], again)
    np.testing.assert_array_equal(first[1][0].start, problem.start)


def test_every_part_of_a_motion_is_tested():
    arm = scene.Arm()
    tested = []
    arm.collides = lambda q: tested.append(q) or False
    a, b = np.zeros(7), np.full(7, 0.1)
    assert planners.segment_is_free(arm, a, b, 0.02)
    at = np.sort([q[0] for q in tested])
    assert len(at) == np.ceil(np.linalg.norm(b) / 0.02)
    assert np.diff([0, *at]).max() * np.sqrt(7) <= 0.02 + 1e-9 and at[-1] == pytest.approx(0.1)


def test_the_gradient_of_missing_distances():
    arm = scene.Arm(clearance=smooth.MARGIN)
    problem = problems.draw(3)
    arm.place(problem.scene)
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(60):
        q = problem.start + 0.1 * rng.normal(size=7)
        missing, jacobian = smooth.near(arm, q)
        step = 1e-5 * rng.normal(size=7)
        after, _ = smooth.near(arm, q + step)
        # Where the same pairs touch at the same points: first order of each distance.
        if len(missing) == 1 == len(after):
            expected = missing[0] + jacobian[0] @ step
            assert after[0] == pytest.approx(expected, abs=2e-2 * np.abs(jacobian[0] @ step) + 2e-5)
            checked += 1
    assert checked > 3


def test_timing_keeps_the_ends_and_the_order():
    waypoints = np.array([np.zeros(7), np.full(7, 0.3), np.linspace(0, 0.6, 7)])
    plan = timing.timed(waypoints, smooth=False)
    np.testing.assert_array_equal(plan[[0, -1]], waypoints[[0, -1]])
    steps = np.linalg.norm(np.diff(plan, axis=0), axis=1)
    assert steps[0] < 0.5 * steps.max() and steps[-1] < 0.5 * steps.max()  # at rest at both ends
    assert (np.abs(np.diff(plan, axis=0)) <= timing.VELOCITY * timing.DT + 1e-6).all()


def test_a_path_that_takes_too_long_has_no_timing():
    there = np.array([2.0, 0, 0, 0, 0, 0, 0])
    waypoints = np.stack([k % 2 * there for k in range(30)])
    assert timing.timed(waypoints, smooth=False) is None


def test_an_unknown_planner_is_named():
    with pytest.raises(ValueError, match="planner is 'prm', expected one of smooth, rrt"):
        planners.Planner("prm")


def test_rollouts_test_finer_than_planners():
    assert rollout.RESOLUTION < planners.RESOLUTION
