import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from experiments.maze.env import WORLD, MazeVectorEnv, free_goals
from experiments.maze.rollout import Simulator

START = np.asarray(WORLD.start)


def towards_goal(params, observation, keys, chunk=3, step=0.1):
    """Straight at the goal, ``chunk`` steps at once; ignores the walls."""
    state, goal = observation["state"][:, -1], observation["goal"][:, -1]
    way = goal - state
    way *= step / jnp.maximum(jnp.linalg.norm(way, axis=-1, keepdims=True), step)
    return state[:, None] + way[:, None] * jnp.arange(1, chunk + 1)[:, None]


def wander(params, observation, keys, chunk=4):
    """A random walk that drifts towards the goal: some arrive, some collide, some do neither."""
    state, goal = observation["state"][:, -1], observation["goal"][:, -1]
    steps = jax.vmap(lambda k: jax.random.normal(k, (chunk, 2)))(keys) * 0.08
    return state[:, None] + jnp.cumsum(steps + 0.1 * params * (goal - state)[:, None], 1)


def test_outcomes_lengths_and_padding():
    # In sight 0.5 m away; behind the block on the right.
    goals = np.array([[2.5, 2.0], [4.6, 3.0]])
    result = Simulator(towards_goal)(None, goals)
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


def test_the_rules_are_those_of_the_environment():
    """The same actions in ``MazeVectorEnv``: the same positions, lengths and outcomes."""
    goals = free_goals(np.random.default_rng(0), 64)
    result = Simulator(wander, max_steps=30)(0.3, goals, seed=1)
    assert result.success.any() and result.collided.any()
    assert not (result.success | result.collided).all()
    env = MazeVectorEnv(64, max_steps=30, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(options={"goal": goals})
    lengths = np.zeros(64, int)
    for step in range(result.positions.shape[1] - 1):
        lengths += ~env.finished
        # Where an episode collided the rollout did not move: any point in a box will do.
        ends = result.collided & (result.lengths == step + 1)
        actions = np.where(ends[:, None], [1.5, 3.5], result.positions[:, step + 1])
        observation, _, _, _, info = env.step(actions)
        np.testing.assert_allclose(observation["state"], result.positions[:, step + 1], atol=1e-6)
    np.testing.assert_array_equal(lengths, result.lengths)
    np.testing.assert_array_equal(info["success"], result.success)
    np.testing.assert_array_equal(info["collided"], result.collided)


def test_an_episode_does_not_depend_on_those_beside_it():
    """Nor on the smaller batch it goes on in once most episodes are over."""
    goals = free_goals(np.random.default_rng(0), 40)
    simulator = Simulator(wander, max_steps=60)
    whole = simulator(0.3, goals, seed=1)
    assert (whole.lengths > np.quantile(whole.lengths, 0.74)).any()  # the batch did shrink
    some = simulator(0.3, goals[:10], seed=1)
    np.testing.assert_array_equal(some.lengths, whole.lengths[:10])
    steps = some.positions.shape[1]
    np.testing.assert_allclose(some.positions, whole.positions[:10, :steps], atol=1e-6)
    other = simulator(0.3, goals[:10], seed=2)
    assert (other.lengths != some.lengths).any()


def test_parameters_do_not_recompile():
    traced = []

    def plan(params, observation, keys):
        traced.append(1)
        return wander(params, observation, keys)

    simulator = Simulator(plan, max_steps=8)
    goals = np.array([[4.5, 0.3], [0.3, 4.5]])
    slow, fast = (simulator(np.float32(p), goals) for p in (0.1, 0.2))
    assert (slow.positions != fast.positions).any()
    assert len(traced) == 1


def test_chunks_are_executed_open_loop_and_history_is_padded():
    seen = []

    def plan(params, observation, keys):
        jax.debug.callback(lambda o: seen.append(jax.tree.map(np.array, o)), observation)
        here = observation["state"][:, -1:]
        return here + jnp.array([[0.0, -0.02], [0.0, -0.04]])

    goals = np.array([[2.5, 2.35]])
    result = Simulator(plan, history=3)(None, goals)
    jax.effects_barrier()
    assert result.success.all() and result.lengths[0] == 3
    assert len(seen) == 2  # asked at steps 0 and 2
    np.testing.assert_allclose(seen[0]["state"][0], np.tile(START, (3, 1)))
    np.testing.assert_allclose(seen[1]["state"][0], START - [[0, 0], [0, 0.02], [0, 0.04]])
    np.testing.assert_allclose(seen[1]["goal"], np.tile(goals, (1, 3, 1)), rtol=1e-6)


def test_out_of_time_in_the_middle_of_a_chunk():
    stay = lambda params, o, keys: jnp.repeat(o["state"], 2, 1)  # noqa: E731
    result = Simulator(stay, max_steps=5)(None, np.array([[2.5, 2.0]]))
    assert result.lengths.tolist() == [5] and result.positions.shape == (1, 6, 2)
    assert not result.success.any() and not result.collided.any()


def test_finished_episodes_may_output_anything():
    def plan(params, observation, keys):
        chunk = towards_goal(params, observation, keys, chunk=1)
        near = jnp.linalg.norm(observation["goal"] - observation["state"], axis=-1) <= 0.1
        return jnp.where(near[..., None], jnp.nan, chunk)

    goals = np.array([[2.5, 2.2], [2.5, 1.8]])
    assert Simulator(plan)(None, goals).success.all()


def test_bad_input():
    goals = np.array([[2.5, 2.0]])
    with pytest.raises(ValueError, match=r"goals have shape \(2,\), expected \(N, 2\)"):
        Simulator(towards_goal)(None, goals[0])
    with pytest.raises(ValueError, match=r"goal 1 is \[1.5, 3.5\], expected a free position"):
        Simulator(towards_goal)(None, np.array([[2.5, 2.0], [1.5, 3.5]]))
    with pytest.raises(ValueError, match=r"plan has shape \(1, 2\), expected \(1, K, 2\)"):
        Simulator(lambda p, o, k: o["state"][:, -1])(None, goals)
    with pytest.raises(ValueError, match="plan of episode 0 is not finite"):
        Simulator(lambda p, o, k: o["state"] * jnp.nan)(None, goals)
