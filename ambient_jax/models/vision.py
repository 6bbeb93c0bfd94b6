"""Encodes camera histories as the positions of K keypoints, by a ResNet-18 with GroupNorm.

As in Diffusion Policy (Chi et al. 2023) there are no batch statistics, which do not work with a
moving average of the parameters, and a spatial softmax (Levine et al. 2016) replaces the average
pool.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import variance_scaling

from ambient_jax import _checks
from ambient_jax.models import layers, pretrained
from ambient_jax.models.layers import Dense, Dtype, GroupNorm, check_positive, check_widths

# Residual layers under ReLU keep the variance of the gradients (He et al. 2015).
_Conv = functools.partial(
    nn.Conv, use_bias=False, kernel_init=variance_scaling(2.0, "fan_out", "normal")
)


class BasicBlock(nn.Module):
    """(3x3 conv, GroupNorm, ReLU) twice, with the shortcut added before the last ReLU."""

    features: int
    stride: int
    group_size: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = _conv(self.features, 3, self.stride, self.dtype, "conv_0")(x)
        h = nn.relu(_normalised(h, self.group_size, "norm_0"))
        h = _conv(self.features, 3, 1, self.dtype, "conv_1")(h)
        h = _normalised(h, self.group_size, "norm_1")
        if self.stride != 1 or x.shape[-1] != self.features:
            x = _conv(self.features, 1, self.stride, self.dtype, "shortcut")(x)
            x = _normalised(x, self.group_size, "shortcut_norm")
        return nn.relu(h + x)


class ResNet(nn.Module):
    """Residual network (He et al. 2016), without the pool and the classifier; 18 by default.

    Attributes:
        widths: channels of each stage; every stage after the first halves the map, and the stem
            before them quarters it. Fewer stages suit smaller images.
        blocks: residual blocks of each stage.
        group_size: channels of a group of the normalisations; a stage that has fewer is one group.
        remat: recompute the blocks in the backward pass instead of storing their activations.
        dtype: type of the computation; parameters and statistics are float32.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    group_size: int = 16
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [N, h, w, 3] of about unit scale to [N, h / r, w / r, widths[-1]]. Sizes are
        rounded up; r is `2 ** (len(widths) + 1)`."""
        self.check_sizes()
        block = nn.remat(BasicBlock) if self.remat else BasicBlock
        x = _conv(self.widths[0], 7, 2, self.dtype, "stem")(x.astype(self.dtype))
        x = nn.relu(_normalised(x, self.group_size, "stem_norm"))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, width in enumerate(self.widths):
            for i in range(self.blocks):
                stride = 2 if stage and not i else 1
                name = f"stage_{stage}_{i}"
                x = block(width, stride, self.group_size, self.dtype, name=name)(x)
        return x

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, unless the sizes fit each other."""
        check_positive("ResNet", blocks=self.blocks, group_size=self.group_size)
        _checks.flag("ResNet remat", self.remat)
        check_widths("ResNet", "widths", self.widths)
        wide = [width for width in self.widths if width > self.group_size]
        layers.check_multiple("ResNet", group_size=self.group_size, widths=wide)


class ImageEncoder(nn.Module):
    """Encodes one camera's history as the positions of K keypoints in each of its images.

    Where the camera is missing the result is zero without a gradient, even if pixels are NaN: the
    mask replaces pixels before, and features after, the computation.

    Attributes:
        keypoints: K.
        widths, blocks, group_size, remat, dtype: see `ResNet`.
        pretrained: section of a network from a file in place of the `ResNet`, see
            `pretrained.build`; {}: none. Without `tune` its weights stay as they are.
        trunk: a network shared with other cameras; None: its own.
    """

    keypoints: int = 32
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    group_size: int = 16
    remat: bool = False
    dtype: Dtype = jnp.float32
    pretrained: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trunk: nn.Module | None = None

    @nn.compact
    def __call__(self, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Encodes [B, T, h, w, 3], uint8 or floating in [0, 1], to [B, T, 2K] float32. These are
        coordinates (x, y) in [-1, 1]. ``mask`` [B] or [B, T] is False for no image."""
        self.check_sizes()
        mask = check_images(self.name or "image", images, mask)
        images = jnp.asarray(images)
        x = jnp.where(mask[..., None, None, None], images, jnp.zeros((), images.dtype))
        x = x.reshape(-1, *x.shape[2:])
        x = x.astype(jnp.float32) * (2 / 255) - 1 if x.dtype == jnp.uint8 else 2 * x - 1
        trunk = make_trunk(self) if self.trunk is None else self.trunk
        features = trunk(x)
        if self.pretrained and not self.pretrained.get("tune"):
            features = jax.lax.stop_gradient(features)
        if min(features.shape[1:3]) < 2:
            smallest = 2 ** (len(self.widths) + 1) + 1
            raise ValueError(
                f"{self.name or 'image'!r} has {images.shape[2]}x{images.shape[3]} pixels, which"
                f" {len(self.widths)} stages reduce to {features.shape[1]}x{features.shape[2]}, too"
                f" small for keypoints. Give at least {smallest} pixels a side, or fewer widths."
            )
        logits = Dense(self.keypoints, self.dtype, name="keypoints")(features)
        y = spatial_softmax(logits).reshape(*mask.shape, 2 * self.keypoints)
        return jnp.where(mask[..., None], y, 0.0)

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, unless the sizes fit each other."""
        check_positive("ImageEncoder", keypoints=self.keypoints)
        check_widths("ImageEncoder", "widths", self.widths)
        make_trunk(self, parent=None).check_sizes()


def make_trunk(encoder: ImageEncoder, **keywords: Any) -> Any:
    """Makes the network of an encoder's fields; keywords are Flax's."""
    if encoder.pretrained:
        return pretrained.build(encoder.pretrained, encoder.dtype, name=pretrained.NAME, **keywords)
    fields = (encoder.blocks, encoder.group_size, encoder.remat, encoder.dtype)
    return ResNet(tuple(encoder.widths), *fields, name="resnet", **keywords)


def spatial_softmax(logits: jax.Array) -> jax.Array:
    """Returns the mean position (x, y) of each channel of [N, h, w, K] under a spatial softmax. The
    result is [N, 2K] float32; the centres of the first and last cell of a side are -1 and 1."""
    batch, h, w, k = logits.shape
    weights = jax.nn.softmax(logits.astype(jnp.float32).reshape(batch, h * w, k), axis=1)
    centres = [jnp.linspace(-1.0, 1.0, n) if n > 1 else jnp.zeros(1) for n in (h, w)]
    y, x = jnp.meshgrid(*centres, indexing="ij")
    grid = jnp.stack([x.ravel(), y.ravel()], axis=-1)
    # A sum, as the matrix unit of a TPU would round the positions to bfloat16.
    return (weights[..., None] * grid[:, None]).sum(1).reshape(batch, 2 * k)


def check_images(name: str, images: Any, mask: Any = None) -> jax.Array:
    """Returns the mask as bool [B, T]; raises ValueError unless it fits a camera history."""
    shape = jnp.shape(images)
    if len(shape) != 5 or shape[-1] != 3 or 0 in shape[1:]:
        raise ValueError(
            f"{name!r} has shape {shape}; expected [B, T, h, w, 3], a history of T colour images"
            " for each of B samples."
        )
    dtype = jnp.result_type(images)
    if dtype != jnp.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name!r} is {dtype}; expected uint8, or floating in [0, 1].")
    if mask is None:
        return jnp.ones(shape[:2], bool)
    mask = jnp.asarray(mask).astype(bool)
    if mask.shape not in (shape[:1], shape[:2]):
        raise ValueError(
            f"The mask of {name!r} has shape {mask.shape}; expected {shape[:1]} or {shape[:2]} for"
            f" images {shape}."
        )
    return jnp.broadcast_to(mask if mask.ndim == 2 else mask[:, None], shape[:2])


def _conv(features: int, kernel: int, stride: int, dtype: Dtype, name: str) -> nn.Conv:
    size = (kernel, kernel)
    return _Conv(features, size, stride, kernel // 2, dtype=dtype, name=name)


def _normalised(x: jax.Array, group_size: int, name: str) -> jax.Array:
    n, h, w, channels = x.shape
    groups = max(1, channels // group_size)
    return GroupNorm(groups, name=name)(x.reshape(n, h * w, channels)).reshape(x.shape)
