"""What spoils demonstrations while they are recorded, one function for each kind.

Actions are the positions that joints are told to take; joint d gets there ``leads[d]`` frames
later. All functions are exact functions of their arguments and of the random numbers given.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Motion(NamedTuple):
    """One episode of T frames: states [T, D] and actions [T, D] of the same D joints."""

    state: np.ndarray
    action: np.ndarray


@dataclasses.dataclass(frozen=True)
class Strengths:
    """How much each kind spoils; times are in frames, amplitudes in units of the data."""

    share: float = 0.3  # of frames that are lost, or repeated
    burst: float = 6.0  # mean number of frames that are lost or repeated in a row
    late: int = 9  # frames that actions are recorded too late by
    tremor: float = 0.02  # amplitude
    band: tuple[float, float] = (4.0, 8.0)  # frequencies of the tremor, Hz
    margin: float = 0.25  # of a joint's range in the episode that is cut off at either end
    slowness: float = 2.0
    undone: float = 0.3  # frames that are played backwards, as a share of the episode


def leads_of(motions: Sequence[Motion], most: int = 30) -> np.ndarray:
    """Returns by how many frames each joint follows its action, [D] from 0 to ``most``.

    That is the delay after which states are closest to actions, up to a constant in each episode.
    """
    errors = []
    for lead in range(most + 1):
        gaps = [m.state[lead:] - m.action[: len(m.action) - lead] for m in motions]
        gaps = [gap - gap.mean(0) for gap in gaps if len(gap)]
        errors.append(np.mean(np.concatenate(gaps) ** 2, 0))
    return np.argmin(errors, 0)


def bursts(rng: np.random.Generator, count: int, share: float, length: float) -> np.ndarray:
    """Returns which of ``count`` frames are hit, [count] bool, neither the first nor the last.

    Bursts of ``length`` frames on average hit a ``share`` of the frames.
    """
    hit, at = np.zeros(count, bool), 0
    while at < count:
        at += rng.geometric(min(1.0, share / (length * (1 - share))))
        burst = rng.geometric(1 / length)
        hit[at : at + burst] = True
        at += burst
    hit[[0, -1]] = False
    return hit


def dropped(motion: Motion, hit: np.ndarray) -> Motion:
    """Returns the motion without the frames that are ``hit`` [T]."""
    return Motion(*(values[~hit] for values in motion))


def repeated(motion: Motion, hit: np.ndarray) -> Motion:
    """Returns the motion with the last good frame in place of each frame that is ``hit`` [T]."""
    last = np.maximum.accumulate(np.where(hit, 0, np.arange(len(hit))))
    return Motion(*(values[last] for values in motion))


def late(motion: Motion, frames: int) -> Motion:
    """Returns the motion whose actions come so many frames later; the first one comes before."""
    at = np.maximum(np.arange(len(motion.action)) - frames, 0)
    return Motion(motion.state, motion.action[at])


def tremor(
    motion: Motion,
    frequency: np.ndarray,
    phase: np.ndarray,
    *,
    amplitude: float,
    hz: float,
    leads: np.ndarray,
) -> Motion:
    """Returns the motion with a sine on each joint, whose states have it ``leads`` [D] later.

    ``frequency`` [D] is in Hz, ``phase`` [D] in rad.
    """
    time = np.arange(len(motion.action))[:, None] / hz
    wave = lambda t: amplitude * np.sin(2 * np.pi * frequency * t + phase)  # noqa: E731
    return Motion(motion.state + wave(time - leads / hz), motion.action + wave(time))


def clipped(motion: Motion, margin: float) -> Motion:
    """Returns the motion within limits of each joint, which cut ``margin`` off both ends of the
    range of its actions."""
    low, high = motion.action.min(0), motion.action.max(0)
    cut = margin * (high - low)
    return Motion(*(np.clip(values, low + cut, high - cut) for values in motion))


def retimed(motion: Motion, path: np.ndarray, leads: np.ndarray) -> Motion:
    """Returns the motion whose states at frame k are those of time ``path[k]``, in frames.

    Times may lie between frames. Actions are those that lead there: of joint d at frame k that of
    ``path[k + leads[d]] - leads[d]``, where the path goes on as it ends.
    """
    count = len(path)
    slope = path[-1] - path[-2]
    longer = np.concatenate([path, path[-1] + slope * np.arange(1, leads.max() + 1)])
    ahead = np.stack([longer[lead : lead + count] - lead for lead in leads], -1)
    here = np.repeat(path[:, None], len(leads), axis=1)
    return Motion(_at(motion.state, here), _at(motion.action, ahead))


def _at(values, time):
    """Columns [T, D] at times [N, D], by linear interpolation; the first or last row outside."""
    frames = np.arange(len(values))
    columns = zip(time.T, values.T, strict=True)
    return np.stack([np.interp(at, frames, column) for at, column in columns], -1)


def slow(motion: Motion, slowness: float, leads: np.ndarray) -> Motion:
    """Returns the same way in ``slowness`` times the time; joints follow by ``leads`` as before."""
    last = len(motion.action) - 1
    return retimed(motion, np.arange(int(last * slowness) + 1) / slowness, leads)


def undone(motion: Motion, turn: int, frames: int, leads: np.ndarray) -> Motion:
    """Returns the motion that at frame ``turn`` goes back the same way for some frames, and then
    does it again."""
    back = np.arange(turn - 1, turn - frames - 1, -1)
    again = np.arange(turn - frames + 1, len(motion.action))
    path = np.concatenate([np.arange(turn + 1), back, again]).astype(float)
    return retimed(motion, path, leads)


def _bursts(motion, rng, strengths):
    return bursts(rng, len(motion.action), strengths.share, strengths.burst)


def _tremor(motion, rng, strengths, hz, leads):
    dims = motion.action.shape[1]
    waves = rng.uniform(*strengths.band, dims), rng.uniform(0, 2 * np.pi, dims)
    return tremor(motion, *waves, amplitude=strengths.tremor, hz=hz, leads=leads)


def _undone(motion, rng, strengths, hz, leads):
    count = len(motion.action)
    frames = max(1, int(strengths.undone * count))
    return undone(motion, int(rng.integers(frames, count - 1)), frames, leads)


# name -> f(motion, rng, strengths, hz, leads)
KINDS: dict[str, Callable[..., Motion]] = {
    "dropped": lambda m, rng, s, hz, leads: dropped(m, _bursts(m, rng, s)),
    "repeated": lambda m, rng, s, hz, leads: repeated(m, _bursts(m, rng, s)),
    "late": lambda m, rng, s, hz, leads: late(m, s.late),
    "tremor": _tremor,
    "clipped": lambda m, rng, s, hz, leads: clipped(m, s.margin),
    "slow": lambda m, rng, s, hz, leads: slow(m, s.slowness, leads),
    "undone": _undone,
}
# What each kind is, for tables.
WORDS = {
    "dropped": "dropped frames",
    "repeated": "repeated frames",
    "late": "late actions",
    "tremor": "tremor",
    "clipped": "clipped joints",
    "slow": "half speed",
    "undone": "wrong task (undone)",
}
