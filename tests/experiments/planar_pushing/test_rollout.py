import jax.numpy as jnp
import numpy as np
import pytest

from experiments.planar_pushing import expert, figures
from experiments.planar_pushing.env import PlanarPushingEnv
from experiments.planar_pushing.rollout import Simulator
from experiments.planar_pushing.scene import SOURCE, TARGET, Scene


@pytest.fixture(scope="module")
def replayed():
    """The plan is the recorded actions: the simulator repeats the expert's episodes."""
    env = PlanarPushingEnv(physics=SOURCE)
    demos = [expert.demonstrate(env, "planner", seed) for seed in (3, 4)]
    longest = max(len(demo.actions) for demo in demos)
    actions = np.stack(
        [np.pad(d.actions, ((0, longest - len(d.actions)), (0, 0)), "edge") for d in demos]
    )
    plan = lambda params, *_: params  # noqa: E731
    worlds = {"source": SOURCE, "target": TARGET}
    found = {w: Simulator(plan, physics=p)(actions, [3, 4]) for w, p in worlds.items()}
    return demos, found


def test_replayed_demonstrations_end_as_they_did(replayed):
    demos, found = replayed
    result = found["source"]
    assert result.lengths.tolist() == [len(demo.actions) for demo in demos]
    assert result.success.all()
    for index, demo in enumerate(demos):
        np.testing.assert_array_equal(result.error[index], demo.error)
        path = result.qpos[index, : result.lengths[index], :2]
        np.testing.assert_array_equal(path, demo.states[:, :2])


def test_physics_are_those_asked_for(replayed):
    """The same starts, and the same actions, lead elsewhere."""
    _, found = replayed
    np.testing.assert_array_equal(found["target"].qpos[:, 0], found["source"].qpos[:, 0])
    assert (found["target"].qpos[:, 10, :2] != found["source"].qpos[:, 10, :2]).all()


def test_what_does_not_succeed_ends_with_time():
    scene = Scene(max_steps=4)
    stay = lambda params, observation, keys: jnp.tile(observation["state"][:, -1:, :2], (1, 3, 1))  # noqa: E731
    result = Simulator(stay, history=2, scene=scene)(None, [0, 1, 2])
    assert result.lengths.tolist() == [4, 4, 4] and not result.success.any()
    start = PlanarPushingEnv(scene).reset(seed=2)[1]["error"]
    np.testing.assert_allclose(result.error[2], start, atol=1e-3)


def test_bad_plans():
    with pytest.raises(ValueError, match=r"plan has shape \(1, 2\), expected \(1, E, 2\)"):
        Simulator(lambda p, o, k: o["state"][:, -1, :2])(None, [0])
    nan = lambda p, o, k: jnp.full((1, 1, 2), jnp.nan)  # noqa: E731
    with pytest.raises(ValueError, match="plan of episode 0 is not finite"):
        Simulator(nan)(None, [0])


def test_figures(replayed, monkeypatch, tmp_path):
    _, found = replayed
    traces = figures.traces(found["source"], Scene(), every=10)
    shown = [len(range(0, length, 10)) + 1 for length in found["source"].lengths]
    # The goal and the slider at each of these moments; the pusher's way and its start.
    assert [len(axes.patches) for axes in traces.axes] == [1 + number for number in shown]
    assert [len(axes.lines) for axes in traces.axes] == [2, 2]
    assert [axes.get_title()[:11] for axes in traces.axes] == ["3: at goal,", "4: at goal,"]
    with monkeypatch.context() as patch:
        patch.delattr("mujoco.Renderer")  # drawn from above: goal, slider and pusher
        strip = figures.filmstrip(found["target"], Scene(), episodes=(0, 1, 7), frames=3)
    assert [len(axes.patches) for axes in strip.axes] == [3] * 6
    strip.savefig(tmp_path / "strip.png")
