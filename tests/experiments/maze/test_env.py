import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from experiments.maze import env as maze

UNIT = maze.World(0.0, 4.0, ((1.0, 2.0, 1.0, 2.0),), (0.5, 0.5))
FAR = [4.5, 4.75]  # a free goal out of the way of every test


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ((0.5, 1.5), (2.5, 1.5), True),  # through, both ends outside
        ((1.25, 1.5), (1.75, 1.5), True),  # wholly inside
        ((0.5, 0.5), (0.5, 3.5), False),  # beside
        ((0.5, 2.0), (2.5, 2.0), True),  # along an edge
        ((0.5, 1.5), (1.0, 1.5), True),  # ends on an edge
        ((0.5, 2.5), (1.5, 1.5 + 1e-9), True),
        ((0.5, 1.5), (1.5, 2.5), True),  # touches a corner diagonally
        ((0.5, 1.5 + 1e-9), (1.5, 2.5 + 1e-9), False),  # bounding boxes overlap, segment misses
        ((1.5, 1.5), (1.5, 1.5), True),  # a point
        ((0.5, 0.5), (0.5, 0.5), False),
        ((2.0, 1.5), (2.5, 1.5), True),  # touches right, bottom, top
        ((1.5, 0.5), (1.5, 1.0), True),
        ((1.5, 2.0), (1.5, 2.5), True),
        ((0.5, 3.0), (0.5, 4.0), True),  # touches the outer wall: top, bottom, left, right
        ((0.5, 0.5), (0.5, 0.0), True),
        ((0.5, 0.5), (0.0, 0.5), True),
        ((3.0, 3.0), (4.0, 3.0), True),
        ((0.5, 3.0), (0.5, 5.0), True),
        ((0.5, 3.0), (0.5, np.nan), True),
    ],
)
def test_collides(start, end, expected):
    assert maze.collides(start, end, UNIT) == expected
    assert maze.collides(end, start, UNIT) == expected


def test_collides_agrees_with_dense_sampling():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 5, (4000, 2))
    end = start + rng.normal(0, 0.5, (4000, 2))
    along = start[:, None] + np.linspace(0, 1, 2001)[:, None] * (end - start)[:, None]
    left, right, bottom, top = np.asarray(maze.WORLD.boxes).T
    x, y = along[..., 0:1], along[..., 1:2]
    sampled = ((x >= left) & (x <= right) & (y >= bottom) & (y <= top)).any((1, 2))
    sampled |= ((along <= 0) | (along >= 5)).any((1, 2))
    exact = maze.collides(start, end)
    assert 0.3 < exact.mean() < 0.95
    # Sampling may only miss: segments that clip a corner between two samples, a rare event.
    assert not (sampled & ~exact).any()
    assert (exact & ~sampled).sum() <= 2


def test_no_passage_between_abutting_boxes():
    # x = 2 is the seam of boxes (1, 2, 3, 4.5) and (2, 2.3, 2.7, 3.5).
    assert maze.collides((2.0, 3.1), (2.0, 3.4))


def test_collides_broadcasts():
    ends = np.random.default_rng(0).uniform(0, 5, (3, 4, 2))
    hits = maze.collides(maze.WORLD.start, ends)
    assert hits.shape == (3, 4)
    assert hits[1, 2] == maze.collides(maze.WORLD.start, ends[1, 2])


def test_free_goals_are_free_and_uniform():
    goals = maze.free_goals(np.random.default_rng(0), 20_000)
    assert not maze.collides(goals, goals, maze.WORLD.padded(maze.PADDING)).any()
    assert (np.linalg.norm(goals - maze.WORLD.start, axis=1) > maze.GOAL_RADIUS).all()
    # The free area is 12.75 m^2 (boxes grown by 0.1 m, walls counted once), less the start's
    # disc; [4.3, 4.6] x [0.6, 2.4], right of the long wall, is free and 0.54 m^2 of it.
    inside = ((goals > [4.3, 0.6]) & (goals < [4.6, 2.4])).all(1)
    expected = 0.54 / (12.75 - np.pi * maze.GOAL_RADIUS**2)
    assert inside.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000))


def test_free_goals_are_seeded():
    first, again = (maze.free_goals(np.random.default_rng(3), 5) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
def test_check_env():
    check_env(gymnasium.make(maze.ENV_ID).unwrapped)


def test_registered_vector_environment_is_the_twin_of_the_single_one():
    vector = gymnasium.make_vec(
        maze.ENV_ID, num_envs=3, vectorization_mode="vector_entry_point", max_steps=4
    )
    vector_observation, _ = vector.reset(seed=5)
    for i in range(3):
        single = gymnasium.make(maze.ENV_ID, max_steps=4)
        observation, _ = single.reset(seed=5 + i)
        assert single.observation_space.contains(observation)
        for name, value in observation.items():
            np.testing.assert_array_equal(value, vector_observation[name][i])
    assert vector.observation_space.contains(vector_observation)


def test_collision_ends_the_episode_at_the_last_free_position():
    single = maze.MazeEnv()
    single.reset(options={"goal": FAR})
    observation, reward, terminated, truncated, info = single.step(np.array([3.5, 3.0]))
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info == {"success": False, "collided": True}
    np.testing.assert_array_equal(observation["state"], np.float32(maze.WORLD.start))


def test_leaving_the_world_is_a_collision():
    single = maze.MazeEnv()
    single.reset(options={"goal": FAR})
    assert not single.step(np.array([2.5, 4.75]))[4]["collided"]
    assert single.step(np.array([2.5, 5.25]))[4]["collided"]


def test_success_needs_the_goal_radius():
    single = maze.MazeEnv()
    single.reset(options={"goal": [2.5, 2.0]})
    assert not single.step(np.array([2.5, 2.11]))[2]
    _, reward, terminated, truncated, info = single.step(np.array([2.5, 2.09]))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {"success": True, "collided": False}


def test_truncates_after_max_steps():
    single = maze.MazeEnv(max_steps=3)
    single.reset(options={"goal": FAR})
    flags = [single.step(np.array([2.5, 2.4]))[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_next_step_autoreset():
    vector = maze.MazeVectorEnv(2)
    first, _ = vector.reset(seed=0)
    wall, stay = [3.5, 3.0], [2.5, 2.4]
    _, _, terminated, _, _ = vector.step(np.array([wall, stay]))
    assert terminated.tolist() == [True, False]
    # The resetting step ignores its action, even a non-finite one.
    observation, reward, terminated, _, info = vector.step(np.array([[np.nan] * 2, stay]))
    assert not terminated.any() and not reward.any() and not info["collided"].any()
    np.testing.assert_array_equal(observation["state"][0], np.float32(maze.WORLD.start))
    assert (observation["goal"][0] != first["goal"][0]).any()
    np.testing.assert_array_equal(observation["goal"][1], first["goal"][1])


def test_disabled_autoreset_waits_for_reset():
    vector = maze.MazeVectorEnv(2, autoreset_mode=AutoresetMode.DISABLED)
    vector.reset(seed=0, options={"goal": [2.5, 2.0]})
    vector.step(np.array([[2.5, 2.05], [2.5, 2.3]]))
    observation, reward, terminated, _, info = vector.step(np.array([[np.nan] * 2, [2.5, 2.2]]))
    assert terminated.tolist() == info["success"].tolist() == [True, False]
    assert not reward.any()
    np.testing.assert_allclose(observation["state"], [[2.5, 2.05], [2.5, 2.2]])
    observation, info = vector.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_allclose(observation["state"], [[2.5, 2.5], [2.5, 2.2]])
    assert not info["success"].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_action_names_the_environment(bad):
    vector = maze.MazeVectorEnv(4)
    vector.reset(seed=0)
    actions = np.tile(np.array(maze.WORLD.start), (4, 1))
    actions[2, 1] = bad
    with pytest.raises(ValueError, match="action of environment 2 is .* expected a finite"):
        vector.step(actions)


def test_bad_input():
    vector = maze.MazeVectorEnv(2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        vector.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"actions have shape \(3, 2\), expected \(2, 2\)"):
        vector.step(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="goal of environment 1 is .* free position"):
        vector.reset(options={"goal": [[2.5, 2.0], [3.5, 3.0]]})
    with pytest.raises(ValueError, match=r"goal has shape \(3, 2\)"):
        vector.reset(options={"goal": np.ones((3, 2))})
    with pytest.raises(ValueError, match=r"unknown reset options \['goals'\]"):
        vector.reset(options={"goals": FAR})
    with pytest.raises(ValueError, match="reset_mask has shape"):
        vector.reset(options={"reset_mask": [True]})
    with pytest.raises(ValueError, match="got 3 seeds for 2 environments"):
        vector.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="SameStep, expected NextStep or Disabled"):
        maze.MazeVectorEnv(2, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="num_envs is 0"):
        maze.MazeVectorEnv(0)
