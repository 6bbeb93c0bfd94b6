"""The pictures: each thing is where the state says."""

import jax
import numpy as np
import pytest

from experiments.paper_pushing import cameras
from experiments.paper_pushing.env import PaperPushingEnv, PaperScene
from experiments.planar_pushing.env import to_world
from experiments.planar_pushing.scene import BAR, STEM

SCENE = PaperScene()
DRAW = jax.jit(lambda state: cameras.draw(state, SCENE))
RGB = {"slider": cameras._SLIDER, "goal": cameras._GOAL, "pusher": cameras._PUSHER}


def state(pusher, slider):
    c, s = np.cos(slider[2]), np.sin(slider[2])
    return np.array([*pusher, *slider[:2], c, s], np.float32)


def colour(image, width, point, centre=(0, 0)):
    """The colour of the pixel at a point [m]."""
    x, y = (np.asarray(point) - centre) / width + 0.5
    size = image.shape[0]
    return image[int((1 - y) * size), int(x * size)] / 255


def seen(image, width, point, centre=(0, 0)):
    """What the pixel at a point shows."""
    at = colour(image, width, point, centre)
    return min(RGB, key=lambda name: np.abs(at - RGB[name]).sum())


@pytest.mark.parametrize("slider", [(0.1, 0.08, 0.7), (-0.12, 0.05, -2.0)])
def test_both_cameras_show_things_where_they_are(slider):
    pusher = to_world(np.array(slider), np.array([(0.03, STEM)]))[0]  # beside the stem
    images = DRAW(state(pusher, slider))
    above, wrist = (np.asarray(images[name]) for name in cameras.WIDTHS)
    assert above.shape == wrist.shape == (64, 64, 3) and above.dtype == np.uint8
    for point in to_world(np.array(slider), np.array([(0, BAR), (0.04, BAR), (0, STEM)])):
        assert seen(above, 0.6, point) == "slider"
    assert seen(above, 0.6, pusher) == "pusher"
    assert seen(above, 0.6, (0, BAR)) == "goal"
    assert seen(wrist, 0.2, pusher, pusher) == "pusher"
    stem = to_world(np.array(slider), np.array([(0, STEM)]))[0]
    assert seen(wrist, 0.2, stem, pusher) == "slider"


def test_a_tenth_of_a_pixel_is_seen_and_the_wrist_moves_along():
    """Far from the slider the wrist sees the table's lines, which repeat every 0.1 m."""
    here, there = (DRAW(state((x, -0.25), (0, 0.1, 0))) for x in (-0.2, -0.1))
    np.testing.assert_allclose(
        here["image_wrist"].astype(int), there["image_wrist"].astype(int), atol=1
    )
    moved = DRAW(state((-0.2, -0.25), (0.001, 0.1, 0)))
    assert (moved["image_primary"] != here["image_primary"]).any()
    assert (moved["image_wrist"] == here["image_wrist"]).all()


def test_it_agrees_with_the_renderer_of_the_simulator():
    """The overhead camera of MuJoCo, at a pixel of slider and pusher; skipped without OpenGL."""
    env = PaperPushingEnv()
    env.reset(seed=3)
    try:
        rendered = env.image("top", 96) / 255
    except OSError:
        pytest.skip("no OpenGL")
    ours = np.asarray(DRAW(env._state())["image_primary"])
    width = 2 * 0.8 * np.tan(np.radians(22.5))
    for point in (env.slider()[:2], env.pusher()):
        assert seen(ours, 0.6, point) == seen((255 * rendered).astype(int), width, point)
    env.close()
