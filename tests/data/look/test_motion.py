"""Jerk and idle steps: exact in closed form, and with differences that are thinned."""

import math

import numpy as np
import pytest

from ambient_jax.data.look import motion


def measure(episodes, hz=1.0):
    meter = motion.MotionMeter(hz)
    for actions in episodes:
        meter.add(actions)
    return meter.result(np.ptp(np.concatenate(episodes), axis=0))


def test_jerk_of_cubics_is_exact():
    # The third derivative of a t^3 is 6 a everywhere, and so is its third difference / dt^3.
    t = np.arange(12)[:, None] / 5
    found = measure([t**3 * [1.0, 2.0], t**3 * [0.0, 1.0], t**3 * [3.0, 0.0]], hz=5)
    jerks = [36 * (1 + 4), 36.0, 36.0 * 9]
    assert found.jerk == pytest.approx(np.mean(jerks))
    assert found.median_jerk == pytest.approx(np.median(jerks))


def test_short_and_unfinished_episodes_have_no_jerk():
    rows = np.arange(12.0).reshape(4, 3)
    assert math.isnan(measure([rows[:3]]).jerk)
    broken = np.where(rows == 5, np.nan, rows)
    assert measure([rows**2, broken]).jerk == measure([rows**2]).jerk
    meter = motion.MotionMeter(None)
    meter.add(rows[:1])
    assert meter.result(np.ones(3)) is None


def test_idle_needs_all_dimensions_to_rest():
    rows = np.zeros((101, 2))
    rows[:51, 0] = np.linspace(0, 1, 51)  # the first half moves, in one dimension
    rows[75, 1] = 1  # and one step there and back
    found = measure([rows])
    assert found.idle == found.repeated == pytest.approx((100 - 50 - 1 - 2) / 100)
    rows[80:, 1] += 5e-4  # less than a thousandth of the range
    found = measure([rows])
    assert (found.idle, found.repeated) == (0.47, 0.46)


def test_thinned_differences_are_spread_evenly(monkeypatch):
    monkeypatch.setattr(motion, "_KEPT", 1000)
    rng = np.random.default_rng(0)
    # Every third step of half of the episodes rests.
    episodes = []
    for i in range(60):
        moves = rng.uniform(0.5, 1, (100, 2)) * rng.choice([-1, 1], (100, 2))
        moves[:: 3 if i % 2 else 200] = 0
        episodes.append(np.cumsum(moves, axis=0))
    found = measure(episodes)
    assert 1 / 32 <= found.sampled < 1 / 8
    exact = np.concatenate([(np.diff(e, axis=0) == 0).all(1) for e in episodes]).mean()
    assert found.repeated == exact  # counted at all steps
    assert found.idle == pytest.approx(exact, abs=4 * math.sqrt(exact / (6000 * found.sampled)))


def test_thinning_keeps_every_second_step_across_episodes(monkeypatch):
    monkeypatch.setattr(motion, "_KEPT", 8)
    meter = motion.MotionMeter(None)
    values = np.cumsum(np.arange(40.0))  # differences are 1, 2, 3, ...
    for start in range(0, 36, 3):
        meter.add(values[start : start + 4, None])
    assert all(part.base is None for part in meter._kept)  # a view would keep all steps
    kept = np.concatenate(meter._kept)[:, 0]
    assert len(kept) <= 8 and set(np.diff(kept)) == {float(meter._stride)} and kept[0] == 1


def test_repeats_need_all_fields():
    a = np.array([[1, 1], [1, 1], [2, 1], [2, 1]])
    b = np.array([0.0, 0.0, 0.0, 1.0])
    assert motion.repeats([a, b]).tolist() == [True, False, False]
    assert motion.repeats([a]).tolist() == [True, False, True]


def test_the_line_about_repeats_names_the_longest_run():
    same = np.array([False, True, False, True, True, True, False, True])
    line = motion.repeated("front", "pictures", same)
    assert line == "front: 5 of 9 pictures equal the one before (longest run: steps 4 to 6)"
    line = motion.repeated("front", "pictures", same[:3])
    assert line == "front: 1 of 4 pictures equal the one before (the first at step 2)"
