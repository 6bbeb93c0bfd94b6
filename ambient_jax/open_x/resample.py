"""Resamples an episode to another control rate: composes motions, keeps commands, picks steps."""

import dataclasses
from typing import Any

import numpy as np

from ambient_jax.open_x import rotations

# Grid points this near a step are that step, as rates such as 0.1 are not exact in float.
_SNAP = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """N output steps on ``length`` steps of the source that have an action.

    ``start`` and ``end`` [N] are in source steps, possibly fractional.
    """

    length: int
    start: np.ndarray
    end: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """Returns the source step that each output step observes, the latest one, [N] int64."""
        return np.floor(self.start).astype(np.int64)

    @property
    def commands(self) -> np.ndarray:
        """Returns the source step whose command applies when an output step ends, [N] int64."""
        return np.maximum(np.ceil(self.end).astype(np.int64) - 1, self.steps)

    @property
    def whole(self) -> bool:
        """Whether every output step is one whole step of the source."""
        return np.array_equal(self.start, self.steps) and np.array_equal(self.end, self.start + 1)

    def owners(self, length: int) -> np.ndarray:
        """Returns the output step that contains each of ``length`` source steps; -1 before it."""
        return np.searchsorted(self.steps, np.arange(length), side="right") - 1


def grid(length: int, source_hz: float | None, hz: float | None, first: int = 0) -> Grid:
    """Returns output steps at ``hz`` (None: the source's rate) from source step ``first`` on.

    The last output step may be shorter than 1 / hz, so that no motion is lost.
    """
    ratio = source_hz / hz if hz and source_hz else 1.0
    count = max(int(np.ceil((length - first) / ratio - _SNAP)), 0)
    edges = first + np.arange(count + 1) * ratio
    edges = np.where(np.abs(edges - np.round(edges)) < _SNAP, np.round(edges), edges)
    edges = np.minimum(edges, length)
    return Grid(length, edges[:-1], edges[1:])


def sums(deltas: np.ndarray, where: Grid) -> np.ndarray:
    """Sums deltas [T, d] over each output step, [N, d]; part of a step counts by its share."""
    path = np.concatenate([np.zeros((1, deltas.shape[1])), np.cumsum(deltas, 0)])
    return _along(path, where.end) - _along(path, where.start)


def poses(
    xyz: np.ndarray, turns: np.ndarray, where: Grid, frame: str
) -> tuple[np.ndarray, np.ndarray]:
    """Composes displacements [T, 3] and rotations [T, 3, 3] to [N, 3], [N, 3, 3] by output steps.

    In the frame "tool" a motion is in the tool's frame at its start (x <- x + R t, R <- R dR); else
    it is in the fixed axes of the base (x <- x + t, R <- dR R).
    """
    tool = frame == "tool"
    attitude = np.empty((len(turns) + 1, 3, 3))
    attitude[0] = np.eye(3)
    for t, turn in enumerate(turns):
        attitude[t + 1] = attitude[t] @ turn if tool else turn @ attitude[t]
    before = _attitude_at(attitude, turns, where.start, tool)
    after = _attitude_at(attitude, turns, where.end, tool)
    back = np.swapaxes(before, -1, -2)
    if not tool:
        return sums(xyz, where), after @ back
    moved = sums((attitude[:-1] @ xyz[..., None])[..., 0], where)
    return (back @ moved[..., None])[..., 0], back @ after


def _attitude_at(attitude: np.ndarray, turns: np.ndarray, at: np.ndarray, tool: bool) -> np.ndarray:
    index = np.minimum(np.floor(at).astype(np.int64), len(turns))
    share = at - index
    out = attitude[index]
    part = share > 0
    if part.any():
        turned = rotations.power(turns[index[part]], share[part])
        out[part] = out[part] @ turned if tool else turned @ out[part]
    return out


def _along(path: np.ndarray, at: np.ndarray) -> np.ndarray:
    index = np.minimum(np.floor(at).astype(np.int64), len(path) - 2)
    share = (at - index)[:, None]
    # Not path + share * step, as a whole step must reach the next point exactly.
    return path[index] * (1 - share) + path[index + 1] * share


def flags(steps: dict[str, Any], where: Grid) -> dict[str, np.ndarray]:
    """Returns first, last, terminal, reward and discount of the output steps. An output step adds
    the rewards of its source steps and multiplies their discounts."""
    count = len(where.start)
    out = {
        "is_first": np.arange(count) == 0,
        "is_last": np.arange(count) == count - 1,
        "is_terminal": np.zeros(count, bool),
        "reward": np.zeros(count, np.float32),
        "discount": np.ones(count, np.float32),
    }
    join = {"is_terminal": np.logical_or, "reward": np.add, "discount": np.multiply}
    for name, operation in join.items():
        if name in steps:
            values = np.asarray(steps[name]).reshape(-1).astype(out[name].dtype)
            owner = where.owners(len(values))
            operation.at(out[name], owner[owner >= 0], values[owner >= 0])
    return out
