import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from experiments.bin_sorting import env as env_lib
from experiments.bin_sorting import expert
from experiments.bin_sorting.env import BinSortingEnv, start_poses
from experiments.bin_sorting.scene import LEFT, NOWHERE, RIGHT, Scene

SCENE = Scene()
APART = [[0.0, 0.0, 0.2], [0.1, 0.1, 0.0], [-0.1, -0.1, 0.0], [0.1, -0.1, 0.0]]
OPEN, SHUT = SCENE.opening, 0.0


def go(env, *waypoints):
    """Each waypoint is (x, y, z, opening, steps); returns the last step's five."""
    for *action, steps in waypoints:
        for _ in range(steps):
            result = env.step(np.array(action))
    return result


def height(env):
    return env.positions()[0, 2]


@pytest.fixture()
def env():
    env = BinSortingEnv()
    yield env
    env.close()


@pytest.mark.filterwarnings("ignore:.*Box observation space.*infinity")
def test_gymnasium_makes_and_accepts_it():
    env = gymnasium.make(env_lib.ENV_ID, render_mode="rgb_array").unwrapped
    assert isinstance(env, BinSortingEnv)
    env.reset(seed=0)
    try:
        rendered = env.render() is not None
    except OSError:  # no OpenGL here
        rendered = False
    check_env(env, skip_render_check=not rendered)
    env.close()


def test_same_seed_same_episode_bit_for_bit():
    def states(env, seed):
        found = expert.demonstrate(env, "correct", seed)
        return found.states, found.actions

    first, again = states(BinSortingEnv(), 5), states(BinSortingEnv(), 5)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    used = BinSortingEnv()  # nothing is left of an earlier episode
    states(used, 6)
    np.testing.assert_array_equal(states(used, 5)[0], first[0])
    assert len(states(used, 7)[0]) != len(first[0]) or (states(used, 7)[0] != first[0]).any()


def test_the_gripper_follows_its_target(env):
    env.reset(seed=0, options={"blocks": APART})
    observation, *_ = go(env, (0.2, -0.1, 0.12, 0.03, 15))
    np.testing.assert_allclose(observation["state"][:4], [0.2, -0.1, 0.12, 0.03], atol=2e-3)


def test_a_block_is_lifted_by_contact_alone(env):
    assert env.model.neq == 0  # no weld, no other equality constraint
    env.reset(seed=0, options={"blocks": APART})
    down, shut = (0, 0, 0.1, OPEN, 8), (0, 0, 0.015, OPEN, 8)
    observation, *_ = go(env, down, shut, (0, 0, 0.015, SHUT, 4), (0, 0, 0.12, SHUT, 10))
    assert height(env) > 0.1
    assert observation["state"][3] > 0.9 * 2 * SCENE.block  # the block keeps the fingers apart
    # It stays there while it is carried fast and held for three seconds, and falls if let go.
    go(env, (0.25, 0, 0.12, SHUT, 20), (0.25, 0, 0.12, SHUT, 30))
    assert height(env) > 0.1
    _, _, _, _, info = go(env, (0.25, 0, 0.12, OPEN, 8))
    assert height(env) < 0.025
    assert info["placements"].tolist() == [RIGHT, NOWHERE, NOWHERE, NOWHERE]


def test_without_friction_the_block_stays_on_the_table():
    env = BinSortingEnv(Scene(yaw=0.0))
    frictionless = env_lib.mujoco.MjModel.from_xml_string(env_lib.scenes.xml(env.scene))
    for name in ("front_finger", "back_finger"):
        frictionless.geom(name).friction[:] = 1e-4
    env.model, env.data = frictionless, env_lib.mujoco.MjData(frictionless)
    env.reset(seed=0, options={"blocks": APART})
    down, shut = (0, 0, 0.1, OPEN, 8), (0, 0, 0.015, OPEN, 8)
    go(env, down, shut, (0, 0, 0.015, SHUT, 4), (0, 0, 0.12, SHUT, 10))
    assert height(env) < 0.05


def test_a_grasp_beside_the_block_misses(env):
    env.reset(seed=0, options={"blocks": APART})
    way = (0.05, 0, 0.1, OPEN, 8), (0.05, 0, 0.015, OPEN, 8), (0.05, 0, 0.015, SHUT, 4)
    observation, *_ = go(env, *way, (0.05, 0, 0.12, SHUT, 10))
    assert height(env) < 0.025 and observation["state"][3] < 0.01


def test_a_held_block_is_not_placed_and_an_episode_ends_when_all_are(env):
    poses = [[-0.27, 0.05, 0], [-0.27, -0.05, 0], [0.27, -0.05, 0], [0.24, 0.05, 0]]
    _, info = env.reset(seed=0, options={"blocks": poses})
    assert info["placements"].tolist() == [LEFT, LEFT, RIGHT, RIGHT]
    above, down = (0.24, 0.05, 0.12, OPEN, 12), (0.24, 0.05, 0.015, OPEN, 8)
    _, reward, terminated, _, _ = go(env, above)
    assert terminated and reward == 1.0
    _, reward, terminated, truncated, info = go(env, down, (0.24, 0.05, 0.015, SHUT, 4))
    assert info["placements"].tolist() == [LEFT, LEFT, RIGHT, NOWHERE]
    assert not terminated and not truncated and reward == 0.0


def test_state_has_the_nearest_block_outside_of_the_bins_first(env):
    poses = [[0.1, 0.1, 0], [-0.27, 0.0, 0], [0.05, -0.1, 0], [-0.1, 0.12, 0]]
    observation, _ = env.reset(seed=3, options={"blocks": poses})
    near = (-0.1, 0.1, 0.15, OPEN, 15)
    observation, *_ = go(env, near)
    gripper, each = observation["state"][:4], observation["state"][4:].reshape(-1, 7)
    np.testing.assert_allclose(gripper, env.gripper(), rtol=1e-6)
    # By hand, distances in x and y: block 3 0.02, 0 0.2, 2 0.25; block 1 lies in a bin.
    order = [3, 0, 2, 1]
    np.testing.assert_allclose(each[:, :3], env.positions()[order], atol=1e-6)
    np.testing.assert_allclose(each[:, 3:6], each[:, :3] - gripper[:3], atol=1e-6)
    assert each[:, 6].tolist() == [0, 1, 0, 1]  # blue, red, blue, red


def test_out_of_time():
    env = BinSortingEnv(Scene(max_steps=3))
    env.reset(seed=0)
    flags = [env.step(env.action_space.sample())[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_starts_keep_their_distance():
    rng = np.random.default_rng(0)
    poses = np.stack([start_poses(SCENE, rng) for _ in range(200)])
    apart = np.linalg.norm(poses[:, :, None, :2] - poses[:, None, :, :2], axis=-1)
    assert apart[:, ~np.eye(4, dtype=bool)].min() >= SCENE.gap
    assert (np.abs(poses) <= (*SCENE.spread, SCENE.yaw)).all()
    assert np.abs(poses[..., 0]).max() > 0.95 * SCENE.spread[0]
    with pytest.raises(ValueError, match="4 blocks at least 0.5 m apart do not fit"):
        start_poses(Scene(gap=0.5), rng)


def test_bad_input(env):
    with pytest.raises(Exception, match="call reset first"):
        env.step(np.zeros(4))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 4 finite numbers"):
        env.step(np.array([0, 0, np.nan, 0]))
    for blocks in (APART[:1], [[np.nan] * 3, *APART[1:]]):
        with pytest.raises(
            ValueError, match=r"option blocks is .*, expected finite numbers \[4, 3\]"
        ):
            env.reset(options={"blocks": blocks})
    with pytest.raises(ValueError, match="unknown reset option"):
        env.reset(options={"block": APART})
    with pytest.raises(ValueError, match="camera is 'side'"):
        BinSortingEnv(camera="side")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"red": 0, "blue": 0}, "red is 0 and blue 0, expected at least one block"),
        ({"red": -1}, "red is -1 and blue 2, expected at least one block"),
        ({"red": 1.5}, "red is 1.5, expected a whole number"),
        ({"max_steps": 0}, "max_steps is 0, expected a positive whole number"),
        ({"bin_half": (0.1, 0.0)}, r"bin_half is \(0.1, 0.0\), expected 2 positive finite numbers"),
        ({"gap": np.nan}, "gap is nan, expected a finite number"),
        ({"home": (0.0, 0.0)}, r"home is \(0.0, 0.0\), expected 3 finite numbers"),
        ({"timestep": 0.003}, "timestep is 0.003, .* a whole number of them in a control step"),
    ],
)
def test_a_scene_that_cannot_be(wrong, told):
    with pytest.raises(ValueError, match=told):
        Scene(**wrong)


def test_camera_sees_the_blocks():
    env = BinSortingEnv(camera="top", render_mode="rgb_array")
    try:
        observation, _ = env.reset(seed=0, options={"blocks": APART})
    except OSError as error:
        pytest.skip(f"no OpenGL here: {error}")
    image = observation["image"]
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(env.render(), image)
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    for mask in (red > 2 * np.maximum(green, blue), blue > 1.5 * np.maximum(red, green)):
        assert mask.sum() > 20  # two blocks of each colour, some 5 pixels wide
    env.close()


def test_a_camera_without_opengl_says_so(monkeypatch):
    monkeypatch.delattr(env_lib.mujoco, "Renderer")
    with pytest.raises(OSError, match="no OpenGL library to render with"):
        BinSortingEnv(camera="front").reset(seed=0)
