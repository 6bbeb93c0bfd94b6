"""Episodes in the common form: widths, absent cameras, and arrays that become PNG."""

import io

import numpy as np
import PIL.Image

from ambient_jax.open_x import conversion, spec
from ambient_jax.open_x.common_form import CommonForm

LENGTH = 4


def episode():
    draw = np.random.default_rng(0)
    action = draw.normal(size=(LENGTH, 3)).astype(np.float32)
    state = draw.normal(size=(LENGTH, 2)).astype(np.float32)
    pixels = draw.integers(0, 255, (LENGTH, 6, 8, 3), np.uint8)
    observation = {"state": state, "front": pixels}
    return {"steps": {"action": action, "observation": observation}}


def converted(more=(), **fields):
    lines = {"hz": 5, "action": "base action", "state": "observation/state"}
    made = spec.parse(lines | {"primary": "observation/front"} | dict(more), "mine")
    form = CommonForm(cameras=("primary", "wrist"), action_width=5, quality=("speed",), **fields)
    return conversion.to_common_form(episode(), made, form, None)["steps"]


def decoded(blob):
    return np.asarray(PIL.Image.open(io.BytesIO(blob)))


def test_widths_are_padded_and_what_is_not_there_is_said():
    steps, raw = converted(state_width=4), episode()["steps"]
    np.testing.assert_array_equal(steps["action"][:, :3], raw["action"])
    np.testing.assert_array_equal(steps["action"][:, 3:], 0)
    state = steps["observation"]["state"]
    np.testing.assert_array_equal(state[:, :2], raw["observation"]["state"])
    assert state.shape == (LENGTH, 4) and not state[:, 2:].any()
    assert list(steps["image_wrist"]) == [b""] * LENGTH
    assert steps["camera_mask"]["primary"].all() and not steps["camera_mask"]["wrist"].any()
    assert np.isnan(steps["quality"]["speed"]).all() and "instruction" not in steps
    assert "state" not in converted(state_width=0)["observation"]


def test_arrays_of_pictures_become_png_in_their_stored_channel_order():
    raw = episode()["steps"]["observation"]["front"]
    plain, swapped = (
        converted()["image_primary"],
        converted({"primary": "observation/front | bgr"})["image_primary"],
    )
    for step in range(LENGTH):
        np.testing.assert_array_equal(decoded(plain[step]), raw[step])
        # The batch's reader swaps the channels, as it does for images that were stored encoded.
        np.testing.assert_array_equal(decoded(swapped[step]), raw[step])
