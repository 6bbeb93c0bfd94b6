"""Augments camera images by random crops and colours, as pure functions of a key on the device.

They run inside the jitted step, so the draws follow from the key of step and row: a run that
resumes, or has another number of hosts, has the same draws. The kernels take ONE sample's history
[T, h, w, 3] and apply the same draw to all its images. Each operation, camera and row has its own
key. Colours are computed in float32 on [0, 1]; the result has the type of the input.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ambient_jax import _checks

MASK = "_mask"
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as JPEG


def is_camera(name: str) -> bool:
    """Whether an observation's entry has images: `image` or `image_<camera>`, without `_mask`."""
    return (name == "image" or name.startswith("image_")) and not name.endswith(MASK)


def random_crop(key, images, size: tuple[int, int]):
    """Returns a window of `size` (h', w') at a uniform place, [T, h', w', 3], without resizing."""
    _check_crop(images.shape[-3:-1], size)
    places: list[Any] = [
        jax.random.randint(k, (), 0, images.shape[axis] - side + 1)
        for k, axis, side in zip(jax.random.split(key), (1, 2), size, strict=True)
    ]
    start = (0, *places, 0)
    return jax.lax.dynamic_slice(images, start, (images.shape[0], *size, 3))


def centre_crop(images, size: tuple[int, int]):
    """Returns the middle window of `size` of [..., h, w, 3], for evaluation, [..., h', w', 3]."""
    _check_crop(images.shape[-3:-1], size)
    top, left = ((a - b) // 2 for a, b in zip(images.shape[-3:-1], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1], :]


def random_resized_crop(key, images, scale=(0.8, 1.0), ratio=(0.9, 1.1)):
    """Resizes a window of random area and shape bilinearly to the input's size, [T, h, w, 3].

    ``scale`` bounds its share of the area (uniform), ``ratio`` its aspect ratio relative to the
    images' (log-uniform).
    """
    area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, (), minval=scale[0], maxval=scale[1])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(jax.random.uniform(ratio_key, (), minval=low, maxval=high))
    share = jnp.minimum(jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)]), 1.0)
    place = jnp.stack([jax.random.uniform(top_key), jax.random.uniform(left_key)])
    side = jnp.array(images.shape[1:3], jnp.float32)
    start = place * (1 - share) * side

    def resize(image):
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), 1 / share, -start / share, "linear", antialias=False
        )

    return _as_floats(jax.vmap(resize), images)


def random_brightness(key, images, strength: float = 0.1):
    """Adds a shift uniform in [-strength, strength]."""
    shift = jax.random.uniform(key, (), minval=-strength, maxval=strength)
    return _as_floats(lambda x: x + shift, images)


def random_contrast(key, images, strength: float = 0.1):
    """Scales the distance from the mean grey of each image by a factor in 1 -+ strength."""
    factor = jax.random.uniform(key, (), minval=1 - strength, maxval=1 + strength)

    def scale(x):
        mean = _grey(x).mean((1, 2), keepdims=True)
        return mean + factor * (x - mean)

    return _as_floats(scale, images)


def random_saturation(key, images, strength: float = 0.1):
    """Scales the distance of each pixel from its grey by a factor in 1 -+ strength."""
    factor = jax.random.uniform(key, (), minval=1 - strength, maxval=1 + strength)
    return _as_floats(lambda x: _grey(x) + factor * (x - _grey(x)), images)


def random_hue(key, images, strength: float = 0.05):
    """Turns colours around the grey axis by an angle uniform in -+ strength full turns. It rotates
    RGB by Rodrigues' formula, which keeps greys."""
    turn = jax.random.uniform(key, (), minval=-strength, maxval=strength)
    c, s = jnp.cos(2 * jnp.pi * turn), jnp.sin(2 * jnp.pi * turn)

    def rotate(x):
        along = x.mean(-1, keepdims=True)
        across = (jnp.roll(x, 1, axis=-1) - jnp.roll(x, -1, axis=-1)) / math.sqrt(3)
        return along + c * (x - along) + s * across

    return _as_floats(rotate, images)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The operations in this order; None or 0 omits an operation."""

    crop: tuple[int, int] | None = None  # (h', w') of `random_crop`; in evaluation, `centre_crop`
    resized_crop: float | None = None  # least share of the area of `random_resized_crop`, (0, 1]
    brightness: float = 0.0  # strengths in [0, 1]
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # in [0, 0.5], full turns

    def __post_init__(self):
        for name in _COLOURS:
            value, most = getattr(self, name), 0.5 if name == "hue" else 1.0
            _checks.number(f"Augmentation {name}", value)
            if not 0 <= value <= most:
                raise ValueError(f"Augmentation {name} is {value}, expected 0 to {most}")
        if (share := self.resized_crop) is not None:
            _checks.number("Augmentation resized_crop", share)
            if not 0 < share <= 1:
                raise ValueError(
                    f"Augmentation resized_crop is {share}, expected a share of the area above 0 "
                    "and up to 1"
                )
        if self.crop is not None:
            if not isinstance(self.crop, tuple | list) or len(self.crop) != 2:
                raise ValueError(f"Augmentation crop is {self.crop!r}, expected (height, width)")
            for side in self.crop:
                _checks.number("a side of Augmentation crop", side, 1, whole=True)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises ValueError unless images of ``size`` (height, width) are as large as the crop."""
        if self.crop:
            _check_crop(size, self.crop)

    def __bool__(self) -> bool:
        """Whether it does anything."""
        return self != Augmentation()

    def __call__(self, key, images):
        """Augments ONE sample's history [T, h, w, 3], uint8 or floating in [0, 1]."""
        # Keys by the position in a fixed list: omitting an operation changes no other draw.
        names = ("crop", "resized_crop", *_COLOURS)
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        _check_images(images)
        if self.crop:
            images = random_crop(keys["crop"], images, self.crop)

        def colours(x):
            if self.resized_crop:
                x = random_resized_crop(keys["resized_crop"], x, (self.resized_crop, 1.0))
            for name, operation in _COLOURS.items():
                if getattr(self, name):
                    x = operation(keys[name], x, getattr(self, name))
            return x

        return _as_floats(colours, images)  # rounded to uint8 once, not after each

    def batch(self, key, observation: Mapping[str, Any], rows=None) -> dict[str, Any]:
        """Augments all cameras [B, T, h, w, 3] of an observation; keeps other entries.

        ``rows``, integers [B], number the rows in the stream, so that draws do not depend on the
        batch size. The default is 0..B-1, with which each batch and device needs its own key.
        """
        out = dict(observation)
        for name, images in observation.items():
            if is_camera(name):
                numbers = jnp.arange(images.shape[0]) if rows is None else jnp.asarray(rows)
                if numbers.shape != images.shape[:1]:
                    raise ValueError(
                        f"rows has shape {numbers.shape}, expected one number for each of the "
                        f"{images.shape[0]} rows of {name!r}"
                    )
                camera = jax.random.fold_in(key, zlib.crc32(name.encode()))
                keys = jax.vmap(lambda n, k=camera: jax.random.fold_in(k, n))(numbers)
                out[name] = jax.vmap(self)(keys, jnp.asarray(images))
        return out

    def evaluation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Crops cameras to the size used in training, without draws."""
        if not self.crop:
            return dict(observation)
        return {
            name: centre_crop(value, self.crop) if is_camera(name) else value
            for name, value in observation.items()
        }


_COLOURS = {
    "brightness": random_brightness,
    "contrast": random_contrast,
    "saturation": random_saturation,
    "hue": random_hue,
}


def _grey(x):
    return (x * jnp.array(_LUMA, x.dtype)).sum(-1, keepdims=True)


def _as_floats(function, images):
    """Applies a function to float32 in [0, 1]; clips the result and restores the input's type."""
    _check_images(images)
    dtype = images.dtype
    x = images.astype(jnp.float32)
    if dtype == jnp.uint8:
        x = jnp.clip(function(x / 255), 0, 1)
        return jnp.round(255 * x).astype(jnp.uint8)
    return jnp.clip(function(x), 0, 1).astype(dtype)


def _check_images(images) -> None:
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images have shape {images.shape}, expected one sample's history [T, h, w, 3]: for a "
            "batch use Augmentation.batch, or jax.vmap with a key for each row"
        )
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}, expected uint8, or floating in [0, 1]")


def _check_crop(pixels, size) -> None:
    if len(size) != 2 or not (0 < size[0] <= pixels[0] and 0 < size[1] <= pixels[1]):
        raise ValueError(
            f"crop is {tuple(size)} for images of {pixels[0]}x{pixels[1]} pixels, expected a "
            "smaller (height, width)"
        )
