"""What a policy of the common form sees and does, as one of its training's robots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.data import sources
from ambient_jax.data.augment import Augmentation
from ambient_jax.data.open_x.dataset import CommonForm

_MASK = "_mask"
_INSTRUCTION = "instruction"


@dataclasses.dataclass(frozen=True, eq=False)
class FormOfSource:
    """Inputs and masks of one source.

    Attributes:
      common: the form itself, which encodes instructions.
      shapes: of all observations of one row, by name (``sources.observation_shapes``).
      dims: [D] bool, dimensions of the action that the source's robot has.
      state_mask: [d] bool, likewise of its state.
      augmentation: of the training; here only its crop matters.
    """

    common: CommonForm
    shapes: Mapping[str, Any]
    dims: np.ndarray
    state_mask: np.ndarray
    augmentation: Augmentation = Augmentation()

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

        Raises:
          ValueError: shapes or types that do not fit, or observations without a batch.
        """
        batch = next((len(v) for v in (*checked.values(), *observation.values())), 0)
        if not batch:
            raise ValueError("the observation is empty, expected " + ", ".join(self.shapes))
        for name, shape in self.shapes.items():
            if name in checked:
                continue
            if name == _INSTRUCTION:
                checked[name] = self._instruction(observation.get(name, [""] * batch))
                wanted: tuple[int, ...] = (batch, *shape.shape)
            else:
                wanted = (batch, *between, *shape.shape[1:])
                checked[name] = np.asarray(self._or_default(name, observation, wanted, shape.dtype))
            found = checked[name]
            if found.shape != wanted or found.dtype != shape.dtype:
                raise ValueError(
                    f"observation {name!r} has shape {found.shape} and type {found.dtype}, "
                    f"expected {wanted} {np.dtype(shape.dtype)}"
                    + (": resize the images" if name.startswith("image") else "")
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

    def _instruction(self, given):
        if isinstance(given, np.ndarray) and given.dtype.kind in "uf":
            return given
        return self.common.encode([t.encode() if isinstance(t, str) else bytes(t) for t in given])


def form_of_source(
    config: ml_collections.ConfigDict, masks: Mapping[str, list[bool]]
) -> FormOfSource:
    """Of a checkpoint's config and its masks of one source."""
    form = sources.common_form(config.data)
    return FormOfSource(
        form,
        sources.observation_shapes(config.data, form, {}),
        np.asarray(masks["action"], bool),
        np.asarray(masks["state"], bool),
        Augmentation(**config.augmentation),
    )
