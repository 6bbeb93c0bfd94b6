"""Steps of a chain after its normaliser: masks, roles, images, instructions and a crop."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from ambient_jax.transforms import augment, frames, instructions

ACTION, OBSERVATION = "action", "observation/"
INSTRUCTION = "instruction"
IS_CLEAN = "is_clean"
_MOST_WARNED = 100  # texts of which a warning tells
Observation = Mapping[str, Any]
Shapes = dict[str, jax.ShapeDtypeStruct]


class Step:
    """One transform after normalisation: a frozen dataclass whose fields JSON can store.

    Unless a step overrides it, a method returns its input or nothing.
    """

    sources: tuple[str, ...] = ()  # sources with their own form, see ``for_source``
    action_mask: np.ndarray | None = None  # [D] bool, dimensions of the action that exist

    def for_source(self, k: int) -> Step:
        """Returns the step of one source, number ``k`` of ``sources``."""
        return self

    def of(self, source: str | None) -> Step:
        """Returns the step for a policy of the source of this name; None for no source."""
        return self

    def inputs(self, history: int) -> Shapes:
        """Returns the shapes of the inputs that it adds to the observations of one row."""
        return {}

    def constants(self) -> dict[str, np.ndarray]:
        """Returns the constant fields of each source's rows in a batch, [K, d] by name."""
        return {}

    def encoders(self) -> dict[str, Callable[[list], np.ndarray]]:
        """Returns functions that encode raw values [B] of a stream as an array, by input."""
        return {}

    def widen(self, observation: Observation) -> Observation:
        """Pads observations to the width of the data."""
        return observation

    def check(self, observation: Observation, lead: tuple[int, ...]) -> dict[str, Any]:
        """Checks an observation on the host; returns the inputs that it adds, [*lead, ...]."""
        return {}

    def normalise(self, fields: dict[str, Any], source: int | None) -> dict[str, Any]:
        """Transforms normalised fields of recorded steps."""
        return fields

    def observe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Transforms normalised inputs [B, ...]; pure."""
        return inputs

    def act(self, action: Any) -> Any:
        """Transforms an action [..., D] in data units that a network returned; pure."""
        return action

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Step:
        """Computes the inverse of ``to_dict``; lists become tuples."""
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Mask(Step):
    """Sets normalised dimensions that a source's robot lacks to 0, and adds the masks as inputs.

    ``masks`` by field are [K, d] bool with a row for each of ``sources``, or [d] for one source;
    False where the robot lacks the dimension.
    """

    masks: dict[str, np.ndarray]
    sources: tuple[str, ...] = ()

    @property
    def action_mask(self) -> np.ndarray:  # type: ignore[override]
        return self.masks[ACTION]

    def for_source(self, k):
        return Mask({name: mask[k] for name, mask in self.masks.items()})

    def _observed(self):
        """Returns {name of the observation: its mask}."""
        masks = {n: mask for n, mask in self.masks.items() if n != ACTION}
        return {name.removeprefix(OBSERVATION): mask for name, mask in masks.items()}

    def _inputs(self):
        """Returns {name of the input: its mask}."""
        return {f"{name}{augment.MASK}": mask for name, mask in self._observed().items()}

    def inputs(self, history):
        shape = lambda mask: jax.ShapeDtypeStruct((history, mask.shape[-1]), np.float32)  # noqa: E731
        return {name: shape(mask) for name, mask in self._inputs().items()}

    def constants(self):
        masks = {f"{OBSERVATION}{n}": m.astype(np.float32) for n, m in self._inputs().items()}
        return {"dims": self.masks[ACTION], **masks}

    def widen(self, observation):
        observation = dict(observation)
        for name, mask in self._observed().items():
            value = np.asarray(observation.get(name, 0))
            missing = mask.size - mask.sum()
            if missing and value.ndim and value.shape[-1] == mask.sum():
                observation[name] = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, missing)])
        return observation

    def check(self, observation, lead):
        checked = {}
        for name, mask in self._inputs().items():
            shape = (*lead, mask.size)
            default = np.broadcast_to(mask.astype(np.float32), shape)
            checked[name] = _fitting(name, observation.get(name, default), shape, np.float32)
        return checked

    def normalise(self, fields, source):
        masks = self.masks if source is None else {n: m[source] for n, m in self.masks.items()}
        return {n: np.where(masks[n], x, np.float32(0)) for n, x in fields.items()}

    def observe(self, inputs):
        masked = {
            name: jnp.where(jnp.asarray(inputs[f"{name}{augment.MASK}"]) > 0, inputs[name], 0)
            for name in self._observed()
            if name in inputs
        }
        return inputs | masked

    def act(self, action):
        return jnp.where(self.masks[ACTION], action, 0)

    def to_dict(self):
        masks = {name: mask.tolist() for name, mask in self.masks.items()}
        return {"masks": masks, "sources": list(self.sources)}

    @classmethod
    def from_dict(cls, fields):
        masks = {name: np.asarray(mask, bool) for name, mask in fields["masks"].items()}
        return cls(masks, tuple(fields["sources"]))


@dataclasses.dataclass(frozen=True)
class Role(Step):
    """Tells the network whether data are clean: the input ``is_clean`` [T, 1], 1 or 0.

    In training it is the role of a row's source. A policy asks for clean data, or for those of its
    source (``of``), where its observation has no ``is_clean``.
    """

    names: tuple[str, ...]  # of the sources
    clean: tuple[bool, ...]  # the role of each
    asked: float = 1.0

    def of(self, source):
        roles = dict(zip(self.names, self.clean, strict=True))
        return dataclasses.replace(self, asked=float(roles.get(source, True)))

    def inputs(self, history):
        return {IS_CLEAN: jax.ShapeDtypeStruct((history, 1), np.float32)}

    def constants(self):
        return {f"{OBSERVATION}{IS_CLEAN}": np.array(self.clean, np.float32)[:, None]}

    def check(self, observation, lead):
        shape = (*lead, 1)
        value = np.asarray(observation.get(IS_CLEAN, self.asked), np.float32)
        if value.shape not in ((), shape) or not np.isin(value, (0, 1)).all():
            raise ValueError(
                f"observation {IS_CLEAN!r} has shape {value.shape} and values from "
                f"{value.min(initial=1):g} to {value.max(initial=0):g}, expected a number or "
                f"{shape}, 1 to ask for clean data or 0 for corrupt; leave it out for "
                f"{self.asked:g}"
            )
        return {IS_CLEAN: np.broadcast_to(value, shape)}

    def observe(self, inputs):
        if IS_CLEAN in inputs:
            return inputs
        rows = next(value for name, value in inputs.items() if name != INSTRUCTION)
        return inputs | {IS_CLEAN: jnp.full((*rows.shape[:2], 1), self.asked, jnp.float32)}


@dataclasses.dataclass(frozen=True)
class Images(Step):
    """Resizes camera frames to (height, width) and adds a mask of those that are present.

    The inputs are ``image_<camera>`` and ``image_<camera>_mask``.
    """

    cameras: tuple[str, ...]
    size: tuple[int, int]

    def inputs(self, history):
        shapes = {}
        for camera in self.cameras:
            shapes[f"image_{camera}"] = jax.ShapeDtypeStruct((history, *self.size, 3), np.uint8)
            mask = jax.ShapeDtypeStruct((history,), np.bool_)
            shapes[f"image_{camera}{augment.MASK}"] = mask
        return shapes

    def check(self, observation, lead):
        checked = {}
        for camera in self.cameras:
            name, mask = f"image_{camera}", f"image_{camera}{augment.MASK}"
            present = observation.get(mask, np.full(lead, name in observation))
            checked[mask] = _fitting(mask, present, lead, np.bool_)
            if name not in observation:  # missing in all rows
                if checked[mask].any():
                    raise ValueError(
                        f"observation {name!r} is missing where its mask is True: give its "
                        f"frames, or False in {mask!r}"
                    )
                checked[name] = np.zeros((*lead, *self.size, 3), np.uint8)
                continue
            value = frames.check_frames(f"observation {name!r}", observation[name])
            if value.shape[:-3] != lead:
                raise ValueError(
                    f"observation {name!r} has shape {value.shape}, expected "
                    f"({', '.join(map(str, lead))}, height, width, 3): rows"
                    f"{', then steps of the history' if len(lead) > 1 else ''}, then one frame each"
                )
            checked[name] = frames.resize(value, self.size)
        return checked


@dataclasses.dataclass(frozen=True, eq=False)
class Text(Step):
    """Encodes instructions as bytes [B, L] uint8, or as embeddings [B, E] float32."""

    length: int  # L, bytes of an instruction; longer instructions are cut
    embeddings: str = ""  # .npz file (``instructions.load_instructions``) in place of the bytes
    empty: bool = True  # whether training may have steps without an instruction
    _warned: set[str | bytes] = dataclasses.field(default_factory=set, init=False, repr=False)

    @functools.cached_property
    def table(self) -> instructions.InstructionTable | None:
        """The file's embeddings, read once."""
        return instructions.load_instructions(self.embeddings) if self.embeddings else None

    @property
    def width(self) -> int:
        """L or E."""
        return self.table.embedding.shape[1] if self.table else self.length

    def encode(self, texts) -> np.ndarray:
        """Encodes an instruction, or a sequence of B, as an array [B, width]."""
        texts = instructions.as_texts(texts, 1 if isinstance(texts, str | bytes) else len(texts))
        if self.table:
            return self.table.look_up(texts)
        texts = [(t.encode() if isinstance(t, str) else t).replace(b"\0", b" ") for t in texts]
        return instructions.encode_bytes(texts, self.length, on_long="truncate")

    def inputs(self, history):
        dtype = np.float32 if self.table else np.uint8
        return {INSTRUCTION: jax.ShapeDtypeStruct((self.width,), dtype)}

    def encoders(self):
        return {INSTRUCTION: self.encode}

    def check(self, observation, lead):
        instruction, batch = observation.get(INSTRUCTION), lead[0]
        if instruction is None:
            raise ValueError(
                "observation 'instruction' is missing, which the policy was trained with: give "
                f"{batch} texts, one for each row, '' where there is none"
            )
        encoded = np.asarray(instruction) if hasattr(instruction, "dtype") else None
        if encoded is None or encoded.dtype.kind not in "uf":
            texts = instructions.as_texts(instruction, batch)
            encoded = self.encode(texts)
            self._warn(texts, instructions.is_empty(encoded))
        dtype = self.inputs(1)[INSTRUCTION].dtype
        return {INSTRUCTION: _fitting(INSTRUCTION, encoded, (batch, self.width), dtype)}

    def _warn(self, texts, empty):
        """Logs once per text that it is empty, unlike in training, or that the encoder cuts it."""
        for text, none in zip(texts, empty.tolist(), strict=True):
            data = text.encode() if isinstance(text, str) else text
            if none and not self.empty:
                told = f"a row has no instruction ({text!r}), but all steps of the training had one"
            elif not self.table and len(data) > self.length:
                seen = instructions.cut(data, self.length)
                told = f"instruction {text!r} has {len(data)} bytes, over the training's "
                told += f"instruction_bytes {self.length}: the policy sees {seen!r} of it"
            else:
                continue
            if text not in self._warned and len(self._warned) < _MOST_WARNED:
                self._warned.add(text)
                end = "; no more are told" * (len(self._warned) == _MOST_WARNED)
                logging.warning("%s%s", told, end)

    def to_dict(self):
        return {"length": self.length, "embeddings": self.embeddings, "empty": self.empty}


@dataclasses.dataclass(frozen=True)
class Crop(Step):
    """Takes the middle (height, width) of camera images, as training cropped at random."""

    size: tuple[int, int]

    def observe(self, inputs):
        return augment.Augmentation(crop=self.size).evaluation(inputs)


STEPS = {"mask": Mask, "role": Role, "images": Images, "text": Text, "crop": Crop}


def _fitting(name, value, shape, dtype):
    value = np.asarray(value)
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(
            f"observation {name!r} has shape {value.shape} and type {value.dtype}, "
            f"expected {shape} {np.dtype(dtype)}"
        )
    return value
