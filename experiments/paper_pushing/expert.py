"""Experts of the paper's pushing: a planner, and a hand like a person's.

Both are the expert of planar pushing, which searches two pushes ahead in the effects of pushes
under the physics it believes in, and both take the pusher back once the slider is at its goal.

planner  smooth motions exactly as planned
person   pushes too far or too little and corrects, lets go and grasps again, hesitates, pauses;
         speed, detours and tremor differ by demonstration
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from ambient_jax import _checks
from experiments.paper_pushing.env import PaperPushingEnv
from experiments.planar_pushing import expert as experts
from experiments.planar_pushing import pushes
from experiments.planar_pushing.env import error, rotation, to_world
from experiments.planar_pushing.expert import Demonstration, Expert, Motion, Style

STYLES = ("planner", "person")
_INSIDE = 0.8  # share of the tolerance within which the slider is left


@dataclasses.dataclass(frozen=True)
class Hand(Style):
    """The style of one demonstration; lengths in metres."""

    overshoot: float = 0.0  # standard deviation of the relative error of a push's length
    regrasp: float = 0.0  # chance to push a long way in two, letting go between them
    hesitate: float = 0.0  # chance to stop for 1 to 3 steps on the way of a push
    untidy: float = 0.0  # standard deviation of where the pusher is left, along each axis

    @classmethod
    def draw(cls, style: str, rng: np.random.Generator) -> Hand:
        """Draws the style of a demonstration; raises ValueError for an unknown one."""
        _checks.one_of("style", style, STYLES)
        if style == "planner":
            return cls(smooth=True, round=0.04)
        return cls(
            speed=rng.uniform(0.16, 0.3),
            push=rng.uniform(0.06, 0.12),
            radius=rng.uniform(0.115, 0.145),
            round=rng.uniform(0.02, 0.05),
            smooth=True,
            offset=rng.uniform(0.001, 0.004),
            choice=rng.uniform(0.0, 0.003),
            tremor=rng.uniform(0.0, 0.001),
            pause=rng.uniform(0.1, 0.5),
            overshoot=rng.uniform(0.05, 0.2),
            regrasp=rng.uniform(0.1, 0.5),
            hesitate=rng.uniform(0.0, 0.3),
            untidy=0.004,
        )


class PaperExpert(Expert):
    """Commands for one episode, see ``Expert``; at the goal it takes the pusher back."""

    style: Hand

    def _work(self) -> Motion:
        while True:
            if self._placed():
                yield from self._go_back()
            else:
                yield from self._one_push()

    def _placed(self) -> bool:
        scene = self._scene
        off = error(self._slider, scene)
        return bool(off[0] < _INSIDE * scene.position and off[1] < _INSIDE * scene.angle)

    def _go_back(self) -> Motion:
        """Goes around the slider to the pusher's place, and waits there."""
        place = self._scene.home + self._rng.normal(0, 1, 2) * self.style.untidy
        inside = (place - self._slider[:2]) @ rotation(self._slider[2])
        way = self._way(inside, inside / np.linalg.norm(inside))
        yield from self._follow(to_world(self._slider.copy(), way), self.style.speed)
        yield from itertools.repeat(self._at, 10)

    def _push(self, direction: np.ndarray, length: float) -> Motion:
        """Pushes along a direction [2], in the style of the hand."""
        style, rng = self.style, self._rng
        if style.overshoot:
            length *= math.exp(rng.normal(0, style.overshoot))
        parts = [length]
        if length > 0.04 and rng.random() < style.regrasp:
            first = rng.uniform(0.4, 0.7) * length
            parts = [first, length - first]
        for i, part in enumerate(parts):
            if i:  # lets go, and comes back
                away = -rng.uniform(0.01, 0.03) * direction
                yield from self._straight(away, style.speed)
                yield from itertools.repeat(self._at, rng.integers(0, 4))
                yield from self._straight(-away, style.speed)
            if part > 0.02 and rng.random() < style.hesitate:
                yield from self._straight(0.5 * part * direction, style.push)
                yield from itertools.repeat(self._at, rng.integers(1, 4))
                part *= 0.5
            yield from self._straight(part * direction, style.push)
        yield from itertools.repeat(self._at, pushes.SETTLE)

    def _straight(self, step, speed):
        yield from self._follow(np.stack([self._at, self._at + step]), speed)


def demonstrate(env: PaperPushingEnv, style: str, seed: int) -> Demonstration:
    """Records the expert's episode; it knows the physics of ``env``."""
    rng = np.random.default_rng((seed, 1))  # not the generator of the scene
    hand = PaperExpert(env.scene, env.physics, Hand.draw(style, rng), rng)
    return experts.record(env, lambda: hand(env.pusher(), env.slider()), seed)
