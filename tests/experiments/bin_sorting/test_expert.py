import dataclasses

import numpy as np
import pytest

from experiments.bin_sorting import expert
from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.scene import LEFT, RIGHT, Scene

SCENE = Scene()


@pytest.mark.parametrize("rule", expert.RULES)
def test_every_block_comes_to_the_bin_of_the_rule(rule):
    env = BinSortingEnv()
    for seed in range(6):
        found = expert.demonstrate(env, rule, seed)
        np.testing.assert_array_equal(found.placements, found.bins)
        assert 90 < len(found.actions) < SCENE.max_steps
        assert len(found.states) == len(found.actions)
        # Every command can be executed as it is.
        low, high = env.action_space.low, env.action_space.high
        assert (found.actions >= low - 1e-2).all() and (found.actions <= high + 1e-2).all()


def test_rules():
    rng = np.random.default_rng(0)
    assert expert.targets("correct", SCENE, rng).tolist() == [LEFT, LEFT, RIGHT, RIGHT]
    assert expert.targets("opposite", SCENE, rng).tolist() == [RIGHT, RIGHT, LEFT, LEFT]
    drawn = np.array([expert.targets("arbitrary", SCENE, rng) for _ in range(400)])
    # 1600 fair coins: five standard deviations are 0.0625; each block by itself and all pairs.
    assert abs(drawn.mean() - 0.5) < 0.0625
    assert len(np.unique(drawn, axis=0)) == 16
    with pytest.raises(ValueError, match="rule"):
        expert.targets("wrong", SCENE, rng)


def test_demonstrations_differ_in_motion_in_the_same_scene():
    """Blocks at the same places: another style takes another way, in another time."""
    env = BinSortingEnv()
    first = expert.demonstrate(env, "correct", 0)
    other = expert.demonstrate(env, "opposite", 0)
    np.testing.assert_array_equal(first.states[0], other.states[0])
    assert len(first.actions) != len(other.actions)
    styles = [expert.Style.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert np.std([style.speed for style in styles]) > 0.02


def test_a_missed_grasp_is_tried_again():
    """A hand that is off at three of four grasps needs more of them, and brings all blocks home."""
    env = BinSortingEnv(Scene(max_steps=1000))
    _, info = env.reset(seed=1)
    rng = np.random.default_rng(1)
    style = dataclasses.replace(expert.Style.draw(rng), miss=0.75)
    clumsy = expert.Expert(env.scene, expert.targets("correct", env.scene, rng), rng, style)
    closings, was, done = 0, SCENE.opening, False
    while not done:
        action = clumsy(env.gripper(), env.positions())
        closings += bool(action[3] < 0.01 <= was)
        was = action[3]
        _, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    assert closings > 6
    assert info["placements"].tolist() == [LEFT, LEFT, RIGHT, RIGHT]
