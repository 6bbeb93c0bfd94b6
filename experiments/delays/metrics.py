"""Success, and squared jerk of what was executed: where a chunk begins, and inside chunks.

Jerk is the third difference of four actions in a row, which are positions, over 0.1 s: where a
chunk's first action is among the last three of them, it is that of a border.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ambient_jax.estimates import Estimate, mean, wilson
from experiments.delays.rollouts import Rollouts

DT = 0.1  # seconds per step, in both worlds


@dataclasses.dataclass(frozen=True)
class Summary:
    """A cell of the study; jerk in m^2/s^6, means over episodes."""

    success: Estimate
    border: Estimate  # squared jerk at borders of chunks
    inside: Estimate  # the same inside chunks
    seconds: float  # mean length of the successful episodes


def squared_jerk(rollouts: Rollouts) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean squared jerk of each episode at borders and inside chunks, [N] each; NaN
    where an episode has none."""
    actions = np.asarray(rollouts.actions, float)
    jerk = (np.diff(actions, 3, axis=1) ** 2).sum(-1) / DT**6
    count = jerk.shape[1]
    ended = np.arange(count) + 3 >= rollouts.lengths[:, None]
    arrived = rollouts.arrived.copy()
    arrived[:, 0] = False  # the first chunk continues none
    border = np.any([arrived[:, k : k + count] for k in (1, 2, 3)], axis=0)
    return tuple(_mean(jerk, where & ~ended) for where in (border, ~border))


def _mean(values, where):
    with np.errstate(invalid="ignore"):
        return np.where(where, values, 0).sum(1) / where.sum(1)


def summarise(rollouts: Rollouts) -> Summary:
    """Returns the metrics of a cell, of all its episodes."""
    border, inside = squared_jerk(rollouts)
    success = rollouts.success
    return Summary(
        success=wilson(int(success.sum()), len(success)),
        border=mean(border),
        inside=mean(inside),
        seconds=float(DT * rollouts.lengths[success].mean()) if success.any() else float("nan"),
    )
