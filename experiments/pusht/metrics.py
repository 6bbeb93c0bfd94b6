"""Metrics of PushT: success with Wilson's interval; score, shake and time with bootstraps.

The score is the mean over episodes of the largest reward, min(coverage / 0.95, 1), which Diffusion
Policy reports (Chi et al. 2023, https://arxiv.org/abs/2303.04137).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ambient_jax.estimates import Estimate, mean, wilson
from experiments.pusht.env import DT, SUCCESS
from experiments.pusht.rollout import Rollouts


@dataclasses.dataclass(frozen=True)
class Summary:
    """The metrics of one policy."""

    success: Estimate  # rate of episodes
    score: Estimate  # in [0, 1]
    shake: Estimate  # px, see ``shake``
    seconds: Estimate  # mean time of the successful episodes; NaN if there is none


def summarise(rollouts: Rollouts) -> Summary:
    """Computes the metrics of at least one episode."""
    paths = [s[: n + 1, :2] for s, n in zip(rollouts.states, rollouts.lengths, strict=True)]
    success = np.asarray(rollouts.success, bool)
    return Summary(
        success=wilson(int(success.sum()), len(success)),
        score=mean(np.minimum(rollouts.coverage / SUCCESS, 1)),
        shake=shake(paths),
        seconds=mean(DT * rollouts.lengths[success]),
    )


def shake(paths: Sequence[np.ndarray]) -> Estimate:
    """Returns the root mean square [px] of the second differences of each pusher's path [T, 2], as
    a mean over the paths of at least three steps."""
    second = [np.diff(path, 2, axis=0) for path in paths if len(path) > 2]
    return mean([float(np.sqrt((d**2).sum(1).mean())) for d in second])
