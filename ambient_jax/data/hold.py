"""What a robot does past the end of its episode when padding is "hold": it stands still.

A position, a joint angle or a gripper command stays as the last action has it. A displacement must
be zero: repeated, it would go on for ever. Each source says which is which (``Source.rest``).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def standing_still(action, rest, normalised=None):
    """What the robot does when it stands still after each action [L, D]: ``chunk.STILL``.

    Args:
      action: [L, D].
      rest: [D] what a displacement is at rest (0, or a rotation's identity); NaN where the action
        is a position or a command, which stays.
      normalised: [D] ``rest`` in the units of the action; by default they are the same.
    """
    return np.where(np.isnan(rest), action, rest if normalised is None else normalised)


def rest(delta: Iterable[int], action_dim: int) -> np.ndarray:
    """An action [D] at rest: 0 for the displacements ``delta``, NaN for others.

    Raises:
      ValueError: ``delta`` names dimensions that an action does not have.
    """
    delta, still = tuple(delta), np.full(action_dim, np.nan, np.float32)
    for dim in delta:
        if not 0 <= dim < action_dim:
            raise ValueError(
                f"config.data.delta is {delta}, expected dimensions of the action, which "
                f"has {action_dim}: 0 to {action_dim - 1}"
            )
    still[list(delta)] = 0
    return still
