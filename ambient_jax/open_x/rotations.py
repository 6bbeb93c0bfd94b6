"""Converts rotations between the encodings of data sets, in NumPy float64 of any leading shape."""

from collections.abc import Callable

import numpy as np

from ambient_jax import _checks

# Euler angles as (axes, order of the stored numbers): rotations about FIXED axes, in that order.
# Intrinsic Z-Y-X (yaw, pitch, roll) is the fixed x-y-z sequence read backwards.
_EULER = {"rpy": ("xyz", (0, 1, 2)), "ypr": ("xyz", (2, 1, 0)), "zxy": ("zxy", (0, 1, 2))}

WIDTHS = {
    **dict.fromkeys(_EULER, 3),
    "yaw": 1,
    "rotvec": 3,
    "quat": 4,
    "quat_wxyz": 4,
    "rot6d": 6,
    "matrix": 9,
}
"""Encodings and their widths.

``rpy`` roll, pitch, yaw about the fixed axes x, y, z; ``ypr`` the same numbers as yaw, pitch, roll
(intrinsic Z-Y-X); ``zxy`` about the fixed axes z, x, y; ``yaw`` about z alone; ``rotvec`` axis
times angle; ``quat`` x, y, z, w; ``quat_wxyz``; ``rot6d`` the first two columns; ``matrix`` the
nine numbers row by row. Angles in rad.
"""


def to_matrix(encoding: str, x: np.ndarray) -> np.ndarray:
    """Converts numbers [..., w] of an encoding to rotation matrices [..., 3, 3].

    Quaternions and 6-D need not be normalised; raises ValueError if they are zero.
    """
    _checks.one_of("rotation", encoding, WIDTHS)
    x = np.asarray(x, np.float64)
    if x.shape[-1:] != (WIDTHS[encoding],):
        raise ValueError(
            f"rotation {encoding!r} got shape {x.shape}, expected [..., {WIDTHS[encoding]}]"
        )
    return _TO_MATRIX[encoding](x)


def from_matrix(encoding: str, matrix: np.ndarray) -> np.ndarray:
    """Converts rotation matrices [..., 3, 3] to numbers [..., w], except for "zxy" and "yaw".

    At a pitch of 90 degrees ``rpy`` is not unique: roll is then 0.
    """
    _checks.one_of("rotation", encoding, _FROM_MATRIX)
    return _FROM_MATRIX[encoding](np.asarray(matrix, np.float64))


def power(matrix: np.ndarray, exponent: np.ndarray | float) -> np.ndarray:
    """Returns the share ``exponent`` [...] of rotations [..., 3, 3] along the shortest arc."""
    return _rotvec_to_matrix(_matrix_to_rotvec(matrix) * np.asarray(exponent)[..., None])


def _about(axis: str, angle: np.ndarray) -> np.ndarray:
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    out = np.zeros((*angle.shape, 3, 3))
    cos, sin = np.cos(angle), np.sin(angle)
    out[..., i, i] = 1
    out[..., j, j] = out[..., k, k] = cos
    out[..., j, k], out[..., k, j] = -sin, sin
    return out


def _euler_to_matrix(encoding: str) -> Callable[[np.ndarray], np.ndarray]:
    axes, order = _EULER[encoding]

    def convert(x: np.ndarray) -> np.ndarray:
        first, second, third = (_about(a, x[..., n]) for a, n in zip(axes, order, strict=True))
        return third @ second @ first

    return convert


def _unit(x: np.ndarray, problem: str) -> np.ndarray:
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    if np.any(norm < 1e-6):
        raise ValueError(problem)
    return x / norm


def _quat_to_matrix(q: np.ndarray) -> np.ndarray:
    q = _unit(q, "a quaternion is zero, expected one of unit length")
    x, y, z, w = np.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(r, -1) for r in rows], -2)


def _rotvec_to_matrix(v: np.ndarray) -> np.ndarray:
    half = np.linalg.norm(v, axis=-1, keepdims=True) / 2
    # sinc is sin(pi x)/(pi x): smooth through zero rotation.
    return _quat_to_matrix(np.concatenate([v * np.sinc(half / np.pi) / 2, np.cos(half)], -1))


def _rot6d_to_matrix(x: np.ndarray) -> np.ndarray:
    a, b = x[..., :3], x[..., 3:]
    a = _unit(a, "a 6-D rotation has a first column of zeros")
    b = b - np.sum(a * b, -1, keepdims=True) * a
    b = _unit(b, "a 6-D rotation has parallel columns")
    return np.stack([a, b, np.cross(a, b)], -1)


def _matrix_to_quat(m: np.ndarray) -> np.ndarray:
    # Use the one of four expressions for a quaternion with the largest divisor.
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = np.stack([1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], -1)
    yx, zx, zy = (m[..., i, j] + m[..., j, i] for i, j in ((1, 0), (2, 0), (2, 1)))
    dx, dy, dz = (m[..., i, j] - m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    rows = [
        [squares[..., 0], yx, zx, dx],
        [yx, squares[..., 1], zy, dy],
        [zx, zy, squares[..., 2], dz],
        [dx, dy, dz, squares[..., 3]],
    ]
    candidates = np.stack([np.stack(row, -1) for row in rows], -2)
    best = np.argmax(squares, -1)[..., None, None]
    quat = np.take_along_axis(candidates, best, -2)[..., 0, :]
    quat = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
    return np.where(quat[..., 3:] < 0, -quat, quat)


def _matrix_to_rotvec(m: np.ndarray) -> np.ndarray:
    quat = _matrix_to_quat(m)
    sine = np.linalg.norm(quat[..., :3], axis=-1, keepdims=True)
    half = np.arctan2(sine, quat[..., 3:])
    return 2 * quat[..., :3] / np.sinc(half / np.pi)


def _matrix_to_rpy(m: np.ndarray) -> np.ndarray:
    cos_pitch = np.hypot(m[..., 0, 0], m[..., 1, 0])
    locked = cos_pitch < 1e-7
    roll = np.where(locked, 0.0, np.arctan2(m[..., 2, 1], m[..., 2, 2]))
    pitch = np.arctan2(-m[..., 2, 0], cos_pitch)
    about_z = np.arctan2(m[..., 1, 0], m[..., 0, 0])
    yaw = np.where(locked, np.arctan2(-m[..., 0, 1], m[..., 1, 1]), about_z)
    return np.stack([roll, pitch, yaw], -1)


_TO_MATRIX: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: _euler_to_matrix(name) for name in _EULER},
    "yaw": lambda x: _about("z", x[..., 0]),
    "rotvec": _rotvec_to_matrix,
    "quat": _quat_to_matrix,
    "quat_wxyz": lambda x: _quat_to_matrix(np.roll(x, -1, -1)),
    "rot6d": _rot6d_to_matrix,
    "matrix": lambda x: x.reshape(*x.shape[:-1], 3, 3),
}
_FROM_MATRIX: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rpy": _matrix_to_rpy,
    "ypr": lambda m: _matrix_to_rpy(m)[..., ::-1],
    "rotvec": _matrix_to_rotvec,
    "quat": _matrix_to_quat,
    "quat_wxyz": lambda m: np.roll(_matrix_to_quat(m), 1, -1),
    "rot6d": lambda m: np.concatenate([m[..., :, 0], m[..., :, 1]], -1),
    "matrix": lambda m: m.reshape(*m.shape[:-2], 9),
}
