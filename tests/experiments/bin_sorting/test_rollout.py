import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bin_sorting import expert, figures
from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.rollout import Simulator
from experiments.bin_sorting.scene import Scene

SCENE = Scene(red=1, blue=1, max_steps=20)


def wander(params, observation, keys, chunk=3):
    """Away from where the gripper is, at random."""
    here = observation["state"][:, -1, None, :4]
    return here + params * jax.vmap(lambda key: jax.random.normal(key, (chunk, 4)))(keys)


def test_replayed_demonstrations_end_as_they_did():
    """The plan reads the recorded actions: the simulator then repeats the expert's episodes."""
    scene = Scene(red=1, blue=1)
    env = BinSortingEnv(scene)
    demos = [expert.demonstrate(env, "opposite", seed) for seed in (3, 4)]
    longest = max(len(demo.actions) for demo in demos)
    actions = np.stack(
        [np.pad(d.actions, ((0, longest - len(d.actions)), (0, 0)), "edge") for d in demos]
    )
    result = Simulator(lambda params, *_: params, scene=scene)(actions, [3, 4])
    assert result.lengths.tolist() == [len(demo.actions) for demo in demos]
    for index, demo in enumerate(demos):
        np.testing.assert_array_equal(result.placements[index], demo.placements)
        path = result.qpos[index, : result.lengths[index], :3]
        np.testing.assert_array_equal(path, demo.states[:, :3])
        rest = result.qpos[index, result.lengths[index] :]
        np.testing.assert_array_equal(rest, np.broadcast_to(rest[0], rest.shape))


def test_an_episode_does_not_depend_on_those_beside_it_nor_on_threads():
    seeds = [7, 8, 9, 10, 11]
    whole = Simulator(wander, scene=SCENE, threads=3)(0.05, seeds)
    some = Simulator(wander, scene=SCENE, threads=1)(0.05, [9, 11])
    np.testing.assert_array_equal(some.qpos, whole.qpos[[2, 4]])
    other = Simulator(wander, scene=SCENE)(0.05, [9, 11], seed=1)
    assert (other.qpos != some.qpos).any()


def test_history_chunks_and_constants_reach_the_plan():
    seen = []

    def plan(params, observation, keys):
        jax.debug.callback(lambda o: seen.append(jax.tree.map(np.array, o)), observation)
        return jnp.tile(jnp.array([0.1, 0.0, 0.1, 0.03]), (1, 8, 1))

    simulator = Simulator(plan, history=2, scene=SCENE)
    result = simulator(None, [0], constant={"task": np.array([1.0, 0.0])})
    jax.effects_barrier()
    assert len(seen) == 3 and result.lengths.tolist() == [20]  # 8, 8 and 4 of 8 steps
    np.testing.assert_array_equal(seen[0]["state"][:, 0], seen[0]["state"][:, 1])
    for index, step in ((1, 8), (2, 16)):
        np.testing.assert_array_equal(
            seen[index]["state"][0, :, :3], result.qpos[0, step - 1 : step + 1, :3]
        )
        np.testing.assert_array_equal(seen[index]["task"], [[[1, 0], [1, 0]]])


def test_parameters_do_not_recompile():
    traced = []

    def plan(params, observation, keys):
        traced.append(1)
        return wander(params, observation, keys)

    simulator = Simulator(plan, scene=SCENE)
    slow, fast = (simulator(np.float32(p), [0, 1]) for p in (0.01, 0.1))
    assert (slow.qpos != fast.qpos).any()
    assert len(traced) == 1


def test_bad_input():
    with pytest.raises(ValueError, match=r"seeds have shape \(0,\), expected \[N\]"):
        Simulator(wander)(0.1, [])
    with pytest.raises(ValueError, match=r"plan has shape \(1, 4\), expected \(1, E, 4\)"):
        Simulator(lambda p, o, k: o["state"][:, -1, :4])(0.1, [0])
    with pytest.raises(ValueError, match="plan of episode 1 is not finite"):
        Simulator(lambda p, o, k: p * jnp.ones((2, 1, 4)))(np.array([[[1.0]], [[np.nan]]]), [0, 1])


def test_filmstrip_rendered_or_drawn(monkeypatch, tmp_path):
    result = Simulator(wander, scene=SCENE)(0.05, [0, 1])
    for rendered in (True, False):
        with monkeypatch.context() as patch:
            if not rendered:
                patch.delattr("mujoco.Renderer")
            figure = figures.filmstrip(result, SCENE, episodes=(0, 1), frames=3)
        assert len(figure.axes) == 6
        patches = sum(len(axes.patches) for axes in figure.axes)
        images = sum(len(axes.images) for axes in figure.axes)
        # Without OpenGL also the first is drawn: two bins, two blocks, two fingers.
        assert (patches, images) in (((0, 6), (36, 0)) if rendered else ((36, 0),))
        figure.savefig(tmp_path / "strip.png")
