"""Bounds from labels that data carry (success, intervention, ...), without a classifier."""

from __future__ import annotations

import math

import numpy as np

from ambient_jax import admission


def sigma_min(
    label, *, threshold: float, at_least: float, below: float, unlabelled: float
) -> np.ndarray:
    """sigma_min of steps with a label [N]; a label that is NaN is none.

    Args:
      label: [N] numbers, such as 1 for a step of an episode that succeeded and 0 for one that did
        not.
      threshold: of the label.
      at_least: sigma_min of steps whose label is the threshold or more; 0 trains every noise level.
      below: of steps whose label is below it; 1 trains none.
      unlabelled: of steps without label.

    Returns:
      [N] float64.

    Raises:
      ValueError: a threshold that is not finite, bounds outside of [0, 1], labels that are not [N].
    """
    label = np.asarray(label, float)
    if label.ndim != 1 or not math.isfinite(threshold):
        raise ValueError(
            f"label has shape {label.shape} and the threshold is {threshold}, expected [N] and a "
            "finite number"
        )
    for name, low in (("at_least", at_least), ("below", below), ("unlabelled", unlabelled)):
        admission.check_bounds(low, None, [name])
    with np.errstate(invalid="ignore"):
        found = np.where(label >= threshold, at_least, below)
    return np.where(np.isnan(label), unlabelled, found)
