"""Motion planning problems: a scene, and one end in front of the shelf, the other in a cell."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.arm import scene as scenes
from experiments.arm.scene import JOINTS, Arm

CLEARANCE = 0.03  # m, of the start and the goal
NOMINAL = np.array([0.0, -0.1, 0.0, -1.6, 0.0, 1.4, 0.0])
_SPREAD = 0.2  # rad
_STEPS, _FINAL, _DAMPING, _REST = 24, 8, 0.05, 0.3
_TOLERANCE = 1e-3  # m and rad, of inverse kinematics
_TRIES = 12
_FAR = 1.3  # rad from the nominal configuration, the most of any joint
# Where the fingertips may be in a cell: depth behind its front, side of its middle, height [m].
_TIP = ((0.10, 0.22), (-0.13, 0.13), (0.08, 0.24))
# And in front: before the shelf's front, side of its middle, above the ground [m].
_FRONT = ((-0.20, -0.12), (-0.40, 0.40), (0.40, 1.00))
# rad: how the hand is turned to a side, up, and about itself.
_LEAN = ((-0.25, 0.25), (-0.4, 0.1), (-0.25, 0.25))


class Problem(NamedTuple):
    """``scene`` [22], see ``scene.draw``; ``start`` and ``goal`` [7] in rad; ``cell`` of the
    one that is not in front."""

    scene: np.ndarray
    start: np.ndarray
    goal: np.ndarray
    cell: int


def draw(seed: int | Sequence[int], arm: Arm | None = None) -> Problem:
    """Returns the problem of a seed, whose start and goal keep ``CLEARANCE`` to the scene.

    Scenes in which a cell is too full for the hand are drawn anew. ``arm`` has that clearance and
    is moved to the scene; None makes one.
    """
    rng = np.random.default_rng(seed)
    arm = arm or Arm(clearance=CLEARANCE)
    while True:
        scene = scenes.draw(rng)
        arm.place(scene)
        cell = int(rng.integers(scenes.CELLS))
        inside, front = (_reach(arm, scene, place, rng) for place in (cell, None))
        if inside is not None and front is not None:
            start, goal = (front, inside) if rng.permutation(2)[0] else (inside, front)
            return Problem(scene, start, goal, cell)


def _reach(arm, scene, cell, rng):
    """Returns a configuration with the fingertips in a cell, None: in front; None if none was
    found."""
    turn, origin = scenes.rotation(scene[2]), np.array([*scene[:2], 0.0])
    floor = np.zeros(3) if cell is None else scenes.cell_middle(cell) * [0, 1, 1]
    for _ in range(_TRIES):
        tip = floor + rng.uniform(*np.transpose(_FRONT if cell is None else _TIP))
        yaw, pitch, roll = rng.uniform(*np.transpose(_LEAN))
        # Columns: up, the side on which the fingers are, and forward, out of the hand.
        forward = np.array(
            [np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)]
        )
        across = np.cross(forward, [0, 0, 1.0])
        across /= np.linalg.norm(across)
        up = np.cross(across, forward)
        c, s = np.cos(roll), np.sin(roll)
        hand = np.stack([c * up + s * across, c * across - s * up, forward], 1)
        begin = NOMINAL + rng.normal(size=JOINTS) * _SPREAD
        q = inverse_kinematics(arm, origin + turn @ tip, turn @ hand, begin)
        if q is not None and np.abs(q - NOMINAL).max() < _FAR and not arm.collides(q):
            return q
    return None


def inverse_kinematics(
    arm: Arm, position: np.ndarray, rotation: np.ndarray, begin: np.ndarray
) -> np.ndarray | None:
    """Returns a configuration [7] within the limits with the hand (``Arm.hand``) at a pose, by
    damped least squares from ``begin`` [7]; None where it does not converge."""
    low, high = arm.limits.T
    q = np.clip(begin, low, high)
    for index in range(_STEPS):
        at, turned, jacobian = arm.hand_jacobian(q)
        left = rotation @ turned.T
        error = np.empty(6)
        error[:3] = position - at
        # The rotation that is left, as a vector, to first order.
        error[3:] = left[2, 1] - left[1, 2], left[0, 2] - left[2, 0], left[1, 0] - left[0, 1]
        error[3:] /= 2
        if np.abs(error).max() < _TOLERANCE and left.trace() > 1:
            return q
        step = np.zeros(JOINTS)
        if index < _STEPS - _FINAL:  # what does not move the hand, the elbow, stays where it began
            step = _REST * (begin - q)
        square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        step += jacobian.T @ np.linalg.solve(square, error - jacobian @ step)
        largest = np.abs(step).max()
        q = np.minimum(np.maximum(q + step * min(1, 0.4 / largest), low), high)
    return None
