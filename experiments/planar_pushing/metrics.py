"""What is reported of planar pushing (section 5.2 of the method).

An episode is a success when the slider came to rest within ``Scene.position`` and ``Scene.angle``
of its goal before ``Scene.max_steps`` (``PlanarPushingEnv``). The rate's interval is Wilson's;
those of errors and times are percentile bootstraps over episodes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ambient_jax.estimates import Estimate, mean, wilson
from experiments.planar_pushing.scene import DT


@dataclasses.dataclass(frozen=True)
class Summary:
    """The metrics of one policy.

    Attributes:
      success: rate of episodes.
      position, angle: mean distance [m] and angle [rad] to the goal at the end of all episodes.
      seconds: mean time of the successful ones; NaN if there is none.
    """

    success: Estimate
    position: Estimate
    angle: Estimate
    seconds: Estimate


def summarise(success: np.ndarray, error: np.ndarray, lengths: np.ndarray) -> Summary:
    """The metrics of N episodes: success [N], error [N, 2] and lengths [N] in steps.

    Raises:
      ValueError: wrong shapes, or no episode.
    """
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
