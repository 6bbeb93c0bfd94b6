import numpy as np
import pytest

from experiments.maze import rollout
from experiments.maze.env import WORLD, MazeVectorEnv

START = np.asarray(WORLD.start)


def towards_goal(observation, chunk=3, step=0.1):
    """Straight at the goal, ``chunk`` steps at once; ignores the walls."""
    state, goal = observation["state"][:, -1], observation["goal"][:, -1]
    way = goal - state
    way *= step / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), step)
    return state[:, None] + way[:, None] * np.arange(1, chunk + 1)[:, None]


def test_outcomes_lengths_and_padding():
    # In sight 0.5 m away; behind the block on the right.
    goals = np.array([[2.5, 2.0], [4.6, 3.0]])
    result = rollout.rollout(rollout.make_env(2), towards_goal, goals)
    assert result.success.tolist() == [True, False]
    assert result.collided.tolist() == [False, True]
    # 0.4 m at 0.1 m a step bring the first within 0.1 m; float32 may ask for one more step.
    assert result.lengths[0] in (4, 5)
    assert result.positions.shape == (2, result.lengths.max() + 1, 2)
    np.testing.assert_array_equal(result.positions[:, 0], np.tile(START, (2, 1)))
    first, second = result.paths()
    assert len(first) == result.lengths[0] + 1 and len(second) == result.lengths[1] + 1
    np.testing.assert_array_equal(second[-1], second[-2])  # it stayed in front of the wall
    end = result.lengths[0]
    assert (result.positions[0, end:] == result.positions[0, end]).all()
    (kept,) = result.paths(result.success)
    np.testing.assert_array_equal(kept, first)


def test_chunks_are_executed_open_loop_and_history_is_padded():
    seen = []

    def act(observation):
        seen.append({name: value.copy() for name, value in observation.items()})
        here = observation["state"][:, -1:]
        return here + np.array([[0.0, -0.02], [0.0, -0.04]])

    goals = np.array([[2.5, 2.35]])
    result = rollout.rollout(rollout.make_env(1), act, goals, history=3)
    assert result.success.all() and result.lengths[0] == 3
    assert len(seen) == 2  # asked at steps 0 and 2
    np.testing.assert_allclose(seen[0]["state"][0], np.tile(START, (3, 1)))
    np.testing.assert_allclose(seen[1]["state"][0], START - [[0, 0], [0, 0.02], [0, 0.04]])
    np.testing.assert_allclose(seen[1]["goal"], np.tile(goals, (1, 3, 1)), rtol=1e-6)


def test_out_of_time():
    env = rollout.make_env(1, max_steps=5)
    result = rollout.rollout(env, lambda o: o["state"], np.array([[2.5, 2.0]]))
    assert result.lengths.tolist() == [5]
    assert not result.success.any() and not result.collided.any()


def test_finished_episodes_may_output_anything():
    def act(observation):
        chunk = towards_goal(observation, chunk=1)
        near = np.linalg.norm(observation["goal"] - observation["state"], axis=-1) <= 0.1
        return np.where(near[..., None], np.nan, chunk)

    goals = np.array([[2.5, 2.2], [2.5, 1.8]])
    assert rollout.rollout(rollout.make_env(2), act, goals).success.all()


def test_bad_input():
    goals = np.array([[2.5, 2.0]])
    with pytest.raises(ValueError, match="use make_env"):
        rollout.rollout(MazeVectorEnv(1), towards_goal, goals)
    with pytest.raises(ValueError, match=r"goals have shape \(1, 2\), expected \(2, 2\)"):
        rollout.rollout(rollout.make_env(2), towards_goal, goals)
    with pytest.raises(ValueError, match=r"act returned shape \(1, 2\), expected \(1, K, 2\)"):
        rollout.rollout(rollout.make_env(1), lambda o: o["state"][:, -1], goals)
    with pytest.raises(ValueError, match="action of environment 0"):
        rollout.rollout(rollout.make_env(1), lambda o: o["state"] * np.nan, goals)
