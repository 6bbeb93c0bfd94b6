"""Metrics of planar pushing (section 5.2 of the method): success (see ``PlanarPushingEnv``) with
Wilson's interval, and errors and times with bootstraps over episodes.
"""

import dataclasses

import numpy as np

from ambient_jax.estimates import Estimate, mean, wilson
from experiments.planar_pushing.scene import DT


@dataclasses.dataclass(frozen=True)
class Summary:
    """The metrics of one policy."""

    success: Estimate  # rate of episodes
    position: Estimate  # mean distance [m] to the goal at the end of all episodes
    angle: Estimate  # the same angle [rad]
    seconds: Estimate  # mean time of the successful episodes; NaN if there is none


def summarise(success: np.ndarray, error: np.ndarray, lengths: np.ndarray) -> Summary:
    """Computes the metrics of success [N], error [N, 2] and lengths [N] in steps. Raises ValueError
    for wrong shapes or no episode."""
    success, error, lengths = np.asarray(success, bool), np.asarray(error), np.asarray(lengths)
    count = len(success)
    if not count or success.shape != lengths.shape or error.shape != (count, 2):
        raise ValueError(
            f"success, error and lengths have shapes {success.shape}, {error.shape} and "
            f"{lengths.shape}, expected [N], [N, 2] and [N], at least one episode"
        )
    return Summary(
        success=wilson(int(success.sum()), count),
        position=mean(error[:, 0]),
        angle=mean(error[:, 1]),
        seconds=mean(DT * lengths[success]),
    )
