"""The environment: what ends an episode, and in which worlds."""

import math

import numpy as np
import pytest

from experiments.paper_pushing.env import SOURCE, TARGET, PaperPushingEnv, PaperScene
from experiments.planar_pushing.scene import DT

PLACE = np.array(PaperScene().home)


def rest(slider, pusher, scene=PaperScene()):  # noqa: B008
    """(terminated, info) after a step in which nothing moves."""
    env = PaperPushingEnv(scene)
    env.reset(seed=0, options={"slider": slider, "pusher": pusher})
    for _ in range(5):  # the slider settles on its feet
        _, reward, terminated, _, info = env.step(np.asarray(pusher))
    assert reward == terminated
    return terminated, info


def test_the_task_is_the_papers():
    scene = PaperScene()
    assert scene.position == 0.015 and math.degrees(scene.angle) == pytest.approx(3.5)
    assert scene.max_steps * DT == 75 and scene.back == 1.5 * scene.position
    far = math.hypot(TARGET.com_x - SOURCE.com_x, TARGET.com_y - SOURCE.com_y)
    assert far == pytest.approx(0.065)
    assert (TARGET.pusher_friction, SOURCE.pusher_friction) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("slider", "away", "ends"),
    [
        ((0, 0, 0), (0, 0), True),
        ((0.014, 0, 0), (0, 0.02), True),
        ((0.016, 0, 0), (0, 0), False),
        ((0, 0, math.radians(3)), (0, 0), True),
        ((0, 0, math.radians(4)), (0, 0), False),
        ((0, 0, 0), (0, 0.025), False),  # the pusher is not back
    ],
)
def test_ends_when_all_three_are_where_they_belong(slider, away, ends):
    terminated, info = rest(np.array(slider, float), PLACE + away)
    assert terminated == ends
    assert info["back"] == pytest.approx(np.hypot(*away), abs=1e-3)
    assert info["error"][0] == pytest.approx(slider[0], abs=1e-3)


def test_a_wrong_tolerance_is_told():
    with pytest.raises(ValueError, match="back"):
        PaperScene(back=0.0)
