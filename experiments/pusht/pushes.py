"""The effects of pushes on the T, simulated once: (contact, length) -> motion.

Nothing moves on by itself in PushT, so the effect of a push, in the frame of the T, depends only on
the pusher's path. Planning with this catalogue needs no simulator.
"""

import dataclasses
import functools

import numpy as np

from experiments.pusht import env as pusht
from experiments.pusht.env import RADIUS

GAP = 10.0  # px, between pusher and T before a push
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 33, 39, 46, 54, 63, 74, 86, 100)
_STEP = 1.0  # px of the pusher in a simulated step


def contacts() -> tuple[np.ndarray, np.ndarray]:
    """Returns contact points [C, 2] on the outline and outward normals [C, 2], in the T's frame. No
    point is so near an inner corner that the pusher would touch both sides."""
    places = [((x, 0), (0, -1)) for x in (-50, -32, -15, 0, 15, 32, 50)]
    places += [((x, 120), (0, 1)) for x in (-8, 8)]
    for side in (-1, 1):
        places.append(((side * 60, 15), (side, 0)))
        places += [((side * x, 30), (0, 1)) for x in (37, 52)]
        places += [((side * 15, y), (side, 0)) for y in (50, 72, 92, 110)]
    points, normals = zip(*places, strict=True)
    return np.array(points, float), np.array(normals, float)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """P pushes, in the frame of the T before the push."""

    starts: np.ndarray  # [P, 2] start of the pusher's centre
    normals: np.ndarray  # [P, 2] outward normal of the pushed face, against the push
    lengths: np.ndarray  # [P] way of the pusher, including the gap
    motions: np.ndarray  # [P, 3] pose of the T after the push

    def after(self, block: np.ndarray) -> np.ndarray:
        """Returns poses [..., P, 3] after each push of a T at poses [..., 3]."""
        c, s = np.cos(block[..., 2, None]), np.sin(block[..., 2, None])
        x, y, angle = self.motions.T
        moved = (c * x - s * y, s * x + c * y, np.broadcast_to(angle, np.shape(c * angle)))
        return block[..., None, :] + np.stack(moved, -1)


@functools.lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """Simulates all pushes (a second)."""
    env = pusht.make()
    env.reset(seed=0)
    rows = []
    for point, normal in zip(*contacts(), strict=True):
        start = point + (RADIUS + GAP) * normal
        poses = _push(env, start, -normal, GAP + LENGTHS[-1])
        lengths = GAP + np.array(LENGTHS, float)
        for length, motion in zip(lengths, poses[lengths.astype(int)], strict=True):
            rows.append((start, normal, length, motion))
    return Catalogue(*(np.array(column) for column in zip(*rows, strict=True)))


def _push(env, start, direction, length):
    """Returns poses [L + 1, 3] after each pixel of a straight push of the T from the origin."""
    inner, origin = env.unwrapped, np.array([pusht.SIZE / 2, pusht.SIZE / 2, 0.0])
    pusht.place(env, origin, origin[:2] + start)
    inner.agent.velocity = tuple(_STEP / inner.dt * direction)
    poses = [np.zeros(3)]
    for _ in range(round(length / _STEP)):
        inner.space.step(inner.dt)
        poses.append(pusht.pose(env) - origin)
    return np.array(poses)
