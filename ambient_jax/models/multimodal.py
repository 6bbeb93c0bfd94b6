"""State, cameras and instruction together as one condition vector."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambient_jax import _checks
from ambient_jax.models.language import ByteEncoder, EmbeddingEncoder
from ambient_jax.models.layers import Dense, Dtype, check_positive, mish
from ambient_jax.models.observation import ObservationEncoder, check_rows
from ambient_jax.models.vision import ImageEncoder, check_images, make_trunk
from ambient_jax.transforms.augment import MASK, is_camera

INSTRUCTION = "instruction"
# What the encoders of instructions, by the names of their parameters, read.
_INSTRUCTIONS = {"instruction_bytes": "uint8 [B, L]", "instruction_embedding": "floating [B, E]"}


class MultimodalEncoder(nn.Module):
    """Observations with images and an instruction to the condition of a denoiser, by their names:

    - `image`, `image_<camera>`: camera history [B, T, h, w, 3], uint8 or floating in [0, 1];
    - `image_<camera>_mask`: [B] or [B, T], False where that camera is missing (default: nowhere);
    - `instruction`: uint8 [B, L] of `encode_bytes`, or floating [B, E] of an `InstructionTable`;
    - all else: low-dimensional histories [B, T, d], as for `ObservationEncoder`.

    Attributes:
        width, depth, frequencies: see `ObservationEncoder`.
        vision: fields of the cameras' `ImageEncoder` but dtype.
        language: fields of the `ByteEncoder` but dtype; of embeddings only width matters.
        share_cameras: one `ResNet` for all cameras; the keypoints stay each camera's own.
        dtype: of the image and instruction encoders; parameters and the condition are float32.
    """

    width: int = 256
    depth: int = 2
    frequencies: int = 4
    vision: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    language: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    share_cameras: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes an observation to the condition [B, C], whatever the order of its names."""
        self.check_sizes()
        cameras, masks, state = split_observation(observation)
        self._check_entries(cameras, observation)
        parts = []
        if state:
            parts.append(ObservationEncoder(self.frequencies, width=0)(state))
        trunk = None
        if self.share_cameras and cameras:
            template = ImageEncoder(**self.vision, dtype=self.dtype, parent=None)
            trunk = make_trunk(template, name="resnet")
        for name, images in cameras.items():
            mask = check_images(name, images, masks.get(name))
            encoder = ImageEncoder(**self.vision, dtype=self.dtype, trunk=trunk, name=name)
            parts.append(encoder(images, mask).reshape(mask.shape[0], -1))
            parts.append(mask.astype(jnp.float32))
        if name := _instruction_encoder(observation):
            if name == "instruction_embedding":
                width = self.language.get("width", EmbeddingEncoder.width)
                words: nn.Module = EmbeddingEncoder(width, self.dtype, name=name)
            else:
                words = ByteEncoder(**self.language, dtype=self.dtype, name=name)
            parts.append(words(jnp.asarray(observation[INSTRUCTION])))
        x = jnp.concatenate(parts, axis=-1)
        if self.width:
            for i in range(self.depth):
                x = mish(Dense(self.width, name=f"hidden_{i}")(x))
            x = Dense(self.width, name="out")(x)
        return x

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, for fields that are unknown or make no sense."""
        for name in ("width", "depth", "frequencies"):
            if getattr(self, name) != 0:
                check_positive("MultimodalEncoder", **{name: getattr(self, name)})
        _checks.flag("MultimodalEncoder share_cameras", self.share_cameras)
        for name, module in (("vision", ImageEncoder), ("language", ByteEncoder)):
            fields = getattr(self, name)
            if not isinstance(fields, Mapping):
                raise ValueError(
                    f"MultimodalEncoder {name} is {fields!r}; expected a section of fields."
                )
            known = {f.name for f in dataclasses.fields(module)}
            known -= {"parent", "name", "dtype", "trunk"}
            for field in fields:
                if field not in known:
                    raise ValueError(
                        f"MultimodalEncoder {name} has an unknown field {field!r}; expected some of"
                        f" {', '.join(sorted(known))}{_checks.nearest(field, known)}."
                    )
            module(**fields, parent=None).check_sizes()

    def _check_entries(self, cameras, observation):
        """One B for all, and what the parameters, once made, were made for."""
        check_rows(observation)
        if self.is_initializing():
            return
        params = set(self.variables.get("params", {}))
        made_cameras = {n for n in params if is_camera(n)}
        for name in sorted(made_cameras - set(cameras)):
            raise ValueError(
                f"The observation has no {name!r}, which the parameters were made for"
                f"{_checks.nearest(name, cameras)}; where there is no such camera give any images"
                f" and {name + MASK!r} = False."
            )
        for name in sorted(set(cameras) - made_cameras):
            raise ValueError(
                f"The parameters were made for {sorted(made_cameras) or 'no cameras'}, not for"
                f" {name!r}{_checks.nearest(name, made_cameras)}; leave it out or initialise anew."
            )
        encoder, given = _instruction_encoder(observation), "none"
        if encoder:
            given = f"one of dtype {jnp.result_type(observation[INSTRUCTION])}"
        for name in sorted(params & set(_INSTRUCTIONS) - {encoder}):
            raise ValueError(
                f"The parameters were made for an 'instruction' {_INSTRUCTIONS[name]}, and the"
                f" observation has {given}; rows of zeros stand for no instruction."
            )
        if encoder and encoder not in params:
            raise ValueError(
                "The parameters were made without an 'instruction'; leave it out or initialise"
                " anew."
            )


def split_observation(observation: Mapping[str, Any]) -> tuple[dict, dict, dict]:
    """Cameras, their masks (under the camera's name) and low-dimensional entries, sorted by
    name."""
    if not observation:
        raise ValueError("The observation is empty; expected cameras, an instruction or a state.")
    names = sorted(observation)
    cameras = {name: observation[name] for name in names if is_camera(name)}
    camera_masks = [n for n in names if n.endswith(MASK) and is_camera(n.removesuffix(MASK))]
    masks = {name.removesuffix(MASK): observation[name] for name in camera_masks}
    for name in masks:
        if name not in cameras:
            raise ValueError(
                f"Observation {name + MASK!r} has no images {name!r}"
                f"{_checks.nearest(name, cameras)}; give both or neither."
            )
    others = {*cameras, *camera_masks, INSTRUCTION}
    return cameras, masks, {name: observation[name] for name in names if name not in others}


def _instruction_encoder(observation):
    """Name of the encoder of the observation's instruction; "" without one."""
    if INSTRUCTION not in observation:
        return ""
    is_floating = jnp.issubdtype(jnp.result_type(observation[INSTRUCTION]), jnp.floating)
    return "instruction_embedding" if is_floating else "instruction_bytes"
