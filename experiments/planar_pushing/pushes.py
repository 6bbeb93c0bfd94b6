"""Tabulates effects of pushes on the slider in given physics: (contact, tilt, length) -> motion.

The effect of a push in the slider's frame does not depend on its pose, so each push is simulated
once, and planning needs no simulator.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np

from experiments.planar_pushing import env as env_lib
from experiments.planar_pushing import scene as scenes

GAP = 0.006  # m, between pusher and slider before a push
SPEED = 0.1  # m/s of pushes
SETTLE = 4  # control steps that a pusher waits at the end of a push
LENGTHS = (0.004, 0.008, 0.012, 0.018, 0.025, 0.035, 0.05, 0.065, 0.085, 0.11, 0.14)
TILTS = (-math.radians(15), 0.0, math.radians(15))


def contacts() -> tuple[np.ndarray, np.ndarray]:
    """Returns contact points [C, 2] on the T's outline and outward normals, in its frame. No point
    is so near an inner corner that the pusher would touch both sides."""
    u, outline = scenes.UNIT, []
    for x in (-1.7, -0.85, 0.0, 0.85, 1.7):
        outline.append(((x * u, scenes.TOP), (0, 1)))
    for side in (-1, 1):
        outline.append(((side * scenes.BAR_HALF[0], scenes.BAR), (side, 0)))
        outline += [((side * x * u, scenes.WAIST), (0, -1)) for x in (1.25, 1.75)]
        outline += [((side * scenes.STEM_HALF[0], y * u), (side, 0)) for y in (-0.65, -1.5, -2.3)]
    outline += [((x * u, scenes.TAIL), (0, -1)) for x in (-0.25, 0.25)]
    points, normals = zip(*outline, strict=True)
    return np.array(points), np.array(normals, float)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """P pushes, in the slider's frame before the push."""

    starts: np.ndarray  # [P, 2] start of the pusher's centre
    normals: np.ndarray  # [P, 2] outward normal of the pushed face
    directions: np.ndarray  # [P, 2] direction of the push
    lengths: np.ndarray  # [P] motion of the pusher's target, including the gap to the slider
    motions: np.ndarray  # [P, 3] x, y and yaw of the slider after the push

    def after(self, slider: np.ndarray) -> np.ndarray:
        """Returns poses [..., P, 3] after each push of sliders at [..., 3]."""
        c, s = np.cos(slider[..., 2, None]), np.sin(slider[..., 2, None])
        x, y, yaw = self.motions.T
        moved = (c * x - s * y, s * x + c * y, np.broadcast_to(yaw, np.shape(c * yaw)))
        return slider[..., None, :] + np.stack(moved, -1)


@functools.lru_cache(maxsize=4)
def catalogue(physics: scenes.Physics) -> Catalogue:
    """Simulates all pushes in these physics (half a second)."""
    env = env_lib.PlanarPushingEnv(scenes.Scene(reach=10.0), physics)
    rows = []
    options = itertools.product(zip(*contacts(), strict=True), TILTS, LENGTHS)
    for (point, normal), tilt, length in options:
        start = point + (scenes.RADIUS + GAP) * normal
        direction = -env_lib.rotation(tilt) @ normal
        env.reset(seed=0, options={"slider": np.zeros(3), "pusher": start})
        for at in travel(length + GAP, SPEED):
            env.step(start + at * direction)
        for _ in range(SETTLE):
            env.step(start + (length + GAP) * direction)
        rows.append((start, normal, direction, length + GAP, env.slider()))
    return Catalogue(*(np.array(column) for column in zip(*rows, strict=True)))


def travel(length: float, speed: float) -> np.ndarray:
    """Returns distances [T] along a path at constant speed, one per control step."""
    steps = max(1, math.ceil(length / (speed * scenes.DT) - 1e-9))
    return length * np.arange(1, steps + 1) / steps
