"""Shifts of what a source reports about the slider; the pusher's own position stays right."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.planar_pushing.env import KEYPOINTS

PUSHER, SLIDER = 2, 10  # widths of the two observations that a state [12] is split into


@dataclasses.dataclass(frozen=True)
class Shift:
    """A shift of the slider's reported pose. It moves by a camera, then by noise, then in time.

    Attributes:
      offset, turn: where the camera was moved to, in metres and radian about the world's origin.
      bump: standard deviations of a further move [m, radian] of each episode's camera.
      scale: factor of the reported position.
      jitter: standard deviations of noise [m, radian] of each step.
      delay: steps by which the report is late.
    """

    offset: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    bump: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    jitter: tuple[float, float] = (0.0, 0.0)
    delay: int = 0

    @property
    def camera(self) -> bool:
        """Whether a camera stands elsewhere, for a whole episode."""
        return any((*self.offset, self.turn, *self.bump))

    def __call__(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the reported states of one episode [T, 12] (``PlanarPushingEnv``)."""
        states = np.asarray(states, np.float64)
        position, yaw = states[:, 2:4], np.arctan2(states[:, 5], states[:, 4])
        turn = self.turn + self.bump[1] * rng.standard_normal()
        offset = self.offset + self.bump[0] * rng.standard_normal(2)
        c, s = np.cos(turn), np.sin(turn)
        position = self.scale * position @ np.array([(c, s), (-s, c)]) + offset
        position = position + self.jitter[0] * rng.standard_normal(position.shape)
        yaw = yaw + turn + self.jitter[1] * rng.standard_normal(yaw.shape)
        late = np.maximum(np.arange(len(states)) - self.delay, 0)
        return reported(states[:, :2], position[late], yaw[late])


# A camera that was moved once, cameras that stand elsewhere in every episode, and so on.
KINDS = {
    "moved": Shift(offset=(0.03, -0.02), turn=0.15),
    "bumped": Shift(bump=(0.025, 0.15)),
    "jitter": Shift(jitter=(0.02, 0.2)),
    "scaled": Shift(scale=1.25),
    "late": Shift(delay=4),
}

ALIGNED = "_aligned"  # end of the name of a kind whose cameras were put back, see ``align``
NAMES = (*KINDS, *(name + ALIGNED for name, shift in KINDS.items() if shift.camera))


def reported(pusher: np.ndarray, position: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Returns states [T, 12] of the pusher [T, 2] and of the slider's position [T, 2] and yaw [T],
    with the slider's points relative to the pusher."""
    c, s = np.cos(yaw), np.sin(yaw)
    turned = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)  # [T, 2, 2]
    points = position[:, None] + KEYPOINTS @ turned - pusher[:, None]
    columns = pusher, position, c[:, None], s[:, None], points.reshape(len(yaw), -1)
    return np.concatenate(columns, -1).astype(np.float32)


def split(states):
    """Splits states [..., 12] into the observations "pusher" [..., 2] and "slider" [..., 10]."""
    return {"pusher": states[..., :PUSHER], "slider": states[..., PUSHER:]}
