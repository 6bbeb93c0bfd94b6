"""An expert that plans pushes in the physics it believes in, and observes after each of them.

It searches two pushes ahead in the catalogue of effects (``pushes``), executes the first, and plans
again. In style ``planner`` it moves along lines and arcs at constant speed, exactly as planned;
``human`` draws speed, detours, precision and pauses for each demonstration.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Generator

import numpy as np

from ambient_jax import _checks
from experiments import demos
from experiments.planar_pushing import pushes
from experiments.planar_pushing.env import PlanarPushingEnv, distance, rotation, to_world, wrap
from experiments.planar_pushing.scene import DT, Physics, Scene

STYLES = ("human", "planner")
_BEAM = 40  # first pushes that are searched further
_PUSH_COST = 0.006  # m of ``distance`` that one more push must gain
_WAY_COST = 0.02  # m of ``distance`` per metre of way to the start of a push
# Yields a position [2] for each step; the expert looks at the world in between.
Motion = Generator[np.ndarray, None, None]


@dataclasses.dataclass(frozen=True)
class Style:
    """The style of one demonstration; lengths in metres."""

    speed: float = 0.25  # mean speed [m/s] on the way to a push
    push: float = pushes.SPEED  # mean speed [m/s] of pushes
    radius: float = 0.115  # radius of the pusher's circle around the slider
    round: float = 0.0  # length over which corners of the way are rounded
    smooth: bool = False  # speeds up and slows down, rather than constant speed
    offset: float = 0.0  # standard deviation of where the slider is touched
    choice: float = 0.0  # scale of Gumbel noise on the costs of pushes
    tremor: float = 0.0  # standard deviation of a slow disturbance of all commands
    pause: float = 0.0  # chance to pause for 1 to 4 steps before a push

    @classmethod
    def draw(cls, style: str, rng: np.random.Generator) -> Style:
        """Draws the style of a demonstration; raises ValueError for an unknown one."""
        _checks.one_of("style", style, STYLES)
        if style == "planner":
            return cls()
        return cls(
            speed=rng.uniform(0.18, 0.28),
            push=rng.uniform(0.07, 0.11),
            radius=rng.uniform(0.115, 0.14),
            round=rng.uniform(0.02, 0.05),
            smooth=True,
            offset=rng.uniform(0.001, 0.003),
            choice=rng.uniform(0.0, 0.002),
            tremor=rng.uniform(0.0, 0.001),
            pause=rng.uniform(0.0, 0.3),
        )


class Expert:
    """Commands for one episode, ``command = expert(pusher, slider)``, planned with ``believes``."""

    def __init__(self, scene: Scene, believes: Physics, style: Style, rng: np.random.Generator):
        self._scene, self.style, self._rng = scene, style, rng
        self._catalogue = pushes.catalogue(believes)
        self._tremor = np.zeros(2)
        self._normal: np.ndarray | None = None  # of the face last pushed, in the slider's frame
        self._motion: Motion | None = None

    def __call__(self, pusher: np.ndarray, slider: np.ndarray) -> np.ndarray:
        """Returns the action [2] for a pusher at [2] and a slider at [3]."""
        self._pusher, self._slider = pusher, slider
        if self._motion is None:
            self._at, self._motion = pusher.copy(), self._work()
        command = next(self._motion)
        # A slow random walk around zero disturbs all commands.
        self._tremor = 0.8 * self._tremor + 0.6 * self._rng.normal(0, 1, 2) * self.style.tremor
        return (command + self._tremor).astype(np.float32)

    def _work(self) -> Motion:
        while True:
            yield from self._one_push()

    def _one_push(self) -> Motion:
        """Chooses a push, goes there, and pushes."""
        chosen, style, catalogue = self._choose(), self.style, self._catalogue
        slider = self._slider.copy()
        normal = catalogue.normals[chosen]
        slip = self._rng.normal(0, style.offset) * normal[::-1]
        start = catalogue.starts[chosen] + slip
        way = to_world(slider, self._way(start, normal))
        yield from self._follow(way, style.speed)
        for _ in range(8):  # wait until it arrives
            if np.linalg.norm(self._pusher - self._at) < 0.004:
                break
            yield self._at
        if self._rng.random() < style.pause:
            yield from itertools.repeat(self._at, self._rng.integers(1, 5))
        direction = rotation(slider[2]) @ catalogue.directions[chosen]
        yield from self._push(direction, catalogue.lengths[chosen])
        self._normal = normal

    def _push(self, direction: np.ndarray, length: float) -> Motion:
        """Pushes along a direction [2] and waits for the slider to rest."""
        end = self._at + length * direction
        yield from self._follow(np.stack([self._at, end]), self.style.push)
        yield from itertools.repeat(self._at, pushes.SETTLE)

    def _choose(self) -> int:
        """Returns the push of least cost: the distance after it or a second push, and both ways.
        (With a free second way, a first push without effect would be best.)"""
        catalogue, scene = self._catalogue, self._scene
        poses = catalogue.after(self._slider)
        remaining = distance(poses, scene)
        pusher = (self._pusher - self._slider[:2]) @ rotation(self._slider[2])
        angles = np.arctan2(catalogue.starts[:, 1], catalogue.starts[:, 0])
        cost = self._way_cost(angles - math.atan2(pusher[1], pusher[0]))
        best = np.argsort(remaining + cost)[:_BEAM]
        second = distance(catalogue.after(poses[best]), scene) + _PUSH_COST
        second = (second + self._way_cost(angles - angles[best, None])).min(1)
        total = np.minimum(remaining[best], second) + cost[best]
        total = total + self._rng.gumbel(0, 1, len(best)) * self.style.choice
        return int(best[np.argmin(total)])

    def _way_cost(self, turn: np.ndarray) -> np.ndarray:
        """Returns the cost [...] of ways around the slider by these angles [rad]."""
        return _WAY_COST * self.style.radius * np.abs(wrap(turn))

    def _way(self, start: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Returns points [M, 2] from the pusher to ``start``, in the slider's frame. They lead away
        from the last pushed face, around the slider on a circle, and in along the normal."""
        radius = self.style.radius
        pusher = (self._at - self._slider[:2]) @ rotation(self._slider[2])
        if np.linalg.norm(pusher - start) < 0.03 and normal @ (pusher - start) > -0.012:
            if abs(normal[::-1] @ (pusher - start)) < 0.005:
                return np.stack([pusher, start])
        points = [pusher]
        if np.linalg.norm(pusher) < radius:
            out = pusher / np.linalg.norm(pusher) if self._normal is None else self._normal
            points.append(_leave(pusher, out, radius))
        entry = _leave(start, normal, radius)
        first = math.atan2(points[-1][1], points[-1][0])
        turn = wrap(math.atan2(entry[1], entry[0]) - first)
        angles = first + turn * np.linspace(0, 1, 2 + int(abs(turn) / 0.1))
        points += [radius * np.array([math.cos(a), math.sin(a)]) for a in angles]
        return np.array([*points, start])

    def _follow(self, way: np.ndarray, speed: float) -> Motion:
        """Moves along points [M, 2] of the world with the style's timing."""
        style = self.style
        steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        length = along[-1]
        if style.smooth:
            speed *= self._rng.uniform(0.85, 1.15)
        at = pushes.travel(length, speed)
        if style.smooth:
            # Speeds up and slows down in a third of the time each.
            s = at / max(length, 1e-9)
            at = length * (0.5 * s + 0.5 * s * s * (3 - 2 * s))
        # Corners: the mean of the way over a window that shrinks towards its ends.
        window = np.minimum(style.round / 2, np.minimum(at, length - at))
        nodes = at[:, None] + window[:, None] * np.linspace(-1, 1, 5)
        x, y = (np.interp(nodes, along, way[:, i]).mean(1) for i in (0, 1))
        for self._at in np.stack([x, y], 1):
            yield self._at


def _leave(point: np.ndarray, direction: np.ndarray, radius: float) -> np.ndarray:
    """Returns where a ray from a point leaves the circle; the point if it is outside."""
    b = point @ direction
    inside = b * b - point @ point + radius**2
    return point + max(0.0, -b + math.sqrt(max(inside, 0.0))) * direction


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """One episode of T steps."""

    states: np.ndarray  # [T, 12] before each action
    actions: np.ndarray  # [T, 2]
    success: bool  # the slider came to rest at its goal in time
    error: np.ndarray  # [2] distance [m] and angle [rad] to the goal at the end
    images: np.ndarray | None = None  # [T, h, w, 3]


def demonstrate(
    env: PlanarPushingEnv, style: str, seed: int, believes: Physics | None = None
) -> Demonstration:
    """Records the expert's episode; it believes in the physics of ``env`` by default."""
    rng = np.random.default_rng((seed, 1))  # not the generator of the scene
    chosen = Style.draw(style, rng)
    expert = Expert(env.scene, believes or env.physics, chosen, rng)
    return record(env, lambda: expert(env.pusher(), env.slider()), seed)


def replay(env: PlanarPushingEnv, seed: int, actions: np.ndarray) -> Demonstration:
    """Records the episode of a seed under actions [T, 2]; the last one is held for 2 s more."""
    commands = iter((*actions, *[actions[-1]] * round(2 / DT)))
    return record(env, lambda: next(commands, None), seed)


def record(env: PlanarPushingEnv, act: Callable[[], np.ndarray | None], seed: int) -> Demonstration:
    """Records the episode of a seed under ``act()``, see ``demos.record``."""
    states, actions, images, success, info = demos.record(env, act, seed)
    return Demonstration(states, actions, success, info["error"], images)
