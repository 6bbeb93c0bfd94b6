"""A small encoder of two cameras, sized for a CPU: about 5 million multiplications a picture."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambient_jax.models.layers import mish
from ambient_jax.models.vision import spatial_softmax
from ambient_jax.transforms.augment import MASK, is_camera


class CameraEncoder(nn.Module):
    """Encodes the newest picture of each camera by convolutions, and histories by dense layers.

    Each picture gives the places of keypoints (a spatial softmax), which say where something is,
    and a coarse map, which says what is there.

    Attributes:
        widths: channels of the patches of 4 x 4 pixels, of a second layer, and of the coarse map.
        keypoints: their number for each camera.
        width: of the condition and of its hidden layer.
    """

    widths: tuple[int, ...] = (32, 32, 16)
    keypoints: int = 16
    width: int = 256

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes uint8 pictures [B, T, h, w, 3] and other histories [B, T, d] to [B, C]."""
        parts = []
        for name in sorted(observation):
            value = observation[name]
            if is_camera(name):
                parts.append(self._picture(name, value[:, -1]))
            elif not name.endswith(MASK):
                parts.append(value.reshape(len(value), -1))
        x = jnp.concatenate(parts, -1)
        x = mish(nn.Dense(self.width, name="hidden")(x))
        return nn.Dense(self.width, name="out")(x)

    def _picture(self, name, images):
        first, second, coarse = self.widths
        x = images.astype(jnp.float32) / 127.5 - 1
        x = nn.relu(_patches(x, 4, first, f"{name}_patches"))
        x = nn.relu(nn.Conv(second, (3, 3), name=f"{name}_near")(x))
        points = spatial_softmax(nn.Conv(self.keypoints, (3, 3), name=f"{name}_points")(x))
        rest = nn.Conv(coarse, (3, 3), strides=2, name=f"{name}_coarse")(x)
        return jnp.concatenate([points, nn.relu(rest).reshape(len(x), -1)], -1)


def _patches(x, size, width, name):
    """Returns dense features [B, h / size, w / size, width] of patches; one product on a CPU."""
    batch, h, w, channels = x.shape
    x = x.reshape(batch, h // size, size, w // size, size, channels).swapaxes(2, 3)
    return nn.Dense(width, name=name)(x.reshape(batch, h // size, w // size, -1))
