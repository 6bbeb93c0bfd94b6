"""What each corruption does to a known motion."""

import numpy as np
import pytest

from experiments.humanoid import corruptions, data
from experiments.humanoid.corruptions import Motion

RNG = np.random.default_rng
LEADS = np.array([2, 3])


def ramp(count=20):
    """Actions rise by 1 and 10 a frame; states follow 2 and 3 frames later."""
    rise = np.array([1.0, 10.0])
    time = np.arange(count)[:, None]
    return Motion((time - LEADS) * rise, time * rise)


def test_the_lead_of_each_joint_is_found():
    rng = RNG(0)
    path = np.cumsum(rng.normal(size=(200, 2)), 0)
    state = np.stack([np.roll(path[:, d], lead) for d, lead in enumerate((0, 7))], -1)[7:]
    offset = np.array([0.5, -3.0])  # an arm that hangs below what it is told
    assert corruptions.leads_of([Motion(state + offset, path[7:])]).tolist() == [0, 7]


def test_dropped_frames_are_gone_and_repeated_ones_hold():
    hit = np.isin(np.arange(6), (1, 3, 4))
    motion = ramp(6)
    assert corruptions.dropped(motion, hit).action[:, 0].tolist() == [0, 2, 5]
    assert corruptions.dropped(motion, hit).state[:, 0].tolist() == [-2, 0, 3]
    assert corruptions.repeated(motion, hit).action[:, 0].tolist() == [0, 0, 2, 2, 2, 5]
    assert corruptions.repeated(motion, hit).state[:, 1].tolist() == [-30, -30, -10, -10, -10, 20]


def test_bursts_hit_their_share_in_runs_of_their_length():
    hit = corruptions.bursts(RNG(0), 100_000, 0.3, 6.0)
    assert not hit[0] and not hit[-1]
    runs = np.sum(np.diff(hit.astype(int)) == 1)
    assert hit.mean() == pytest.approx(0.3, abs=0.01)
    assert hit.sum() / runs == pytest.approx(6.0, rel=0.03)


def test_late_actions_leave_the_states():
    made = corruptions.late(ramp(6), 2)
    assert made.action[:, 0].tolist() == [0, 0, 0, 1, 2, 3]
    np.testing.assert_array_equal(made.state, ramp(6).state)


def test_tremor_is_a_sine_that_states_have_later():
    still = Motion(np.zeros((60, 2)), np.zeros((60, 2)))
    sine = dict(amplitude=0.1, hz=20.0, leads=LEADS)
    made = corruptions.tremor(still, np.array([5.0, 4.0]), np.array([0.0, 0.3]), **sine)
    np.testing.assert_allclose(made.action[:4, 0], [0, 0.1, 0, -0.1], atol=1e-12)  # 5 Hz at 20 Hz
    for joint, lead in enumerate(LEADS):
        np.testing.assert_allclose(made.state[lead:, joint], made.action[:-lead, joint], atol=1e-12)


def test_clipped_joints_stay_within_what_is_left_of_their_range():
    made = corruptions.clipped(ramp(9), 0.25)  # 0 to 8 and 0 to 80: from 2 to 6 and 20 to 60
    assert made.action[:, 0].tolist() == [2, 2, 2, 3, 4, 5, 6, 6, 6]
    assert (made.state.min(0).tolist(), made.state.max(0).tolist()) == ([2, 20], [6, 50])


def test_half_speed_keeps_the_delay_of_the_arm():
    made = corruptions.slow(ramp(9), 2.0, LEADS)
    assert len(made.action) == 17
    np.testing.assert_allclose(made.state[:, 0], np.arange(17) / 2 - 2)
    for joint, lead in enumerate(LEADS):
        inside = made.action[: -2 * lead, joint] > 0  # before that the first action is held
        where = np.arange(len(inside))[inside]
        np.testing.assert_allclose(made.action[where, joint], made.state[where + lead, joint])


def test_an_undone_motion_goes_back_and_forth_again():
    made = corruptions.undone(ramp(20), 10, 4, LEADS)
    path = [*range(11), 9, 8, 7, 6, *range(7, 20)]
    np.testing.assert_allclose(made.state[:, 0], np.array(path) - 2.0)
    for joint, lead in enumerate(LEADS):  # also at the turns, joints follow their actions
        ends = made.action[: len(path) - lead, joint], made.state[lead:, joint]
        np.testing.assert_allclose(*ends)


def test_every_kind_is_reproduced_by_its_seed_and_differs_from_the_record():
    source = data.Recorded(data.generated(9), 30.0, "")
    leads = corruptions.leads_of(source.motions)
    assert leads.tolist() == [5, 5, 5, 5]
    for kind in corruptions.KINDS:
        given = source, kind, [3, 7], corruptions.Strengths(), leads
        first, again, other = (data.corrupted(*given, seed) for seed in (0, 0, 1))
        for one, same, before in zip(first, again, (3, 7), strict=True):
            np.testing.assert_array_equal(one.action, same.action)
            assert one.state.shape == one.action.shape
            recorded = source.motions[before].action
            assert len(one.action) != len(recorded) or np.abs(one.action - recorded).max() > 1e-3
        same = all(np.array_equal(a.action, b.action) for a, b in zip(first, other, strict=True))
        assert same == (kind in ("late", "clipped", "slow"))  # nothing there is drawn
    assert corruptions.KINDS.keys() == corruptions.WORDS.keys()
