"""Relabelled rotations: differences of Euler angles, wrapped, against plain NumPy and SciPy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax.open_x import registry, standardize

LINES = {"hz": 10, "action": "xyz s[0:3] | diff; rpy s[3:6] | subtract; grip g"}


def walk(seed=0, length=40):
    """Attitudes that go round several times, of which angles in (-pi, pi] are stored."""
    rng = np.random.default_rng(seed)
    angles = np.cumsum(rng.uniform(-1, 1, (length, 3)) * [1.5, 0.1, 2.5], 0)
    pose = np.concatenate([np.cumsum(rng.normal(size=(length, 3)), 0), angles], 1)
    wrapped = pose.copy()
    wrapped[:, 3:] = np.arctan2(np.sin(angles), np.cos(angles))
    return pose, {"s": wrapped, "g": rng.integers(0, 2, (length, 1)).astype(float)}


def run(lines, steps, **options):
    return standardize.standardise(lines, {"steps": steps}, **options)["steps"]["action"]


def test_angles_go_the_shorter_way_round():
    pose, steps = walk()
    wanted = np.diff(pose, axis=0)  # of the angles before they were wrapped; no step is over pi
    got = run(LINES, steps)
    np.testing.assert_allclose(got[:, :6], wanted, atol=1e-5)
    np.testing.assert_array_equal(got[:, 6:], steps["g"][:-1])
    assert np.abs(np.diff(steps["s"], axis=0)).max() > 4  # without wrapping there would be jumps


@pytest.mark.parametrize("yaw", [(0, np.pi), (np.pi, 0)])
def test_half_a_turn_is_positive(yaw):
    angles = np.zeros((2, 6))
    angles[:, 5] = yaw
    got = run(LINES, {"s": angles, "g": np.zeros((2, 1))})
    assert got[0, 5] == np.float32(np.pi)


def test_they_add_up_at_another_rate():
    pose, steps = walk(1, 41)
    got = run(LINES, steps, hz=5)
    np.testing.assert_allclose(got[:, :6], pose[2::2] - pose[:-2:2], atol=1e-4)
    assert len(got) == 20


@pytest.mark.parametrize("rotation", ["rotvec", "quat", "rot6d"])
def test_elsewhere_it_is_the_turn(rotation):
    _, steps = walk(2)
    turn = LINES | {"action": LINES["action"].replace("subtract", "diff")}
    got, same = (run(lines, steps, rotation=rotation) for lines in (LINES, turn))
    np.testing.assert_array_equal(got, same)
    found = Rotation.from_euler("xyz", steps["s"][:, 3:])
    wanted = (found[1:] * found[:-1].inv()).as_matrix()
    if rotation == "rot6d":
        columns = wanted[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)
        np.testing.assert_allclose(got[:, 3:9], columns, atol=1e-6)


def test_it_differs_from_the_turn_away_from_zero_only():
    for pitch, apart in ((0.0, 0.0), (0.6, 0.05)):
        angles = np.zeros((2, 6))
        angles[:, 4], angles[1, 3] = pitch, 0.2  # a roll of 0.2 about the tool's own axis
        steps = {"s": angles, "g": np.zeros((2, 1))}
        turn = LINES | {"action": LINES["action"].replace("subtract", "diff")}
        away = np.abs(run(LINES, steps) - run(turn, steps)).max()
        assert away < 1e-6 if not apart else away > apart


@pytest.mark.parametrize("name", ["bridge_dataset", "bridge_orig", "bridge_oxe"])
def test_rows_of_bridge_say_it(name):
    (rotation,) = (p for p in registry.get(name).spec.action if p.is_rotation)
    assert rotation.field.has("subtract") and rotation.is_diff and registry.get(name).spec.has_diff
