"""An expert that plans pushes with the catalogue of their effects, and looks after each of them.

It chooses the push after which the T is nearest to its goal, goes around the T to its start at a
distance that forgives errors of those who learn from it, pushes, and plans again.
A hand is steady (clean demonstrations) or shaky (corrupt ones): see ``Hand``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Generator
from typing import Any

import numpy as np
import shapely

from experiments.pusht import env as pusht
from experiments.pusht import pushes
from experiments.pusht.env import CENTRE, GOAL, OUTLINE, RADIUS

_TURN = 60.0  # px per radian in ``distance``: both cost the same coverage
_WAY_COST = 0.03  # px of ``distance`` per px of way to the start of a push
_FAR = 100.0  # px of ``distance``; nearer to the goal, ways cost less
_CLEARANCE = 28.0  # px between pusher and T on the way
_EDGE = 4.0  # px, least distance of a push's start to the edge of the world
# Yields the pusher's target [2] for each step; the expert looks at the world in between.
Motion = Generator[np.ndarray, None, None]


@dataclasses.dataclass(frozen=True)
class Hand:
    """How the pusher is moved.

    ``tremor`` is the standard deviation [px] of the disturbance of the targets, an autoregressive
    process of order one with the coefficient ``memory``.
    """

    tremor: float = 0.0
    memory: float = 0.5
    speed: float = 180.0  # px/s, highest on the way to a push
    push: float = 80.0  # px/s, mean of a push


def distance(poses: np.ndarray) -> np.ndarray:
    """Returns the distance [...] of poses [..., 3] from the goal, in px; turning included."""
    c, s = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    x = poses[..., 0] + c * CENTRE[0] - s * CENTRE[1]
    y = poses[..., 1] + s * CENTRE[0] + c * CENTRE[1]
    goal = pusht.to_world(GOAL, CENTRE)
    turn = np.abs(pusht.wrap(poses[..., 2] - GOAL[2]))
    return np.hypot(x - goal[0], y - goal[1]) + _TURN * turn


class Expert:
    """Targets for one episode: ``target = expert(pusher, block)``."""

    def __init__(self, hand: Hand, rng: np.random.Generator):
        self._hand, self._rng = hand, rng
        self._catalogue = pushes.catalogue()
        self._tremor = np.zeros(2)
        self._normal: np.ndarray | None = None  # of the face last pushed, in the frame of the T
        self._motion: Motion | None = None

    def __call__(self, pusher: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Returns the action [2] for a pusher at [2] and a T at [3]."""
        self._pusher, self._block = pusher, block
        if self._motion is None:
            self._motion = self._work()
        target = next(self._motion)
        memory = self._hand.memory
        noise = self._rng.normal(0, self._hand.tremor, 2) if self._hand.tremor else 0.0
        self._tremor = memory * self._tremor + math.sqrt(1 - memory**2) * noise
        return np.clip(target + self._tremor, 0, pusht.SIZE).astype(np.float32)

    def _work(self) -> Motion:
        while True:
            chosen, block = self._choose(), self._block.copy()
            catalogue = self._catalogue
            normal = catalogue.normals[chosen]
            way = pusht.to_world(block, self._way(catalogue.starts[chosen], normal))
            yield from self._move(way, self._hand.speed)
            yield from self._arrive(way[-1], 1.0)
            begin = self._pusher.copy()
            push = pusht.rotation(block[2]) @ -normal
            end = way[-1] + catalogue.lengths[chosen] * push
            yield from self._move(np.stack([begin, end]), self._hand.push)
            yield from self._arrive(end, 0.5)
            self._normal = normal

    def _choose(self) -> int:
        """Returns the push of least cost: the distance after it, and the way to it."""
        catalogue = self._catalogue
        starts = pusht.to_world(self._block, catalogue.starts)
        outside = ((starts < _EDGE) | (starts > pusht.SIZE - _EDGE)).any(1)
        pusher = pusht.to_block(self._block, self._pusher)
        near = int(np.argmin(np.linalg.norm(_ring() - pusher, axis=1)))
        care = min(1.0, float(distance(self._block)) / _FAR)
        cost = distance(catalogue.after(self._block)) + care * _WAY_COST * _ways()[near]
        return int(np.argmin(cost + np.where(outside, 1e4, 0.0)))

    def _way(self, start: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Returns points [M, 2] from the pusher to ``start`` around the T, in its frame."""
        pusher = pusht.to_block(self._block, self._pusher)
        if _free(pusher, start):
            return np.stack([pusher, start])
        outs = [pusher]
        if self._normal is not None and shapely.contains_xy(_hull(_CLEARANCE), *pusher):
            outs.append(_leave(pusher, self._normal))
        entry = _leave(start, normal)
        ring = _ring()
        first, last = (int(np.argmin(np.linalg.norm(ring - p, axis=1))) for p in (outs[-1], entry))
        forward = (last - first) % len(ring)
        step = 1 if 2 * forward <= len(ring) else -1
        count = min(forward, len(ring) - forward)
        arc = ring[(first + step * np.arange(count + 1)) % len(ring)]
        return np.array([*outs[:-1], *_pulled(np.array([outs[-1], *arc, entry])), start])

    def _move(self, way: np.ndarray, speed: float) -> Motion:
        """Moves along points [M, 2] of the world; speeds up and slows down."""
        way = np.clip(way, 0, pusht.SIZE)
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
        length = along[-1]
        steps = max(1, math.ceil(length / (speed * pusht.DT) + 1.0))
        s = np.arange(1, steps + 1) / steps
        at = length * (0.6 * s + 0.4 * s * s * (3 - 2 * s))
        # Corners are rounded: the mean of the way over a window that shrinks towards its ends.
        window = np.minimum(12.0, np.minimum(at, length - at))
        nodes = at[:, None] + window[:, None] * np.linspace(-1, 1, 5)
        x, y = (np.interp(nodes, along, way[:, i]).mean(1) for i in (0, 1))
        yield from np.stack([x, y], 1)

    def _arrive(self, place: np.ndarray, near: float) -> Motion:
        """Waits until the pusher is within ``near`` px of its target, at most 6 steps."""
        for _ in range(6):
            if np.linalg.norm(self._pusher - place) < near:
                return
            yield place


@functools.cache
def _hull(clearance: float) -> shapely.Polygon:
    """Returns where the pusher's centre is nearer than ``clearance`` to the T's convex hull."""
    return shapely.Polygon(OUTLINE).convex_hull.buffer(RADIUS + clearance)


@functools.cache
def _ring() -> np.ndarray:
    """Returns points [M, 2] around the T on which the pusher passes it, some 4 px apart."""
    line = _hull(_CLEARANCE + 2).exterior
    count = int(line.length / 4)
    points = [line.interpolate(i / count, normalized=True) for i in range(count)]
    return np.array([(p.x, p.y) for p in points])


@functools.cache
def _ways() -> np.ndarray:
    """Returns lengths [M, P] of ways around the T, from each point of the ring to each push."""
    catalogue, ring = pushes.catalogue(), _ring()
    entries = [_leave(s, n) for s, n in zip(catalogue.starts, catalogue.normals, strict=True)]
    at = np.argmin(np.linalg.norm(ring - np.array(entries)[:, None], axis=2), 1)
    steps = np.abs(at - np.arange(len(ring))[:, None])
    return 4.0 * np.minimum(steps, len(ring) - steps)


def _leave(point: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Returns where a ray from a point leaves ``_hull``; the point if it is outside."""
    for reach in itertools.count(0, 2.0):
        out = point + reach * direction
        if not shapely.contains_xy(_hull(_CLEARANCE), *out):
            return out
    raise AssertionError


def _free(begin: np.ndarray, end: np.ndarray) -> bool:
    """Whether the pusher can go straight without touching the T."""
    return not shapely.LineString([begin, end]).intersects(_near())


@functools.cache
def _near() -> shapely.Polygon:
    near = shapely.Polygon(OUTLINE).buffer(RADIUS + pushes.GAP - 1.5)
    shapely.prepare(near)
    return near


def _pulled(points: np.ndarray) -> np.ndarray:
    """Returns a part of the points [M, 2] whose straight lines do not come near the T."""
    kept, first = [points[0]], 0
    around = _hull(_CLEARANCE - 1)
    while first < len(points) - 1:
        last = len(points) - 1
        while last > first + 1 and shapely.LineString(points[[first, last]]).crosses(around):
            last -= 1
        kept.append(points[last])
        first = last
    return np.array(kept)


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """One episode of T steps."""

    states: np.ndarray  # [T, 5] before each action
    actions: np.ndarray  # [T, 2]
    coverage: float  # at the end
    images: np.ndarray | None = None  # [T, 96, 96, 3]


def demonstrate(
    env: Any, hand: Hand, seed: int, *, content: float = pusht.SUCCESS, images: bool = False
) -> Demonstration | None:
    """Records the expert's episode of a seed; None if it is not done within the time limit.

    It is done when the coverage is above ``content``, where this hand leaves it.
    """
    env.reset(seed=seed)
    expert = Expert(hand, np.random.default_rng((seed, 1)))  # not the generator of the start
    states, actions, pictures = [], [], []
    for _ in range(env.spec.max_episode_steps):
        states.append(pusht.state(env))
        if images:
            pictures.append(pusht.image(env))
        actions.append(expert(pusht.pusher(env), pusht.pose(env)))
        reached = pusht.advance(env, actions[-1])
        if reached > content:
            shown = np.stack(pictures) if images else None
            return Demonstration(np.stack(states), np.stack(actions), reached, shown)
    return None
