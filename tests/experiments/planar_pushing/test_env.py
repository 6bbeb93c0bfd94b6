import dataclasses
import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from experiments.planar_pushing import env as env_lib
from experiments.planar_pushing.env import PlanarPushingEnv, distance, start_pose, to_world
from experiments.planar_pushing.scene import (
    KNOBS,
    RADIUS,
    SOURCE,
    TAIL,
    TARGET,
    TOP,
    Scene,
    between,
)

ORIGIN = (0.0, 0.0, 0.0)
FAR = Scene(goal=(0.3, 0.3, 0.0))  # no push of these tests ends an episode


@pytest.fixture()
def env():
    env = PlanarPushingEnv()
    yield env
    env.close()


def push(start, way, scene=FAR, **knobs):
    """An environment after a push of a slider at the origin by ``way`` at 0.1 m/s, not settled."""
    env = PlanarPushingEnv(scene, dataclasses.replace(SOURCE, **knobs))
    env.reset(seed=0, options={"slider": ORIGIN, "pusher": start})
    steps = math.ceil(np.linalg.norm(way) / 0.01)
    for step in range(1, steps + 1):
        env.step(np.array(start) + np.array(way) * step / steps)
    return env


def up(**knobs):
    """A push of 10 cm, 5 mm of them through air, from below against the stem's end."""
    return push((0.0, TAIL - RADIUS - 0.005), (0.0, 0.1), **knobs)


@pytest.mark.filterwarnings("ignore:.*Box observation space.*infinity")
def test_gymnasium_makes_and_accepts_it():
    env = gymnasium.make(env_lib.ENV_ID, render_mode="rgb_array").unwrapped
    assert isinstance(env, PlanarPushingEnv)
    env.reset(seed=0)
    try:
        rendered = env.render() is not None
    except OSError:  # no OpenGL here
        rendered = False
    check_env(env, skip_render_check=not rendered)
    env.close()


def test_same_seed_same_episode_bit_for_bit(env):
    def states(env, seed):
        found = [env.reset(seed=seed)[0]["state"]]
        targets = np.random.default_rng(seed).uniform(-0.1, 0.1, (40, 2))
        return np.array(found + [env.step(target)[0]["state"] for target in targets])

    first = states(PlanarPushingEnv(), 5)
    states(env, 6)  # nothing is left of an earlier episode
    np.testing.assert_array_equal(states(env, 5), first)
    other = states(PlanarPushingEnv(physics=SOURCE), 5)
    np.testing.assert_array_equal(other[0], first[0])  # the same start in other physics
    assert (other[-1] != first[-1]).any() and (states(env, 7)[0] != first[0]).any()


def test_state(env):
    slider = np.array([0.05, -0.02, 0.5])
    observation, info = env.reset(seed=0, options={"slider": slider, "pusher": [-0.1, 0.2]})
    state = observation["state"]
    expected = [-0.1, 0.2, 0.05, -0.02, math.cos(0.5), math.sin(0.5)]
    np.testing.assert_allclose(state[:6], expected, rtol=1e-6)
    # The stem's end by hand: (0, TAIL) turned by 0.5 is (-TAIL sin, TAIL cos).
    tail = slider[:2] + (-TAIL * math.sin(0.5), TAIL * math.cos(0.5)) - np.array([-0.1, 0.2])
    np.testing.assert_allclose(state[10:], tail, rtol=1e-5)
    np.testing.assert_allclose(info["error"], [math.hypot(0.05, 0.02), 0.5], rtol=1e-9)


@pytest.mark.parametrize("friction", [0.2, 0.4])
def test_table_friction_stops_a_sliding_slider_as_coulomb_says(friction):
    env = PlanarPushingEnv(FAR, dataclasses.replace(SOURCE, table_friction=friction))
    env.reset(seed=0, options={"slider": ORIGIN})
    for _ in range(5):
        env.step(np.array(FAR.home))  # it settles on its feet
    x, speed = env.slider()[0], 0.5
    env.data.qvel[2] = speed
    for _ in range(6):
        env.step(np.array(FAR.home))
    # v^2 / (2 mu g); soft contacts and steps of 10 ms leave a few percent.
    assert env.slider()[0] - x == pytest.approx(speed**2 / (2 * friction * 9.81), rel=0.12)


def test_damping_shortens_the_slide():
    ways = []
    for damping in (0.0, 3.0):
        env = PlanarPushingEnv(FAR, dataclasses.replace(SOURCE, damping=damping))
        env.reset(seed=0, options={"slider": ORIGIN})
        env.data.qvel[2] = 0.5
        for _ in range(6):
            env.step(np.array(FAR.home))
        ways.append(env.slider()[0])
    assert ways[1] < 0.85 * ways[0]


def test_what_resists_more_is_pushed_less_far_by_a_compliant_pusher():
    far = up().slider()[1]
    assert 0.07 < far < 0.095
    for heavier in ({"table_friction": 0.5}, {"mass": 0.7}):
        assert up(**heavier).slider()[1] < far - 0.002


def test_lag_and_delay_keep_the_pusher_behind():
    ends = [up(**knobs).pusher()[1] for knobs in ({}, {"delay": 0.05}, {"lag": 0.1})]
    # A target that moves at 0.1 m/s and is followed 0.05 s later is followed 5 mm behind.
    assert ends[0] - ends[1] == pytest.approx(0.005, abs=0.0015)
    assert ends[0] - ends[2] == pytest.approx(0.1 * (0.1 - SOURCE.lag), abs=0.002)


def test_a_delay_of_more_than_a_step_holds_back_whole_commands():
    env = PlanarPushingEnv(FAR, dataclasses.replace(SOURCE, delay=0.2))
    env.reset(seed=0, options={"pusher": [0.0, -0.2]})
    ways = [env.step(np.array([0.1, -0.2]))[0]["state"][0] for _ in range(3)]
    assert ways[0] == ways[1] == 0.0 and ways[2] > 0.01


def test_the_centre_of_mass_turns_the_slider_and_a_balanced_one_goes_straight():
    """A push up, left of the centre of mass, turns clockwise: r x F < 0."""
    yaws = [up(com_x=x).slider()[2] for x in (0.0, 0.012, -0.012)]
    assert abs(yaws[0]) < 0.01 and yaws[1] < -0.1
    assert yaws[2] == pytest.approx(-yaws[1], rel=0.05)


def test_pusher_friction_takes_the_slider_along_sideways():
    start = (-0.02, TOP + RADIUS + 0.002)
    sideways = [push(start, (0.05, -0.05), pusher_friction=mu).slider()[0] for mu in (0.1, 0.7)]
    assert sideways[1] > 2 * sideways[0] > 0


def test_a_soft_contact_gives_way():
    depths = []
    for softness in (0.02, 0.1):
        env = up(softness=softness)
        face = to_world(env.slider(), np.array([[0.0, TAIL]]))[0, 1]
        depths.append(RADIUS - (face - env.pusher()[1]))
    assert 0 < depths[0] < 0.5 * depths[1]


def test_between_dials_the_gap():
    assert between(0.0) == TARGET
    one = dataclasses.asdict(between(1.0))
    assert one == pytest.approx(dataclasses.asdict(SOURCE))
    half = between(0.5)
    assert half.mass == pytest.approx(math.sqrt(TARGET.mass * SOURCE.mass))
    assert half.com_x == pytest.approx(0.5 * TARGET.com_x)
    more = between(2.0)
    assert more.com_x == pytest.approx(-TARGET.com_x)
    assert (more.damping, more.delay, more.softness) == (0.0, 0.0, 0.02)  # as far as these go
    lag = between(1.0, ("lag",))
    assert lag == dataclasses.replace(TARGET, lag=lag.lag)
    assert lag.lag == pytest.approx(SOURCE.lag)


@pytest.mark.parametrize(
    ("level", "knobs", "told"),
    [
        (1.0, ("drag",), r"unknown knobs \['drag'\]"),
        (-0.1, KNOBS, "level of the gap is -0.1, expected a finite number of at least 0"),
        (math.nan, KNOBS, "level of the gap is nan, expected a finite number of at least 0"),
        (math.inf, KNOBS, "level of the gap is inf, expected a finite number of at least 0"),
        (5.0, KNOBS, "level of the gap is 5.0, expected a smaller one: the centre of mass is"),
        (1e6, ("pusher_friction",), "level of the gap is 1000000.0, expected a smaller one"),
    ],
)
def test_a_gap_that_cannot_be(level, knobs, told):
    with pytest.raises(ValueError, match=told):
        between(level, knobs)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"mass": 0}, "mass is 0, expected a positive finite number"),
        ({"lag": math.inf}, "lag is inf, expected a positive finite number"),
        ({"damping": math.nan}, "damping is nan, expected a finite number"),
        ({"com_y": "low"}, "com_y is 'low', expected a finite number"),
        ({"delay": -1}, "delay is -1.0, expected at least 0"),
        ({"softness": 0.019}, "softness is 0.019, expected at least 0.02"),
        ({"com_x": 0.06}, r"centre of mass is \(0.06, -0.009\), expected it between"),
    ],
)
def test_physics_that_cannot_be(wrong, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(TARGET, **wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"position": 0.0}, "position is 0.0, expected a positive finite number"),
        ({"angle": -0.1}, "angle is -0.1, expected a positive finite number"),
        ({"max_steps": 0}, "max_steps is 0, expected a positive whole number"),
        ({"max_steps": 1.5}, "max_steps is 1.5, expected a positive whole number"),
        ({"reach": 0}, "reach is 0, expected a positive finite number"),
        ({"yaw": math.nan}, "yaw is nan, expected a finite number"),
        ({"least": True}, "least is True, expected a finite number"),
        ({"goal": (0.0, 0.0)}, r"goal is \(0.0, 0.0\), expected 3 finite numbers"),
        ({"home": (0.0, math.inf)}, r"home is \(0.0, inf\), expected 2 finite numbers"),
        ({"spread": 0.1}, "spread is 0.1, expected 2 finite numbers"),
        ({"timestep": 0.0}, "timestep is 0.0, expected a positive finite number"),
        ({"timestep": 0.003}, "timestep is 0.003, .* a whole number of them in a control step"),
        ({"timestep": 0.02}, "timestep is 0.02, expected at most 0.01 s"),
    ],
)
def test_a_scene_that_cannot_be(wrong, told):
    with pytest.raises(ValueError, match=told):
        Scene(**wrong)


def test_a_scene_of_lists_is_that_of_tuples():
    given = Scene(goal=[0, 0, 0], spread=[0.1, 0.1], timestep=0.01)
    assert given == Scene() and hash(given) == hash(Scene())
    assert PlanarPushingEnv(Scene(timestep=0.002)).substeps == 50


def test_an_episode_ends_at_rest_within_both_tolerances():
    scene = Scene()
    for slider, ends in (
        ((0.9 * scene.position, 0.0, 0.9 * scene.angle), True),
        ((1.1 * scene.position, 0.0, 0.0), False),
        ((0.0, 0.0, 1.1 * scene.angle), False),
    ):
        env = PlanarPushingEnv(scene)
        env.reset(seed=0, options={"slider": slider})
        result = [env.step(np.array(scene.home)) for _ in range(3)][-1]
        assert result[1:3] == (float(ends), ends)
    env.reset(seed=0, options={"slider": ORIGIN})
    env.data.qvel[2] = 1.0
    _, _, terminated, _, _ = env.step(np.array(scene.home))
    assert not terminated


def test_out_of_time():
    env = PlanarPushingEnv(Scene(max_steps=3))
    env.reset(seed=0)
    flags = [env.step(np.array(env.scene.home))[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_starts_are_spread_and_not_at_the_goal():
    scene, rng = Scene(), np.random.default_rng(0)
    poses = np.stack([start_pose(scene, rng) for _ in range(300)])
    assert distance(poses, scene).min() >= scene.least
    assert (np.abs(poses) <= (*scene.spread, scene.yaw)).all()
    assert (np.abs(poses).max(0) > 0.95 * np.array([*scene.spread, scene.yaw])).all()
    with pytest.raises(ValueError, match="no start within"):
        start_pose(Scene(least=1.0), rng)


def test_bad_input(env):
    with pytest.raises(Exception, match="call reset first"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        env.step(np.array([0, np.nan]))
    for slider in ([0, 0], [0, math.nan, 0]):
        with pytest.raises(
            ValueError, match=r"slider is \[0.0, .*\], expected finite numbers \[3\]"
        ):
            env.reset(options={"slider": slider})
    with pytest.raises(ValueError, match=r"pusher is .*inf.*, expected finite numbers \[2\]"):
        env.reset(options={"pusher": [math.inf, 0]})
    with pytest.raises(ValueError, match="unknown reset option"):
        env.reset(options={"block": ORIGIN})
    with pytest.raises(ValueError, match="camera is 'side'"):
        PlanarPushingEnv(camera="side")
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        PlanarPushingEnv(render_mode="human")


def test_camera_sees_slider_and_pusher():
    env = PlanarPushingEnv(camera="top", render_mode="rgb_array")
    try:
        observation, _ = env.reset(seed=0)
    except OSError as error:
        pytest.skip(f"no OpenGL here: {error}")
    image = observation["image"]
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(env.render(), image)
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    assert (blue > 1.3 * np.maximum(red, green)).sum() > 50  # the slider
    assert (red > 1.6 * np.maximum(green, blue)).sum() > 3  # the pusher
    assert (green > 1.2 * np.maximum(red, blue)).sum() > 20  # the goal, as far as it is free
    env.close()


def test_turns_by_hand():
    np.testing.assert_allclose(
        env_lib.wrap(np.array([3.5, -3.5])), [3.5 - 2 * np.pi, 2 * np.pi - 3.5]
    )
    np.testing.assert_array_equal(env_lib.wrap(np.array([np.pi, -np.pi])), [-np.pi, -np.pi])
    scene = Scene(goal=(0.0, 0.0, 3.0))
    off = env_lib.error(np.array([0.03, 0.04, -3.0]), scene)
    np.testing.assert_allclose(off, [0.05, 2 * np.pi - 6.0])
