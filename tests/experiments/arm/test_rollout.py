"""Rollouts: collisions, limits, the goal; metrics of known paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.arm import data, metrics, planners, task, timing
from experiments.arm.rollout import TOLERANCE, Rollouts, Simulator
from experiments.arm.scene import JOINTS


@pytest.fixture(scope="module")
def solved():
    """Two problems with plans of RRT-Connect [32, 7], without their starts."""
    made = planners.generate("rrt", 2, 11, workers=1, progress=False)
    found = [plan for _, plan in made]
    return [problem for problem, _ in found], np.stack([plan[1:] for _, plan in found])


def run(drawn, plans):
    return Simulator(lambda params, observation, keys: params)(np.asarray(plans), drawn)


def test_free_plans_succeed(solved):
    drawn, plans = solved
    rolled = run(drawn, plans)
    assert rolled.success.all() and not rolled.collided.any()
    assert (rolled.lengths == timing.STEPS).all()
    np.testing.assert_allclose(rolled.positions[:, 1:], plans, atol=1e-6)
    np.testing.assert_allclose(rolled.positions[0, 0], drawn[0].start, atol=1e-6)


def test_replanning_begins_where_the_arm_is_and_ends_in_time(solved):
    drawn, plans = solved
    starts = []

    def plan(params, observation, keys):
        """The rest of the known plan, in as many steps as a whole one."""
        starts.append(1)
        begin, goal = observation["start"][:, 0], observation["goal"][:, 0]
        share = jnp.arange(1, 5)[:, None] / 4
        return begin[:, None] + share * (goal - begin)[:, None]

    free = [problem._replace(start=problem.goal - 0.02) for problem in drawn]
    with jax.disable_jit():
        rolled = Simulator(plan, 1)(None, free)
    assert len(starts) == 4 and rolled.success.all() and (rolled.lengths == 4).all()
    # A straight motion at even pace is the same, however often it is planned anew.
    even = np.linspace(free[0].start, free[0].goal, 5)
    np.testing.assert_allclose(rolled.positions[0], even, atol=1e-6)


def test_a_plan_through_a_wall_stops_before_it(solved):
    drawn, plans = solved
    straight = np.linspace(drawn[0].start, drawn[0].goal, timing.STEPS + 1)[1:]
    rolled = run(drawn, [straight, plans[1]])
    assert rolled.collided.tolist() == [True, False] and rolled.success.tolist() == [False, True]
    stop = int(rolled.lengths[0])
    assert stop < timing.STEPS
    after = rolled.positions[0, stop:]
    np.testing.assert_array_equal(after, np.broadcast_to(after[0], after.shape))


def test_a_plan_must_end_at_the_goal(solved):
    drawn, plans = solved
    short = plans.copy()
    short[0, -1, 2] += 1.5 * TOLERANCE
    short[1, -1, 2] += 0.5 * TOLERANCE
    rolled = run(drawn, short)
    assert rolled.success.tolist() == [False, True]
    np.testing.assert_allclose(rolled.miss, [1.5 * TOLERANCE, 0.5 * TOLERANCE], rtol=1e-4)


def test_joint_limits_end_a_plan(solved):
    drawn, plans = solved
    far = plans.copy()
    far[0, 5, 0] = 3.5
    rolled = run(drawn, far)
    assert rolled.limits.tolist() == [True, False] and not rolled.success[0]


def test_wrong_plans_are_refused(solved):
    drawn, plans = solved
    with pytest.raises(ValueError, match=r"plans have shape \(2, 32, 6\), expected \(N, E, 7\)"):
        run(drawn, plans[..., :6])
    plans = plans.copy()
    plans[1, 3, 0] = np.nan
    with pytest.raises(ValueError, match="the plan of episode 1 is not finite"):
        run(drawn, plans)
    with pytest.raises(ValueError, match="got no problems"):
        run([], plans)


def test_acceleration_of_a_parabola():
    # q = t^2 in one joint: acceleration 2 rad/s^2, squared 4, and no jerk.
    seconds = timing.DT * np.arange(timing.STEPS + 1)
    path = np.zeros((timing.STEPS + 1, JOINTS))
    path[:, 3] = seconds**2
    assert metrics.smoothness([path], 2).value == pytest.approx(4)
    assert metrics.smoothness([path], 3).value == pytest.approx(0, abs=1e-9)


def test_smoothness_is_of_successes_only():
    seconds = timing.DT * np.arange(timing.STEPS + 1)
    paths = np.zeros((2, timing.STEPS + 1, JOINTS), np.float32)
    paths[0, :, 0], paths[1, :, 0] = seconds**2 / 10, 5 * np.sin(9 * seconds)
    ends = dict(limits=np.zeros(2, bool), miss=np.zeros(2))
    rolled = Rollouts(
        paths, np.full(2, timing.STEPS), np.array([True, False]), ~np.array([True, False]), **ends
    )
    summary = metrics.summarise(rolled)
    assert summary.acceleration.value == pytest.approx(0.04, rel=1e-3)
    assert summary.success.value == 0.5 and summary.collided == 0.5 and summary.missed == 0


def test_problems_of_evaluations_are_not_those_of_data():
    assert max(data.stream(name, 999) for name in data._STREAMS) < task._EVALUATION
