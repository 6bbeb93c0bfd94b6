"""What a policy of the common form sees and does, as one of its training's robots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax.data import images, instructions
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.augment import Augmentation, is_camera
from ambient_jax.open_x.dataset import CommonForm

_MASK = "_mask"
_INSTRUCTION = "instruction"


@dataclasses.dataclass(frozen=True, eq=False)
class FormOfSource:
    """Inputs and masks of one source.

    Attributes:
      common: the form itself, which encodes instructions.
      shapes: of all observations of one row, by name (``mixtures.observation_shapes``).
      dims: [D] bool, dimensions of the action that the source's robot has.
      state_mask: [d] bool, likewise of its state.
      augmentation: of the training; here only its crop matters.
    """

    common: CommonForm
    shapes: Mapping[str, Any]
    dims: np.ndarray
    state_mask: np.ndarray
    augmentation: Augmentation = Augmentation()
    _told: set[str | bytes] = dataclasses.field(default_factory=set, init=False)

    def widened(self, name: str, value: np.ndarray, width: int) -> np.ndarray:
        """A state [..., own numbers] padded to the common width."""
        if name == "state" and value.ndim and value.shape[-1] == self.state_mask.sum() < width:
            return np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, width - value.shape[-1])])
        return value

    def check(
        self,
        observation: Mapping[str, Any],
        checked: dict[str, np.ndarray],
        between: tuple[int, ...],
    ) -> dict[str, np.ndarray]:
        """Adds images, masks and instructions [B, *between, ...] to checked vectors.

        Images of another size are brought to the training's as there (``images.resize``).

        Raises:
          ValueError: shapes or types that do not fit, no instruction, or observations without a
            batch.
        """
        batch = _batch(observation, checked)
        if not batch:
            raise ValueError("the observation is empty, expected " + ", ".join(self.shapes))
        for name, shape in self.shapes.items():
            if name in checked:
                continue
            if name == _INSTRUCTION:
                checked[name] = self._instruction(observation.get(name), batch)
                wanted: tuple[int, ...] = (batch, *shape.shape)
            else:
                wanted = (batch, *between, *shape.shape[1:])
                value = self._or_default(name, observation, wanted, shape.dtype)
                checked[name] = _frames(name, value, wanted) if is_camera(name) else value
            found = checked[name] = np.asarray(checked[name])
            if found.shape != wanted or found.dtype != shape.dtype:
                raise ValueError(
                    f"observation {name!r} has shape {found.shape} and type {found.dtype}, "
                    f"expected {wanted} {np.dtype(shape.dtype)}"
                )
        return checked

    def _or_default(self, name, observation, wanted, dtype):
        if name in observation:
            return observation[name]
        if name == "state_mask":
            return np.broadcast_to(self.state_mask.astype(dtype), wanted)
        if name.endswith(_MASK):
            return np.full(wanted, name.removesuffix(_MASK) in observation)
        return np.zeros(wanted, dtype)  # a camera that is missing in all rows

    def _instruction(self, given, batch):
        if given is None:
            raise ValueError(
                "observation 'instruction' is missing, which the policy was trained with: give "
                f"{batch} texts, one for each row, '' where there is none"
            )
        if hasattr(given, "dtype") and np.asarray(given).dtype.kind in "uf":
            return np.asarray(given)  # as the encoder takes them
        texts = instructions.as_texts(given, batch)
        found = self.common.encode(texts)
        self._tell(texts, instructions.is_empty(found))
        return found

    def _tell(self, given, empty):
        """Logs, of each text once, what training did not see or the encoder does not."""
        length = self.common.instruction_width
        for text, none in zip(given, empty.tolist(), strict=True):
            data = text.encode() if isinstance(text, str) else text
            if text in self._told:
                continue
            self._told.add(text)
            if none and self.common.policy(_INSTRUCTION) != "keep":
                logging.warning(
                    "a row has no instruction (%r), and no step of the training was without", text
                )
            elif not self.common.table and len(data) > length:
                logging.warning(
                    "instruction %r has %d bytes, over the training's instruction_bytes %d: the "
                    "policy sees %r of it",
                    *(text, len(data), length, instructions.cut(data, length)),
                )


def _batch(observation, checked):
    """B, of any array; of texts alone their number, where one has B = 1."""
    for name, value in (*checked.items(), *observation.items()):
        if name != _INSTRUCTION and np.ndim(value):
            return len(value)
    text = observation.get(_INSTRUCTION)
    return np.shape(text)[0] if np.ndim(text) else int(text is not None)


def _frames(name, value, wanted):
    frames = images.check_frames(f"observation {name!r}", value)
    if frames.shape[:-3] != wanted[:-3]:
        raise ValueError(
            f"observation {name!r} has shape {frames.shape}, expected "
            f"({', '.join(map(str, wanted[:-3]))}, height, width, 3): rows"
            f"{', then steps of the history' if len(wanted) > 4 else ''}, then one frame each"
        )
    return images.resize(frames, wanted[-3:-1])


def form_of_source(
    config: ml_collections.ConfigDict, masks: Mapping[str, list[bool]]
) -> FormOfSource:
    """Of a checkpoint's config and its masks of one source."""
    form = mixtures.common_form(config.data)
    return FormOfSource(
        form,
        mixtures.observation_shapes(config.data, form, {}),
        np.asarray(masks["action"], bool),
        np.asarray(masks["state"], bool),
        Augmentation(**config.augmentation),
    )
