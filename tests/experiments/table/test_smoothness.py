"""Derivatives of paths whose derivatives are known."""

import math

import numpy as np
import pytest

from experiments.table.smoothness import squared_derivative


def cubic(steps, dt):
    t = np.arange(steps + 1) * dt
    return np.stack([t**3, 2 * t**3], 1)  # third derivative (6, 12): squared norm 180


@pytest.mark.parametrize("dt", [0.1, 0.2])
def test_squared_jerk_of_a_cubic_is_exact(dt):
    assert squared_derivative(cubic(20, dt), 3, dt) == pytest.approx(180.0)
    assert squared_derivative(cubic(20, dt), 4, dt) == pytest.approx(0, abs=1e-9)


def test_squared_acceleration_of_a_circle():
    # Chord geometry: the second difference at speed w on the unit circle is 2 (1 - cos(w dt)).
    angle = 0.5 * np.arange(100) * 0.1
    path = np.stack([np.cos(angle), np.sin(angle)], 1)
    expected = (2 * (1 - math.cos(0.05)) / 0.1**2) ** 2
    assert squared_derivative(path, 2, 0.1) == pytest.approx(expected)


def test_a_path_that_is_too_short_has_none():
    assert math.isnan(squared_derivative(np.zeros((3, 2)), 3, 0.1))


def test_bad_input():
    with pytest.raises(ValueError, match=r"path of shape \(1, 5, 2\)"):
        squared_derivative(np.zeros((1, 5, 2)), 3, 0.1)
    with pytest.raises(ValueError, match="order 0, expected .* order of at least 1"):
        squared_derivative(np.zeros((5, 2)), 0, 0.1)
