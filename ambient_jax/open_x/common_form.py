"""The common form of sources of Open X-Embodiment, and its policies for problems of the data.

One pass before training (``OpenXSource.examine``) finds the problems. The config names a policy for
each kind of problem (``POLICIES``, the default first); nothing is dropped silently.
"""

import dataclasses
import functools
from collections.abc import Mapping

from ambient_jax import _checks
from ambient_jax.open_x import spec as spec_lib
from ambient_jax.open_x import standardize
from ambient_jax.transforms.steps import Images, Step, Text

POLICIES = {
    "version": ("raise", "keep"),  # the version differs from the registry's
    "rate": ("raise", "keep"),  # the control rate is unknown or cannot be changed
    "shard": ("raise", "skip"),  # a file is missing, truncated or corrupt
    # A field is missing or not finite, a gripper out of range, too few steps.
    "episode": ("raise", "skip"),
    "image": ("raise", "skip", "keep"),  # damaged, or not an image
    "camera": ("raise", "skip", "keep"),  # missing in all or some steps
    "instruction": ("raise", "skip", "keep"),  # missing, too long, or without an embedding
    "flag": ("raise", "skip", "keep"),  # a camera's flag contradicts its pictures
    "last_step": ("raise", "skip", "keep"),  # is_last in the middle of an episode
}
# Largest plausible values: Hz, bytes, numbers per step, threads, pixels.
_MOST = {"hz": 10_000, "instruction_bytes": 65_536, "action_width": 10_000, "state_width": 10_000}
_MOST |= {"workers": 1024, "side": 16_384}


@dataclasses.dataclass(frozen=True)
class CommonForm:
    """The form that all sources are converted to: the section ``config.data.open_x``."""

    hz: float | None = None  # control rate; None keeps that of each source
    rotation: str = "rpy"  # encoding in the action, see ``standardize.standardise``
    cameras: tuple[str, ...] = ()  # "primary", "secondary", "wrist" or some of them; () for none
    image_size: tuple[int, int] = (224, 224)  # (height, width) that images are resized to
    instruction_bytes: int = 0  # length of instructions as bytes; 0 for none
    embeddings: str = ""  # .npz file of instruction embeddings, in place of the bytes
    # Widths that actions and states are padded to with zeros; state_width 0 omits states.
    action_width: int = 7
    state_width: int = 8
    quality: tuple[str, ...] = ()  # labels in the batch; NaN where a source has none
    workers: int = 1  # threads that decode images, on each host; 0 for none
    # Policies by kind, see ``POLICIES``.
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
            limits = int(name == "action_width"), _MOST[name]
            _checks.number(f"config.data.open_x.{name}", getattr(self, name), *limits, whole=True)
        size = self.image_size
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise ValueError(
                f"config.data.open_x.image_size is {size!r}, expected (height, width) in pixels"
            )
        name = "a side of config.data.open_x.image_size"
        for side in size:
            _checks.number(name, side, 1, _MOST["side"], whole=True)

    def policy(self, kind: str) -> str:
        return self.on_problem.get(kind, POLICIES[kind][0])

    @functools.cached_property
    def text(self) -> Text | None:
        """Returns the encoder of instructions; None if there are none."""
        if not self.embeddings and not self.instruction_bytes:
            return None
        may_be_empty = self.policy("instruction") == "keep"
        return Text(self.instruction_bytes, self.embeddings, may_be_empty)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Returns the steps of the chain of transforms after normalisation and masks."""
        size = self.image_size[0], self.image_size[1]
        images = Images(tuple(self.cameras), size) if self.cameras else None
        return tuple(step for step in (images, self.text) if step)

    @property
    def widths(self) -> dict[str, int]:
        """Returns the width of each field."""
        state = {"observation/state": self.state_width} if self.state_width else {}
        return {"action": self.action_width} | state
