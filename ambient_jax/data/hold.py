"""What a robot does past the end of its episode when padding is "hold": it stands still.

A position, a joint angle or a gripper command stays as the last action has it. A displacement must
be zero: repeated, it would go on for ever. Sources of the common form say in their specs which is
which, others by ``config.data.delta``.
"""

from __future__ import annotations

from collections.abc import Iterable

import ml_collections
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


def untold(config: ml_collections.ConfigDict) -> str:
    """What is missing to hold actions past the end of an episode, in a line; "" if nothing is.

    A position is held by repeating it, a displacement is not: it would go on for ever.
    """
    plain = any(not source.get("open_x") for source in config.sources.values())
    if config.padding != "hold" or not plain or config.get("delta") is not None:
        return ""
    return (
        "config.data.padding is 'hold' and config.data.delta says not which dimensions of the "
        "action are displacements: set it to (), none, for positions, to their numbers, such as "
        "(0, 1, 2), or padding to 'mask'"
    )


def rest(delta: Iterable[int] | None, action_dim: int) -> np.ndarray:
    """The action [D] of sources read as they are at rest: 0 for displacements, NaN for others.

    Raises:
      ValueError: ``delta`` names dimensions that an action does not have.
    """
    delta, found = tuple(delta or ()), np.full(action_dim, np.nan, np.float32)
    for dim in delta:
        if not 0 <= dim < action_dim:
            raise ValueError(
                f"config.data.delta is {delta}, expected dimensions of the action, which "
                f"has {action_dim}: 0 to {action_dim - 1}"
            )
    found[list(delta)] = 0
    return found


def check(config: ml_collections.ConfigDict, common: bool) -> None:
    """Raises ValueError for a ``config.delta`` that cannot be; ``common``: sources have specs."""
    delta = config.get("delta")
    if delta is None:
        return
    if common:
        raise ValueError(
            f"config.data.delta is {delta} and all sources have open_x: expected None, as the "
            "actions of their specs say themselves what is a displacement"
        )
    whole = isinstance(delta, tuple | list) and all(type(dim) is int for dim in delta)
    if not whole or len(set(delta)) != len(delta) or any(dim < 0 for dim in delta):
        raise ValueError(
            f"config.data.delta is {delta!r}, expected the numbers of the action's dimensions that "
            "are displacements, each once, such as (0, 1, 2), or () if none is"
        )
