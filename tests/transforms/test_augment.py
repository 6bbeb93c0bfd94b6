import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.transforms.augment import (
    Augmentation,
    centre_crop,
    random_brightness,
    random_contrast,
    random_crop,
    random_hue,
    random_resized_crop,
    random_saturation,
)

KEY = jax.random.key(0)
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}


def image(seed=0, history=2, side=8, low=0, high=256):
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (history, side, side, 3), dtype=np.uint8)


def keys(count):
    return jax.random.split(KEY, count)


def test_crops_are_windows_of_the_image_and_all_windows_occur_alike():
    x = np.arange(5 * 4, dtype=np.uint8).reshape(1, 5, 4, 1) * np.ones(3, np.uint8)
    x = np.concatenate([x, x + 100])
    crops = np.asarray(jax.jit(jax.vmap(lambda k: random_crop(k, x, (3, 3))))(keys(600)))
    assert crops.shape == (600, 2, 3, 3, 3) and crops.dtype == np.uint8
    found = {}
    for crop in crops:
        top, left = divmod(int(crop[0, 0, 0, 0]), 4)
        np.testing.assert_array_equal(crop, x[:, top : top + 3, left : left + 3])
        found[top, left] = found.get((top, left), 0) + 1
    # 3 x 2 places, 100 of each expected; a standard deviation is 9.
    assert sorted(found) == [(i, j) for i in range(3) for j in range(2)]
    assert all(55 < count < 145 for count in found.values())


def test_the_centre_crop_is_the_middle():
    x = np.arange(6 * 7 * 3).reshape(1, 1, 6, 7, 3)
    np.testing.assert_array_equal(centre_crop(x, (4, 3)), x[:, :, 1:5, 2:5])
    out = Augmentation(crop=(4, 3)).evaluation({"image_a": x, "state": 1, "image_a_mask": 2})
    assert out["image_a"].shape == (1, 1, 4, 3, 3)
    assert (out["state"], out["image_a_mask"]) == (1, 2)


def test_a_resized_crop_of_a_ramp_is_a_flatter_ramp():
    """Bilinear resizing keeps a linear ramp linear away from its ends, with the slope of the share
    that was cut out, and a constant the same."""
    ramp = np.linspace(0.2, 0.8, 32, dtype=np.float32)
    x = np.broadcast_to(ramp[:, None, None], (1, 32, 32, 3))
    crop = jax.jit(jax.vmap(lambda k: random_resized_crop(k, x, (0.25, 1.0), (1.0, 1.0))))
    slopes = np.diff(crop(keys(200))[:, 0, 4:-4, 5, 0], axis=1)
    np.testing.assert_allclose(slopes, slopes[:, :1] * np.ones(slopes.shape[1]), atol=1e-5)
    area = (slopes[:, 0] / (ramp[1] - ramp[0])) ** 2
    assert 0.249 < area.min() < 0.3 and 0.95 < area.max() < 1.001
    assert abs(area.mean() - 0.625) < 0.05  # uniform: a standard deviation is 0.015
    grey = np.full((2, 8, 8, 3), 0.3, np.float32)
    np.testing.assert_allclose(random_resized_crop(KEY, grey), grey, atol=1e-6)


def test_the_whole_area_is_the_image_itself():
    x = image()
    np.testing.assert_array_equal(random_resized_crop(KEY, x, (1.0, 1.0), (1.0, 1.0)), x)


def test_brightness_shifts_all_images_of_a_history_by_one_number():
    x = image(low=60, high=190).astype(np.float32) / 255
    shift = jax.jit(jax.vmap(lambda k: random_brightness(k, x, 0.2)))(keys(100)) - x
    np.testing.assert_allclose(shift, shift[:, :1, :1, :1, :1] * np.ones(x.shape), atol=1e-6)
    first = shift[:, 0, 0, 0, 0]
    assert -0.2 <= first.min() < -0.15 and 0.15 < first.max() <= 0.2


def test_contrast_and_saturation_keep_what_they_turn_around():
    x = image(low=80, high=170).astype(np.float32) / 255
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    contrasted = random_contrast(KEY, x, 0.3)
    mean = (x @ luma).mean((1, 2))
    np.testing.assert_allclose((contrasted @ luma).mean((1, 2)), mean, atol=1e-6)
    ratio = (contrasted - mean[:, None, None, None]) / (x - mean[:, None, None, None])
    ratio = np.median(ratio)
    assert abs(ratio - 1) > 0.01 and 0.7 <= ratio <= 1.3
    expected = mean[:, None, None, None] * (1 - ratio) + ratio * x
    np.testing.assert_allclose(contrasted, expected, atol=1e-5)

    saturated = random_saturation(KEY, x, 0.3)
    np.testing.assert_allclose(saturated @ luma, x @ luma, atol=1e-6)
    assert np.abs(saturated - x).max() > 1e-3
    grey = np.repeat(x[..., :1], 3, axis=-1)
    np.testing.assert_allclose(random_saturation(KEY, grey, 0.3), grey, atol=1e-6)


def test_hue_turns_red_to_green_and_keeps_greys():
    """A third of a turn permutes the channels; at that angle the rotation is exact in HSV too."""
    x = np.full((1, 2, 2, 3), 0.2, np.float32)
    x[..., 0] = 0.7
    turned = np.asarray(jax.vmap(lambda k: random_hue(k, x, 0.5))(keys(2000)))[:, 0, 0, 0]
    np.testing.assert_allclose(turned.sum(-1), 1.1, atol=1e-3)
    nearest = np.abs(turned - np.array([0.2, 0.7, 0.2])).max(-1).min()
    assert nearest < 0.01
    hues = np.array([colorsys.rgb_to_hsv(*rgb)[0] for rgb in np.clip(turned, 0, 1)])
    counts, _ = np.histogram(hues, 6, (0, 1))
    assert counts.min() > 200  # all around the circle
    grey = np.full((1, 2, 2, 3), 0.4, np.float32)
    np.testing.assert_allclose(random_hue(KEY, grey, 0.5), grey, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_types_ranges_and_determinism(dtype):
    x = image()
    x = x if dtype == np.uint8 else (x / 255).astype(dtype)
    augment = jax.jit(Augmentation(crop=(6, 6), resized_crop=0.8, **COLOURS))
    y = augment(KEY, x)
    assert y.dtype == dtype and y.shape == (2, 6, 6, 3)
    assert y.min() >= 0 and y.max() <= (255 if dtype == np.uint8 else 1)
    np.testing.assert_array_equal(augment(KEY, x), y)
    assert (augment(jax.random.key(1), x) != y).mean() > 0.5


def test_nothing_chosen_changes_nothing():
    np.testing.assert_array_equal(Augmentation()(KEY, image()), image())


def test_operations_draw_independently():
    """Strengths drawn from one key would be equal or tied: estimated from what they do to a flat
    image (brightness) and to its pattern (contrast), their correlation is that of chance."""
    x = np.full((1, 2, 2, 3), 0.5, np.float32)
    x[0, 0] += 0.1
    x[0, 1] -= 0.1
    augment = Augmentation(brightness=0.2, contrast=0.5)
    y = np.asarray(jax.jit(jax.vmap(lambda k: augment(k, x)))(keys(1000)))[:, 0]
    brightness, contrast = y.mean((1, 2, 3)), y[:, 0, 0, 0] - y[:, 1, 0, 0]
    assert brightness.std() > 0.1 and contrast.std() > 0.05
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.12  # under four standard deviations


def test_leaving_an_operation_out_changes_no_other_draw():
    grey = np.full((1, 4, 4, 3), 0.5, np.float32)
    with_hue = Augmentation(brightness=0.2, hue=0.2)(KEY, grey)
    np.testing.assert_allclose(Augmentation(brightness=0.2)(KEY, grey), with_hue, atol=1e-6)


def test_rows_and_cameras_draw_independently_and_rows_by_their_number():
    grey = np.full((4, 1, 4, 4, 3), 0.5, np.float32)
    observation = {"image_a": grey, "image_b": grey, "image_a_mask": np.ones(4), "state": grey}
    augment = Augmentation(brightness=0.3)
    batch = jax.jit(augment.batch)
    out = batch(KEY, observation, np.array([7, 8, 9, 10]))
    shifts = np.stack([out["image_a"][:, 0, 0, 0, 0], out["image_b"][:, 0, 0, 0, 0]])
    assert len(np.unique(shifts)) == 8
    np.testing.assert_array_equal(out["state"], grey)
    np.testing.assert_array_equal(out["image_a_mask"], 1)
    part = batch(KEY, {"image_b": grey[:2]}, np.array([10, 8]))["image_b"]
    np.testing.assert_array_equal(part, out["image_b"][np.array([3, 1])])
    first = batch(KEY, {"image_a": grey})["image_a"]
    np.testing.assert_array_equal(first, batch(KEY, {"image_a": grey}, np.arange(4))["image_a"])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Augmentation(brightness=1.5), "brightness is 1.5, expected 0 to 1"),
        (lambda: Augmentation(hue=0.6), "hue is 0.6, expected 0 to 0.5"),
        (lambda: Augmentation(resized_crop=0.0), "resized_crop is 0.0, expected a share"),
        (lambda: random_crop(KEY, image(), (9, 4)), r"crop is \(9, 4\) for images of 8x8"),
        (lambda: centre_crop(image(), (4,)), r"crop is \(4,\) for images of 8x8"),
        (
            lambda: Augmentation()(KEY, image()[None]),
            r"shape \(1, 2, 8, 8, 3\).*Augmentation.batch",
        ),
        (lambda: Augmentation()(KEY, jnp.zeros((1, 4, 4, 3), int)), "images are int"),
        (
            lambda: Augmentation().batch(KEY, {"image": image()[None]}, np.arange(2)),
            r"rows has shape \(2,\), expected one number for each of the 1 rows of 'image'",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
