"""Defects of recorded plans, one function for each kind.

An episode's actions are the positions that it goes to, 0.1 s apart: where nothing is wrong, an
action is the next state. All functions depend on their arguments alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ambient_jax import _checks
from experiments import checks


class Episode(NamedTuple):
    """One episode of T steps: states [T, 2], actions [T, 2] and the goal's label [2], in metres."""

    state: np.ndarray
    action: np.ndarray
    goal: np.ndarray

    @property
    def path(self) -> np.ndarray:
        """Returns the first state and all actions, [T + 1, 2]."""
        return np.concatenate([self.state[:1], self.action])


@dataclasses.dataclass(frozen=True)
class Strengths:
    """How much each kind spoils; lengths are in metres, times in steps."""

    tremor: float = 0.03  # standard deviation of each coordinate
    late: int = 4
    mirror: float = 2.5  # x of the mirror, the middle of the maze
    every: int = 2  # of so many frames one is left
    held: int = 2  # steps that each frame lasts
    low: float = 1.25  # of the workspace that is left
    high: float = 3.75
    offset: tuple[float, float] = (0.25, -0.25)
    undone: float = 0.3  # of the plan, that is undone and done again

    def __post_init__(self):
        positive = ("tremor", "late", "every", "held", "undone")
        checks.finite_numbers(self, positive)
        if self.undone >= 1 or self.low >= self.high:
            raise ValueError(
                f"undone is {self.undone} and the workspace {self.low} to {self.high}, expected "
                "undone below 1 and a low end below the high one"
            )


def strengths(section: Mapping[str, Any]) -> Strengths:
    """Returns the strengths of ``config.task.strengths``; ValueError for an unknown field or a
    value that cannot be."""
    names = [field.name for field in dataclasses.fields(Strengths)]
    for name in section:
        _checks.one_of("a field of config.task.strengths", name, names)
    try:
        return Strengths(**section)
    except ValueError as error:
        raise ValueError(f"config.task.strengths: {error}") from error


def from_path(path: np.ndarray, goal: np.ndarray) -> Episode:
    """Returns the episode of positions [T + 1, 2] under a goal's label [2]."""
    return Episode(path[:-1], path[1:], goal)


def tremor(episode: Episode, noise: np.ndarray) -> Episode:
    """Returns the episode whose positions after the first are off by ``noise`` [T, 2]."""
    path = episode.path
    return from_path(np.concatenate([path[:1], path[1:] + noise]), episode.goal)


def late(episode: Episode, steps: int) -> Episode:
    """Returns the episode whose actions come so many steps later; before them it stands still."""
    at = np.maximum(np.arange(1, len(episode.action) + 1) - steps, 0)
    return episode._replace(action=episode.path[at])


def backwards(episode: Episode) -> Episode:
    """Returns the episode played from its end to its start, under the same goal's label."""
    return from_path(episode.path[::-1], episode.goal)


def mirrored(episode: Episode, middle: float) -> Episode:
    """Returns the episode whose actions have x mirrored at ``middle``; states stay."""
    x, y = episode.action.T
    return episode._replace(action=np.stack([2 * middle - x, y], 1))


def dropped(episode: Episode, every: int) -> Episode:
    """Returns the episode with one of ``every`` positions, and the last: it is that much faster."""
    path = episode.path
    kept = np.unique([*range(0, len(path), every), len(path) - 1])
    return from_path(path[kept], episode.goal)


def repeated(episode: Episode, times: int) -> Episode:
    """Returns the episode in which each position after the first is held for ``times`` steps."""
    path = episode.path
    return from_path(np.concatenate([path[:1], np.repeat(path[1:], times, 0)]), episode.goal)


def wrong_goal(episode: Episode, goal: np.ndarray) -> Episode:
    """Returns the episode under another goal's label [2]."""
    return episode._replace(goal=goal)


def clipped(episode: Episode, low: float, high: float) -> Episode:
    """Returns the episode whose states and actions stop at a smaller workspace's edges."""
    state, action = (np.clip(values, low, high) for values in (episode.state, episode.action))
    return episode._replace(state=state, action=action)


def offset(episode: Episode, shift: np.ndarray) -> Episode:
    """Returns the episode whose states and actions are off by ``shift`` [2]; its goal is not."""
    return episode._replace(state=episode.state + shift, action=episode.action + shift)


def detour(episode: Episode, turn: int, steps: int) -> Episode:
    """Returns the episode that at position ``turn`` goes back for some steps, and then on again."""
    back = np.arange(turn - 1, turn - steps - 1, -1)
    at = np.concatenate([np.arange(turn + 1), back, np.arange(back[-1] + 1, len(episode.path))])
    return from_path(episode.path[at], episode.goal)


def _tremor(episode, rng, strengths, goal):
    return tremor(episode, rng.normal(0, strengths.tremor, episode.action.shape))


def _detour(episode, rng, strengths, goal):
    count = len(episode.action)
    steps = max(1, int(strengths.undone * count))
    return detour(episode, int(rng.integers(steps, count)), steps)


# name -> f(episode, rng, strengths, goal of another episode)
KINDS: dict[str, Callable[..., Episode]] = {
    "none": lambda e, rng, s, goal: e,
    "tremor": _tremor,
    "late": lambda e, rng, s, goal: late(e, s.late),
    "backwards": lambda e, rng, s, goal: backwards(e),
    "mirrored": lambda e, rng, s, goal: mirrored(e, s.mirror),
    "dropped": lambda e, rng, s, goal: dropped(e, s.every),
    "repeated": lambda e, rng, s, goal: repeated(e, s.held),
    "wrong_goal": lambda e, rng, s, goal: wrong_goal(e, goal),
    "clipped": lambda e, rng, s, goal: clipped(e, s.low, s.high),
    "offset": lambda e, rng, s, goal: offset(e, np.array(s.offset)),
    "detour": _detour,
}
# What each kind is, for tables.
WORDS = {
    "none": "no defect",
    "tremor": "tremor",
    "late": "late actions",
    "backwards": "played backwards",
    "mirrored": "mirrored actions",
    "dropped": "dropped frames (double speed)",
    "repeated": "repeated frames (half speed)",
    "wrong_goal": "goal of another plan",
    "clipped": "clipped workspace",
    "offset": "constant offset",
    "detour": "detour (undone, done again)",
}
