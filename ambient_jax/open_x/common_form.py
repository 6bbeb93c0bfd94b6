"""The common form that sources of Open X-Embodiment are brought to, and its policies for problems.

Problems of the data are found in one pass, before training (``OpenXSource.examine``): each is of a
kind, and for each kind the configuration says what is done about it. Nothing is dropped silently.

================  ===============================================  ==================
kind              what                                             policies
================  ===============================================  ==================
``version``       another version than the registry describes      raise, keep
``rate``          the control rate is unknown or cannot be changed  raise, keep
``shard``         a file is missing, truncated or corrupt          raise, skip
``episode``       a field is missing or not finite, a gripper out   raise, skip
                  of range, too few steps
``image``         an image is damaged, or none that is decoded      raise, skip, keep
``camera``        a camera is not there, in all or some steps       raise, skip, keep
``instruction``   no instruction, or one too long; no embedding     raise, skip, keep
``flag``          a camera's flag says that it is not there and     raise, skip, keep
                  pictures are, or that it is and they are blank
``last_step``     ``is_last`` in the middle of an episode           raise, skip, keep
================  ===============================================  ==========="""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from ambient_jax import _checks
from ambient_jax.open_x import spec as spec_lib
from ambient_jax.open_x import standardize
from ambient_jax.transforms.steps import Images, Step, Text

POLICIES = {
    "version": ("raise", "keep"),
    "rate": ("raise", "keep"),
    "shard": ("raise", "skip"),
    "episode": ("raise", "skip"),
    "image": ("raise", "skip", "keep"),
    "camera": ("raise", "skip", "keep"),
    "instruction": ("raise", "skip", "keep"),
    "flag": ("raise", "skip", "keep"),
    "last_step": ("raise", "skip", "keep"),
}
# Above these a number is a slip of the hand: Hz, bytes, numbers of a step, processes, pixels.
_MOST = {"hz": 10_000, "instruction_bytes": 65_536, "action_width": 10_000, "state_width": 10_000}
_MOST |= {"workers": 1024, "side": 16_384}


@dataclasses.dataclass(frozen=True)
class CommonForm:
    """What all sources are brought to: the section ``config.data.open_x``.

    Attributes:
      hz: control rate; None keeps each source's own.
      rotation: of the action, see ``standardize.standardise``.
      cameras: of "primary", "secondary" and "wrist"; none for actions alone.
      image_size: (height, width) that images are resized to.
      instruction_bytes: L of the instructions as bytes, 0 for none.
      embeddings: .npz file of instruction embeddings, in place of the bytes.
      action_width, state_width: numbers that actions and states are padded to with zeros;
        state_width 0 leaves states out.
      quality: labels carried into the batch; NaN where a source has no such label.
      workers: threads that decode images, on each host; 0 for none.
      on_problem: policy by kind, see the module.
    """

    hz: float | None = None
    rotation: str = "rpy"
    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] = (224, 224)
    instruction_bytes: int = 0
    embeddings: str = ""
    action_width: int = 7
    state_width: int = 8
    quality: tuple[str, ...] = ()
    workers: int = 1
    on_problem: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for kind, policy in self.on_problem.items():
            _checks.one_of("field of config.data.open_x.on_problem", kind, POLICIES)
            _checks.one_of(f"config.data.open_x.on_problem.{kind}", policy, POLICIES[kind])
        for name in ("cameras", "quality"):
            _checks.names(f"config.data.open_x.{name}", getattr(self, name))
        for camera in self.cameras:
            _checks.one_of("config.data.open_x.cameras", camera, spec_lib.CAMERAS)
        _checks.one_of("config.data.open_x.rotation", self.rotation, standardize.OUTPUT_ROTATIONS)
        if self.hz is not None:
            _checks.number("config.data.open_x.hz", self.hz, 0, _MOST["hz"], above=True)
        for name in ("instruction_bytes", "action_width", "state_width", "workers"):
            least = 1 if name == "action_width" else 0
            limits = least, _MOST[name]
            _checks.number(f"config.data.open_x.{name}", getattr(self, name), *limits, whole=True)
        size = self.image_size
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise ValueError(
                f"config.data.open_x.image_size is {size!r}, expected (height, width) in pixels"
            )
        for side in size:
            limits = 1, _MOST["side"]
            _checks.number("a side of config.data.open_x.image_size", side, *limits, whole=True)

    def policy(self, kind: str) -> str:
        return self.on_problem.get(kind, POLICIES[kind][0])

    @functools.cached_property
    def text(self) -> Text | None:
        """How instructions become arrays; None where there are none."""
        if not self.embeddings and not self.instruction_bytes:
            return None
        may_be_empty = self.policy("instruction") == "keep"
        return Text(self.instruction_bytes, self.embeddings, may_be_empty)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Of the chain of transforms, after normalisation and masks."""
        size = self.image_size[0], self.image_size[1]
        images = Images(tuple(self.cameras), size) if self.cameras else None
        return tuple(step for step in (images, self.text) if step)

    @property
    def widths(self) -> dict[str, int]:
        """Numbers a step of each field."""
        state = {"observation/state": self.state_width} if self.state_width else {}
        return {"action": self.action_width} | state
