"""The experts: they succeed in their physics, and a person's hand is not a planner's."""

import numpy as np
import pytest

from experiments.paper_pushing.env import SOURCE, TARGET, PaperPushingEnv
from experiments.paper_pushing.expert import STYLES, Hand, PaperExpert, demonstrate
from experiments.planar_pushing import pushes
from experiments.planar_pushing.expert import record

PHYSICS = {"person": TARGET, "planner": SOURCE}


@pytest.fixture(scope="module")
def made():
    found = {}
    for style, physics in PHYSICS.items():
        env = PaperPushingEnv(physics=physics)
        found[style] = [demonstrate(env, style, 50 + i) for i in range(6)]
    return found


@pytest.mark.parametrize("style", STYLES)
def test_succeeds_and_repeats(made, style):
    assert sum(d.success for d in made[style]) >= 5
    again = demonstrate(PaperPushingEnv(physics=PHYSICS[style]), style, 50)
    np.testing.assert_array_equal(again.actions, made[style][0].actions)


def test_the_slider_is_left_before_the_end(made):
    for demonstration in (d for some in made.values() for d in some if d.success):
        assert np.hypot(*(demonstration.actions[-1] - (0, -0.26))) < 0.03


def test_a_person_takes_longer_and_stops_more_often(made):
    def still(demonstration):
        return np.mean(np.linalg.norm(np.diff(demonstration.actions, axis=0), axis=1) < 0.002)

    steps = {s: np.mean([len(d.actions) for d in some]) for s, some in made.items()}
    assert steps["person"] > 1.2 * steps["planner"]
    hands = [Hand.draw("person", np.random.default_rng(i)) for i in range(20)]
    assert all(h.overshoot and h.regrasp and h.pause for h in hands)
    assert len({h.speed for h in hands}) == 20
    assert all(0 <= still(d) < 0.6 for some in made.values() for d in some)


def lowest(regrasp, overshoot=0.0, length=0.08):
    """Positions along a push of a hand that pushes along x."""
    env = PaperPushingEnv(physics=SOURCE)
    env.reset(seed=0)
    hand = PaperExpert(
        env.scene,
        SOURCE,
        Hand(regrasp=regrasp, overshoot=overshoot),
        np.random.default_rng(3),
    )
    hand._at = np.zeros(2)
    return np.array(list(hand._push(np.array([1.0, 0.0]), length)))[:, 0]


def test_pushes_as_planned_without_a_hand():
    way = lowest(0.0)
    assert (np.diff(way) >= -1e-12).all() and way[-1] == pytest.approx(0.08)
    assert (way[-pushes.SETTLE :] == way[-1]).all()


def test_lets_go_and_grasps_again():
    way = lowest(1.0)
    assert np.diff(way).min() < -0.002  # it went back
    assert way[-1] == pytest.approx(0.08)


def test_overshoots():
    ends = [lowest(0.0, overshoot=o)[-1] for o in (0.1, 0.3)]
    assert all(abs(end - 0.08) > 1e-3 for end in ends)


def test_an_unknown_style_is_told():
    with pytest.raises(ValueError, match="style"):
        Hand.draw("robot", np.random.default_rng(0))


def test_the_planner_fails_in_the_targets_world():
    """What it believes of the physics matters: replayed there, most of its plans miss."""
    hits = 0
    for seed in range(50, 56):
        plan = iter(demonstrate(PaperPushingEnv(physics=SOURCE), "planner", seed).actions)
        hits += record(PaperPushingEnv(), lambda plan=plan: next(plan, None), seed).success
    assert hits <= 2
