"""Puts an episode's camera where its last report agrees with those of clean episodes.

All demonstrations end with the slider at its goal, so a camera that reports another last pose stood
elsewhere. Put back, what is left is how far from the goal, and at which angle, demonstrations end.
It assumes that one camera moved for a whole episode, not by how much, and needs no true report.
"""

from __future__ import annotations

import numpy as np

from experiments.shifted import shifts


def registered(states: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Returns reported states [T, 12] as a camera sees them that has the last pose at ``outcome``
    [3]: x, y [m] and yaw [rad] about the world's origin."""
    x, y, yaw = pose(states).T
    turn = outcome[2] - yaw[-1]
    c, s = np.cos(turn), np.sin(turn)
    position = np.stack([c * x - s * y, s * x + c * y], -1)
    return shifts.reported(states[:, :2], position + outcome[:2] - position[-1], yaw + turn)


def outcome(episodes) -> np.ndarray:
    """Returns the mean of the slider's last pose [3] over the states [T, 12] of episodes."""
    return np.mean([pose(states[-1]) for states in episodes], 0)


def pose(states: np.ndarray) -> np.ndarray:
    """Returns the slider's x, y [m] and yaw [rad], [..., 3], of states [..., 12]."""
    yaw = np.arctan2(states[..., 5], states[..., 4])
    return np.stack([states[..., 2], states[..., 3], yaw], -1).astype(np.float64)


def apart(states: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the mean distance [m] and angle [rad], [2], between two reports [T, 12]."""
    off = pose(states) - pose(others)
    turn = (off[:, 2] + np.pi) % (2 * np.pi) - np.pi
    return np.array([np.linalg.norm(off[:, :2], axis=1).mean(), np.abs(turn).mean()])
