import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pusht import env as pusht
from experiments.pusht import expert, figures, metrics
from experiments.pusht.rollout import Rollouts, Simulator

NAMES = ("agent_pos", "environment_state")


@pytest.fixture(scope="module")
def replayed():
    """The plan is the recorded actions: the simulator repeats the expert's episodes."""
    env = pusht.make()
    demos = [expert.demonstrate(env, expert.Hand(), seed) for seed in (3, 4)]
    longest = max(len(demo.actions) for demo in demos)
    fill = lambda d: np.pad(d.actions, ((0, longest - len(d.actions)), (0, 0)), "edge")  # noqa: E731
    actions = np.stack([fill(demo) for demo in demos])
    return demos, Simulator(lambda params, *_: params, NAMES)(actions, [3, 4])


def test_replayed_demonstrations_end_as_they_did(replayed):
    demos, result = replayed
    assert result.lengths.tolist() == [len(demo.actions) for demo in demos]
    assert result.success.all()
    for index, demo in enumerate(demos):
        assert result.coverage[index] == pytest.approx(demo.coverage)
        path = result.states[index, : result.lengths[index]]
        np.testing.assert_array_equal(path, demo.states.astype(np.float32))


def test_a_policy_sees_its_history_and_the_rest_go_on_without_the_finished():
    """Each plan goes 1 px to the right of the newest of two positions, from all starts."""
    seen = []

    def plan(params, observation, keys):
        shapes = {name: value.shape[1:] for name, value in observation.items()}
        seen.append((len(keys), shapes))
        step = jnp.array([1.0, 0.0])
        return observation["agent_pos"][:, -1:] + step * jnp.arange(1, 4)[:, None]

    result = Simulator(plan, ("agent_pos", "small"), max_steps=7)(None, [0, 1, 2])
    assert seen == [(3, {"agent_pos": (2, 2), "small": (2, 24 * 24 * 3)})]  # one compilation
    assert result.lengths.tolist() == [7, 7, 7] and not result.success.any()
    assert result.states.shape == (3, 8, 5)
    env = pusht.make()
    env.reset(seed=1)
    np.testing.assert_allclose(result.states[1, 0], pusht.state(env), rtol=1e-6)
    assert (np.diff(result.states[:, :, 0]) > 0).all()


def test_an_episode_does_not_depend_on_those_beside_it():
    toward = lambda p, o, k: jnp.repeat(o["environment_state"][:, -1:, :2], 8, 1)  # noqa: E731
    simulate = Simulator(toward, NAMES, max_steps=24)
    both, one = simulate(None, [7, 8]), simulate(None, [8])
    np.testing.assert_array_equal(both.states[1], one.states[0])


def test_bad_plans():
    with pytest.raises(ValueError, match=r"plan has shape \(1, 2\), expected \(1, E, 2\)"):
        Simulator(lambda p, o, k: o["agent_pos"][:, -1], NAMES)(None, [0])
    nan = lambda p, o, k: jnp.full((1, 1, 2), jnp.nan)  # noqa: E731
    with pytest.raises(ValueError, match="plan of episode 0 is not finite"):
        Simulator(nan, NAMES)(None, [0])
    with pytest.raises(ValueError, match="seeds have shape"):
        Simulator(nan, NAMES)(None, [])


def test_metrics_by_hand():
    """Steps of 1 and 3 px in turn: second differences of 2 px. Coverage counts up to 0.95."""
    steps = np.tile([1.0, 3.0], 10)
    states = np.zeros((2, 21, 5))
    states[0, 1:, 0] = np.cumsum(steps)
    states[1, 1:11, 0] = np.cumsum(steps[:10])
    found = metrics.summarise(
        Rollouts(
            seeds=np.arange(2),
            lengths=np.array([20, 10]),
            success=np.array([False, True]),
            coverage=np.array([0.475, 0.96]),
            states=states,
        )
    )
    assert (found.success.value, found.success.count) == (0.5, 2)
    assert found.score.value == pytest.approx(0.75)
    assert found.shake.value == pytest.approx(2)
    assert found.seconds.value == pytest.approx(1.0) and found.seconds.count == 1


def test_figures_show_every_episode(replayed):
    demos, result = replayed
    drawn = figures.film({"a": result}, frames=3)
    assert len(drawn.axes) == 6 and "success" in drawn.axes[0].get_ylabel()
    pieces = [{"state": d.states, "action": d.actions} for d in demos]
    assert len(figures.data_figure({"steady": pieces}, columns=2).axes) == 2
