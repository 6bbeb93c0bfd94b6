"""Conversions against SciPy, and back again."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax.open_x import rotations

TO_SCIPY = {
    "rpy": lambda r: r.as_euler("xyz"),
    "ypr": lambda r: r.as_euler("ZYX"),
    "zxy": lambda r: r.as_euler("zxy"),
    "rotvec": lambda r: r.as_rotvec(),
    "quat": lambda r: r.as_quat(canonical=True),
    "quat_wxyz": lambda r: np.roll(r.as_quat(canonical=True), 1, -1),
    "rot6d": lambda r: np.concatenate([r.as_matrix()[..., 0], r.as_matrix()[..., 1]], -1),
    "matrix": lambda r: r.as_matrix().reshape(-1, 9),
}


@pytest.fixture(scope="module")
def some():
    return Rotation.random(200, rng=np.random.default_rng(0))


@pytest.mark.parametrize("encoding", TO_SCIPY)
def test_to_matrix_as_scipy(encoding, some):
    got = rotations.to_matrix(encoding, TO_SCIPY[encoding](some))
    np.testing.assert_allclose(got, some.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("encoding", [e for e in TO_SCIPY if e != "zxy"])
def test_from_matrix_as_scipy(encoding, some):
    got = rotations.from_matrix(encoding, some.as_matrix())
    np.testing.assert_allclose(got, TO_SCIPY[encoding](some), atol=1e-12)


@pytest.mark.parametrize("encoding", ["rpy", "rotvec", "quat", "rot6d"])
@pytest.mark.parametrize(
    "rotvec",
    [
        [0, 0, 0],
        [1e-9, -2e-9, 0],
        [np.pi, 0, 0],
        [0, np.pi - 1e-9, 0],
        [0, np.pi / 2, 0],
        [0, -np.pi / 2, 0],
        [np.pi / np.sqrt(2), 0, np.pi / np.sqrt(2)],
    ],
)
def test_round_trip_where_formulas_break(encoding, rotvec):
    """No rotation, half a turn, and pitch of 90 degrees, where Euler angles are not unique."""
    matrix = Rotation.from_rotvec(rotvec).as_matrix()
    numbers = rotations.from_matrix(encoding, matrix)
    np.testing.assert_allclose(rotations.to_matrix(encoding, numbers), matrix, atol=1e-7)


def test_small_rotations_keep_their_digits():
    vectors = np.array([[1e-8, 2e-8, -3e-8]])
    back = rotations.from_matrix("rotvec", rotations.to_matrix("rotvec", vectors))
    np.testing.assert_allclose(back, vectors, rtol=1e-6)


def test_yaw_turns_about_z():
    np.testing.assert_allclose(
        rotations.to_matrix("yaw", np.array([[0.3]])),
        Rotation.from_euler("z", [[0.3]]).as_matrix(),
        atol=1e-15,
    )


def test_power_is_a_share_of_the_turn(some):
    got = rotations.power(some.as_matrix(), np.full(200, 0.25))
    wanted = Rotation.from_rotvec(some.as_rotvec() / 4).as_matrix()
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_what_is_not_normalised_is_normalised(some):
    np.testing.assert_allclose(
        rotations.to_matrix("quat", 3 * some.as_quat()), some.as_matrix(), atol=1e-12
    )
    columns = TO_SCIPY["rot6d"](some)
    skewed = np.concatenate([2 * columns[:, :3], columns[:, 3:] + columns[:, :3]], -1)
    np.testing.assert_allclose(rotations.to_matrix("rot6d", skewed), some.as_matrix(), atol=1e-12)


@pytest.mark.parametrize(
    "encoding, x, match",
    [
        ("quatt", np.zeros(4), "rotation is 'quatt', expected one of .*did you mean 'quat'"),
        ("quat", np.zeros(3), r"got shape \(3,\), expected \[..., 4\]"),
        ("quat", np.zeros(4), "quaternion is zero"),
        ("rot6d", np.zeros(6), "first column of zeros"),
        ("rot6d", np.array([1.0, 0, 0, 2, 0, 0]), "parallel columns"),
    ],
)
def test_bad_input(encoding, x, match):
    with pytest.raises(ValueError, match=match):
        rotations.to_matrix(encoding, x)
    with pytest.raises(ValueError, match="rotation is 'zxy', expected one of"):
        rotations.from_matrix("zxy", np.eye(3))
