"""Encodes state, cameras and instruction as one condition vector."""

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
# Inputs of the instruction encoders, by the names of their parameters.
_INSTRUCTIONS = {"instruction_bytes": "uint8 [B, L]", "instruction_embedding": "floating [B, E]"}


class MultimodalEncoder(nn.Module):
    """Encodes observations with images and an instruction to the condition of a denoiser.

    - `image`, `image_<camera>`: camera history [B, T, h, w, 3], uint8 or floating in [0, 1];
    - `image_<camera>_mask`: [B] or [B, T], False where that camera is missing (default: True);
    - `instruction`: uint8 [B, L] of `encode_bytes`, or floating [B, E] of an `InstructionTable`;
    - other names: low-dimensional histories [B, T, d], as for `ObservationEncoder`.

    Attributes:
        width, depth, frequencies: see `ObservationEncoder`.
        vision: fields of the cameras' `ImageEncoder`, except dtype.
        language: fields of the `ByteEncoder`, except dtype; embeddings use only width.
        share_cameras: one network for all cameras; every camera keeps its own keypoints.
        dtype: type of the image and instruction encoders; parameters and condition are float32.
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
        """Encodes an observation to the condition [B, C]; the order of names does not matter."""
        self.check_sizes()
        cameras, masks, state = split_observation(observation)
        self._check_entries(cameras, observation)
        parts = []
        if state:
            parts.append(ObservationEncoder(self.frequencies, width=0)(state))
        trunk = None
        if self.share_cameras and cameras:
            template = ImageEncoder(**self.vision, dtype=self.dtype, parent=None)
            trunk = make_trunk(template)
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
        """Raises ValueError that names a field which is unknown or out of range."""
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
            allowed = {f.name for f in dataclasses.fields(module)}
            allowed -= {"parent", "name", "dtype", "trunk"}
            for field in fields:
                if field not in allowed:
                    raise ValueError(
                        f"MultimodalEncoder {name} has an unknown field {field!r}; expected some of"
                        f" {', '.join(sorted(allowed))}{_checks.nearest(field, allowed)}."
                    )
            module(**fields, parent=None).check_sizes()

    def _check_entries(self, cameras, observation):
        """Raises ValueError unless all batch sizes agree and the inputs fit the parameters."""
        check_rows(observation)
        if self.is_initializing():
            return
        params = set(self.variables.get("params", {}))
        expected = {n for n in params if is_camera(n)}
        for name in sorted(expected - set(cameras)):
            raise ValueError(
                f"The observation has no {name!r}, which the parameters were made for"
                f"{_checks.nearest(name, cameras)}; where there is no such camera give any images"
                f" and {name + MASK!r} = False."
            )
        for name in sorted(set(cameras) - expected):
            raise ValueError(
                f"The parameters were made for {sorted(expected) or 'no cameras'}, not for"
                f" {name!r}{_checks.nearest(name, expected)}; leave it out or initialise anew."
            )
        encoder, instruction = _instruction_encoder(observation), "none"
        if encoder:
            instruction = f"one of dtype {jnp.result_type(observation[INSTRUCTION])}"
        for name in sorted(params & set(_INSTRUCTIONS) - {encoder}):
            raise ValueError(
                f"The parameters were made for an 'instruction' {_INSTRUCTIONS[name]}, and the"
                f" observation has {instruction}; rows of zeros stand for no instruction."
            )
        if encoder and encoder not in params:
            raise ValueError(
                "The parameters were made without an 'instruction'; leave it out or initialise"
                " anew."
            )


def split_observation(observation: Mapping[str, Any]) -> tuple[dict, dict, dict]:
    """Returns cameras, their masks (by the camera's name) and other histories, sorted by name."""
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
    used = {*cameras, *camera_masks, INSTRUCTION}
    return cameras, masks, {name: observation[name] for name in names if name not in used}


def _instruction_encoder(observation):
    """Returns the name of the encoder for the observation's instruction; "" for none."""
    if INSTRUCTION not in observation:
        return ""
    is_floating = jnp.issubdtype(jnp.result_type(observation[INSTRUCTION]), jnp.floating)
    return "instruction_embedding" if is_floating else "instruction_bytes"
