import sys

import numpy as np
import pytest

from ambient_jax._packages import MissingError
from experiments.pusht import env as pusht


@pytest.fixture(scope="module")
def env():
    return pusht.make()


def test_it_advances_as_the_environment_steps(env):
    """Bit for bit, with contacts; coverage to rounding, as the package measures it."""
    twin, rng = pusht.make(), np.random.default_rng(0)
    contacts = 0
    for seed in range(3):
        env.reset(seed=seed)
        twin.reset(seed=seed)
        for _ in range(40):
            target = pusht.to_world(pusht.pose(env), pusht.CENTRE) + rng.normal(0, 50, 2)
            action = np.clip(target, 0, pusht.SIZE).astype(np.float32)
            before = pusht.pose(env)
            *_, info = twin.step(action)
            assert pusht.advance(env, action) == pytest.approx(info["coverage"], abs=1e-9)
            np.testing.assert_array_equal(pusht.pose(env), pusht.pose(twin))
            np.testing.assert_array_equal(pusht.pusher(env), pusht.pusher(twin))
            contacts += (pusht.pose(env) != before).any()
    assert contacts > 20


def test_observations_are_the_environments_own(env):
    env.reset(seed=5)
    for _ in range(15):
        given, *_ = env.step(np.array([300, 250], np.float32))
    state = pusht.state(env)
    found = pusht.observation(np.tile(state, (3, 2, 1)))
    assert {name: v.shape[2:] for name, v in found.items()} == {
        name: (size,) for name, size in pusht.OBSERVATION.items()
    }
    for name, value in given.items():
        np.testing.assert_allclose(found[name][1, 1], value, atol=1e-4)
    env.unwrapped.obs_type = "state"
    np.testing.assert_allclose(state, env.unwrapped.get_obs())
    env.unwrapped.obs_type = "environment_state_agent_pos"
    # Pusher and goal in the frame of the T, back in the world by the T's pose.
    relative, block = found["relative"][0, 0], pusht.pose(env)
    points = pusht.to_world(block, relative[:4].reshape(2, 2))
    np.testing.assert_allclose(points, [state[:2], pusht.GOAL[:2]], atol=1e-3)
    rest = np.arctan2(relative[5], relative[4])
    assert pusht.wrap(block[2] + rest - pusht.GOAL[2]) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(relative[6:], [*pusht.rotation(block[2])[:, 0], *state[:2]], 1e-4)


def test_a_placed_pose_stays_and_is_seen(env):
    env.reset(seed=0)
    pusht.place(env, pusht.GOAL, np.array([60.0, 60.0]))
    np.testing.assert_allclose(pusht.pose(env), pusht.GOAL, atol=1e-9)
    assert pusht.advance(env, np.array([60.0, 60.0])) == pytest.approx(1, abs=1e-9)
    image = pusht.image(env)
    assert image.shape == (pusht.PIXELS, pusht.PIXELS, 3) and image.dtype == np.uint8
    small = pusht.small(image[None])[0].reshape(pusht.SMALL, pusht.SMALL, 3)
    assert np.abs(small[3, 2] - image[12:16, 8:12].mean((0, 1))).max() <= 0.5
    # The pusher is blue, at (60, 60) of 512; the goal is hidden below the T.
    assert np.argmax(image[11, 11]) == 2 and image[0, 0].min() > 200


def test_coverage_by_hand():
    """Moved by d along the bar, the T loses d times its projected height, 30 + 90, of 6300."""
    shifted = np.array([*pusht.to_world(pusht.GOAL, np.array([2.0, 0.0])), pusht.GOAL[2]])
    assert pusht.coverage(shifted) == pytest.approx(1 - 2 * 120 / 6300)
    assert pusht.coverage(np.array([60.0, 60.0, 0.0])) == 0


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(MissingError, match=r"pip install 'ambient_jax\[pusht\]'"):
        pusht.make()
