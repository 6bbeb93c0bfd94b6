"""Gripper commands whose meaning is known, by each operation."""

import numpy as np
import pytest

from ambient_jax.open_x import grippers
from ambient_jax.open_x.spec import parse


def to_open(line, values):
    (part,) = parse({"action": f"grip g | {line}" if line else "grip g"}, "toy").action
    return grippers.to_open("toy", part.field, np.array(values, float)[:, None])[:, 0]


def test_a_relative_command_holds_until_the_next_and_the_first_changes_something():
    # hold, close, hold, open, hold: it was open before the first command closed it.
    np.testing.assert_array_equal(to_open("relative", [0, 1, 0, -1, 0]), [1, 0, 0, 1, 1])
    np.testing.assert_array_equal(to_open("relative", [0, -1, 0]), [0, 1, 1])
    np.testing.assert_array_equal(to_open("relative", [0, 0]), [1, 1])


def test_between_open_and_closed_the_next_decided_value_counts():
    np.testing.assert_allclose(to_open("binarise", [1, 0.5, 0, 0.5, 1, 0.7]), [1, 0, 0, 1, 1, 0.7])


def test_a_convention_maps_closed_to_0_and_open_to_1():
    np.testing.assert_allclose(to_open("closed 1 open -1", [1, 0, -1]), [0, 0.5, 1])


def test_beyond_the_convention_is_refused_and_sensor_noise_is_clipped():
    np.testing.assert_allclose(to_open("", [-0.04, 1.04]), [0, 1])
    with pytest.raises(ValueError, match="gripper .*g is 1.2 at step 1"):
        to_open("", [0.5, 1.2])
    np.testing.assert_allclose(to_open("as_is", [0.5, 1.2]), [0.5, 1.2])
