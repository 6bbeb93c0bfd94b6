"""Modes of chunks and the bias of bounds, on cases that are done by hand."""

import numpy as np
import pytest

from experiments.planar_pushing import pushes, studies
from experiments.planar_pushing.env import rotation
from experiments.planar_pushing.scene import BAR_HALF, RADIUS, TOP
from experiments.planar_pushing.studies import AWAY, FACES, MODES


def states(here, slider=(0.0, 0.0, 0.0)):
    """States [M, 12] of a pusher at [M, 2] in the slider's frame."""
    x, y, yaw = slider
    pusher = np.asarray(here) @ rotation(yaw).T + (x, y)
    rest = np.tile([x, y, np.cos(yaw), np.sin(yaw)], (len(pusher), 1))
    return np.concatenate([pusher, rest, np.zeros((len(pusher), 6))], 1)


@pytest.mark.parametrize("slider", [(0, 0, 0), (0.1, -0.2, 2.5)])
def test_every_contact_of_the_experts_is_on_its_face(slider):
    points, normals = pushes.contacts()
    # In the order of pushes.contacts: five on top; then of each side end, waist, stem; the tail.
    each = ["bar top"] * 5 + 2 * (["bar ends"] + ["waist"] * 2 + ["stem sides"] * 3) + ["tail"] * 2
    for gap, expected in ((0.0, each), (0.0009, each), (pushes.GAP, ["moving around"] * 19)):
        found = studies.touched(states(points + (RADIUS + gap) * normals, slider))
        assert [MODES[i] for i in found] == expected


def test_at_a_corner_the_first_face_counts():
    corner = np.array([BAR_HALF[0], TOP]) + RADIUS / np.sqrt(2)
    assert FACES[studies.touched(states([corner]))[0]] == "bar top"


def test_a_chunk_is_the_face_touched_at_most_of_its_steps():
    faces = [AWAY, AWAY, 2, 2, 0, AWAY, AWAY, AWAY]
    # Chunks of 3 steps: (A A 2) (A 2 2) (2 2 0) (2 0 A: equals, the first face) (0 A A) (A A A) ...
    assert studies.of_chunks(faces, 3).tolist() == [2, 2, 2, 0, 0, AWAY, AWAY, AWAY]
    assert studies.of_chunks([AWAY, 4], 16).tolist() == [4, 4]


def test_bias_by_hand():
    """Of four chunks, two on top and two of the waist; one of the top is admitted early."""
    mode = np.array([0, 0, 2, 2])
    low = np.array([0.2, 0.6, 0.6, 0.8])
    found = studies.bias(mode, low, np.zeros(4), [0.1, 0.5, 0.7, 0.9])
    assert found["data"].tolist() == [0.5, 0, 0.5, 0, 0, 0]
    assert found["admitted"].tolist() == [0, 0.25, 0.75, 1]
    # TV by hand: (1, 0) against (1/2, 1/2) is 1/2; (2/3, 1/3) is 1/6.
    np.testing.assert_allclose(found["bias"], [np.nan, 0.5, 1 / 6, 0], atol=1e-12)
    np.testing.assert_allclose(found["shares"][2], [2 / 3, 0, 1 / 3, 0, 0, 0])
    assert studies.largest(found) == (0.5, 1)
    both = studies.bias(mode, 1.0, np.array([0.3, 0, 0, 0]), [0.2])
    assert both["admitted"].tolist() == [0.25] and both["shares"][0, 0] == 1
    assert studies.largest(studies.bias(mode, 1.0, 0.0, [0.5])) == (0.0, -1)
