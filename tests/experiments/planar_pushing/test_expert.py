import numpy as np
import pytest

from experiments.planar_pushing import data, expert, pushes
from experiments.planar_pushing.env import PlanarPushingEnv, rotation, to_world
from experiments.planar_pushing.scene import RADIUS, SOURCE, TARGET, TOP, Scene

WORLDS = {"target": TARGET, "source": SOURCE}


@pytest.mark.parametrize("world", data.WORLDS)
def test_it_succeeds_in_the_physics_it_believes_in_and_a_replay_repeats_it(world):
    env = PlanarPushingEnv(physics=WORLDS[world])
    for seed in range(6):
        demo = expert.demonstrate(env, data.STYLE[world], seed)
        assert demo.success and 20 < len(demo.actions) < env.scene.max_steps
        assert demo.error[0] < env.scene.position and demo.error[1] < env.scene.angle
        assert np.abs(demo.actions).max() <= env.scene.reach  # it can be executed as it is
        again = expert.replay(PlanarPushingEnv(physics=WORLDS[world]), seed, demo.actions)
        assert again.success
        np.testing.assert_array_equal(again.states, demo.states)


@pytest.mark.parametrize("world", data.WORLDS)
def test_blindly_in_the_other_physics_most_episodes_fail(world):
    """The gap is real: of 16 demonstrations as they succeed at home, few do abroad."""
    own, other = WORLDS[world], WORLDS["source" if world == "target" else "target"]
    here, there = PlanarPushingEnv(physics=own), PlanarPushingEnv(physics=other)
    demos = [expert.demonstrate(here, data.STYLE[world], seed) for seed in range(16)]
    replays = [expert.replay(there, seed, demo.actions) for seed, demo in enumerate(demos)]
    assert sum(demo.success for demo in demos) >= 15
    assert sum(found.success for found in replays) < 12


def test_the_catalogue_foresees_a_push_wherever_the_slider_stands():
    catalogue = pushes.catalogue(TARGET)
    env = PlanarPushingEnv(Scene(goal=(9.0, 9.0, 0.0)), TARGET)
    slider = np.array([0.05, -0.03, 0.8])
    turn = rotation(slider[2])
    for row in (10, 207, 437):
        start = to_world(slider, catalogue.starts[row])
        env.reset(seed=0, options={"slider": slider, "pusher": start})
        way = catalogue.lengths[row] * turn @ catalogue.directions[row]
        for share in pushes.travel(1.0, pushes.SPEED / catalogue.lengths[row]):
            env.step(start + share * way)
        for _ in range(pushes.SETTLE):
            env.step(start + way)
        moved = catalogue.after(slider)[row]
        assert np.linalg.norm(catalogue.motions[row][:2]) > 0.001
        np.testing.assert_allclose(env.slider(), moved, atol=5e-4)


def test_contacts_lie_on_the_outline_and_the_pusher_has_room():
    catalogue = pushes.catalogue(TARGET)
    assert len(catalogue.lengths) == 19 * len(pushes.TILTS) * len(pushes.LENGTHS)
    env = PlanarPushingEnv(physics=TARGET)
    for start, normal in zip(catalogue.starts, catalogue.normals, strict=True):
        at = start - pushes.GAP * normal  # the pusher's edge on the outline
        for inward, touches in ((0.001, True), (-0.001, False)):
            slider = {"slider": np.zeros(3), "pusher": at - inward * normal}
            env.reset(seed=0, options=slider)
            pairs = env.data.contact.geom[: env.data.ncon]
            assert (pairs == env.model.geom("pusher").id).any() == touches
    # It moves the slider away, and never by more than it moves itself (soft contacts: 2 mm).
    ahead = (catalogue.motions[:, :2] * catalogue.directions).sum(1)
    assert (np.linalg.norm(catalogue.motions[:, :2], axis=1) < catalogue.lengths + 0.002).all()
    assert (ahead[catalogue.lengths > 0.05] > 0).all()


def test_styles():
    rng = np.random.default_rng(0)
    planner = [expert.Style.draw("planner", rng) for _ in range(3)]
    human = [expert.Style.draw("human", rng) for _ in range(30)]
    assert len(set(planner)) == 1 and len(set(human)) == 30
    with pytest.raises(ValueError, match="style"):
        expert.Style.draw("robot", rng)
    env = PlanarPushingEnv(physics=SOURCE)
    # Jerkiness: a planner starts and stops at full speed, a hand speeds up.
    starts = [expert.demonstrate(env, style, 0).actions[:2] for style in ("human", "planner")]
    home = env.reset(seed=0)[0]["state"][:2]
    first = [np.linalg.norm(actions[0] - home) for actions in starts]
    assert first[0] < 0.75 * first[1]


def test_ways_go_around_the_slider():
    """From one side to the opposite one the pusher never touches, in either style."""
    for style in expert.STYLES:
        env = PlanarPushingEnv(physics=SOURCE)
        rng = np.random.default_rng(0)
        slider = np.array([0.0, 0.0, 0.3])
        env.reset(seed=0, options={"slider": slider, "pusher": [0.0, -0.2]})
        hand = expert.Expert(env.scene, SOURCE, expert.Style.draw(style, rng), rng)
        hand._pusher, hand._slider, hand._at = env.pusher(), slider, env.pusher()
        up = np.array([0.0, 1.0])
        start = (0.0, TOP) + (RADIUS + pushes.GAP) * up
        way = to_world(slider, hand._way(start, up))
        for command in hand._follow(way, 0.25):
            env.step(command)
        for _ in range(5):
            env.step(way[-1])
        np.testing.assert_allclose(env.slider(), slider, atol=2e-4)
        np.testing.assert_allclose(env.pusher(), way[-1], atol=2e-3)
