"""A scripted expert that sorts like a person: it varies, sometimes misses, and tries again.

It always takes the block nearest to the gripper. Its ``Style`` is drawn once per demonstration;
grasps, releases, pauses and misses are drawn during it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator

import numpy as np

from ambient_jax import _checks
from experiments import demos
from experiments.bin_sorting.env import BinSortingEnv, in_bin, order
from experiments.bin_sorting.scene import DT, LEFT, RED, RIGHT, Scene

RULES = ("correct", "opposite", "arbitrary")
# Yields a position [3] for each step; the expert looks at the world in between.
Motion = Generator[np.ndarray, None, None]


@dataclasses.dataclass(frozen=True)
class Style:
    """The style of one demonstration; lengths in metres."""

    speed: float  # mean speed [m/s] of long moves
    height: float  # height of the gripper's tips above the table on the way to a block
    carry: float  # the same on the way to a bin
    grasp: float  # standard deviation of where a block is grasped along x; half of that along y
    miss: float  # chance that a grasp is off by 3 to 4 cm
    curve: float  # how far long moves bend sideways
    tremor: float  # standard deviation of a slow disturbance of all commands
    pause: float  # chance to pause for 1 to 3 steps at the end of a move

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """Draws the style of a demonstration."""
        return cls(
            speed=rng.uniform(0.22, 0.34),
            height=rng.uniform(0.06, 0.10),
            carry=rng.uniform(0.09, 0.13),
            grasp=rng.uniform(0.002, 0.006),
            miss=rng.uniform(0.0, 0.15),
            curve=rng.uniform(-0.03, 0.03),
            tremor=rng.uniform(0.0, 0.0015),
            pause=rng.uniform(0.0, 0.12),
        )


def targets(rule: str, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Returns the bin of each block, [K]; raises ValueError for an unknown rule. ``correct`` has
    red left and blue right, ``opposite`` the reverse, ``arbitrary`` a coin toss."""
    _checks.one_of("rule", rule, RULES)
    correct = np.where(np.array(scene.colours) == RED, LEFT, RIGHT)
    if rule == "arbitrary":
        return rng.integers(0, 2, len(correct))
    return correct if rule == "correct" else LEFT + RIGHT - correct


class Expert:
    """Commands for one episode, ``command = expert(gripper, blocks)``, that bring blocks to bins.
    ``bins`` [K] are the targets of the blocks. The style is drawn if it is None."""

    def __init__(
        self, scene: Scene, bins: np.ndarray, rng: np.random.Generator, style: Style | None = None
    ):
        self._scene, self._bins, self._rng = scene, bins, rng
        self.style = style or Style.draw(rng)
        self._tremor = np.zeros(3)
        self._opening = scene.opening
        self._motion: Motion | None = None

    def __call__(self, gripper: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """Returns the action [4] for ``BinSortingEnv.gripper`` [4] and ``positions`` [K, 3]."""
        self._gripper, self._blocks = gripper, blocks
        if self._motion is None:
            self._at = gripper[:3].copy()
            self._motion = self._sort()
        command = next(self._motion)
        # A slow random walk around zero disturbs all commands.
        self._tremor = 0.8 * self._tremor + 0.6 * self._rng.normal(0, self.style.tremor, 3)
        return np.append(command + self._tremor, self._opening).astype(np.float32)

    def _sort(self) -> Motion:
        while True:
            if in_bin(self._scene, self._blocks).all():
                yield self._at
            else:
                yield from self._carry(order(self._scene, self._gripper, self._blocks)[0])

    def _carry(self, block: int) -> Motion:
        """Tries once to bring a block to its bin."""
        style, rng, scene = self.style, self._rng, self._scene
        self._opening = scene.opening
        offset = rng.normal(0, style.grasp, 2) * (1.0, 0.5)
        if rng.random() < style.miss:
            offset = np.array([rng.choice([-1, 1]) * rng.uniform(0.03, 0.04), 0.0])
        height = style.height + rng.normal(0, 0.005)
        yield from self._move(np.append(self._blocks[block, :2] + offset, height), style.curve)
        # Near the block, aim at its current place.
        low = scene.reach[2] + rng.uniform(0.002, 0.01)
        yield from self._move(np.append(self._blocks[block, :2] + offset, low), speed=0.6)
        self._opening = 0.0
        yield from itertools.repeat(self._at, 4)
        if self._gripper[3] < 1.4 * scene.block:  # nothing between the fingers
            self._opening = scene.opening
            yield from self._move(np.append(self._at[:2], height))
            return
        yield from self._move(np.append(self._at[:2], style.carry + rng.normal(0, 0.005)))
        if self._blocks[block, 2] < 2.5 * scene.block:  # lost
            return
        goal = np.append(self._release(block), self._at[2])
        yield from self._move(goal, style.curve)
        yield from self._move(goal - (0, 0, rng.uniform(0.0, 0.02)))
        self._opening = scene.opening
        yield from itertools.repeat(self._at, 3)

    def _release(self, block: int) -> np.ndarray:
        """Returns a free point [2] over the block's bin, the best of four."""
        scene = self._scene
        half = np.array(scene.bin_half) - 1.6 * scene.block
        centre = np.array([scene.bin_x * (-1 if self._bins[block] == LEFT else 1), 0.0])
        points = centre + self._rng.uniform(-1, 1, (4, 2)) * half
        obstacles = np.delete(self._blocks[:, :2], block, axis=0)
        room = np.linalg.norm(points[:, None] - obstacles[None], axis=-1).min(1, initial=np.inf)
        return points[np.argmax(room)]

    def _move(self, goal: np.ndarray, curve: float = 0.0, *, speed: float = 1.0) -> Motion:
        """Moves with minimum jerk, bent by ``curve`` [m], at ``speed`` times the style's speed."""
        start, rng = self._at, self._rng
        way = goal - start
        seconds = np.linalg.norm(way) / (speed * self.style.speed) * rng.uniform(0.85, 1.15)
        count = max(2, round(seconds / DT))
        flat = np.linalg.norm(way[:2])
        sideways = np.array([-way[1], way[0], 0.0]) / max(flat, 1e-9)
        bend = curve * min(1.0, flat / 0.2) * rng.uniform(0.3, 1.0)
        for s in np.arange(1, count + 1) / count:
            share = s**3 * (10 - 15 * s + 6 * s**2)
            self._at = start + share * way + bend * np.sin(np.pi * share) * sideways
            yield self._at
        if rng.random() < self.style.pause:
            yield from itertools.repeat(self._at, rng.integers(1, 4))


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """One episode of T steps."""

    states: np.ndarray  # [T, 4 + 7 K] before each action
    actions: np.ndarray  # [T, 4]
    placements: np.ndarray  # [K] place of each block at the end
    bins: np.ndarray  # [K] its right place
    images: np.ndarray | None = None  # [T, h, w, 3]


def demonstrate(env: BinSortingEnv, rule: str, seed: int) -> Demonstration:
    """Records the expert's episode of (scene, rule, seed); its placements show its success."""
    # Not the generator of the scene, as other rules use the same scene.
    _checks.one_of("rule", rule, RULES)
    rng = np.random.default_rng((seed, RULES.index(rule), 1))
    bins = targets(rule, env.scene, rng)
    expert = Expert(env.scene, bins, rng)
    act = lambda: expert(env.gripper(), env.positions())  # noqa: E731
    states, actions, images, _, info = demos.record(env, act, seed)
    return Demonstration(states, actions, info["placements"], bins, images)
