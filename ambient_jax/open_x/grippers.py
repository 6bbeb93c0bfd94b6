"""Converts gripper commands of all conventions to 1 = open."""

import numpy as np

from ambient_jax.open_x.spec import Field

# Least size of a command; distance by which a gripper may leave [0, 1] (sensor noise).
_COMMAND, _GRIPPER_SLACK = 0.1, 0.05
_OPEN, _CLOSED = 0.95, 0.05


def to_open(where: str, field: Field, values: np.ndarray) -> np.ndarray:
    """Converts gripper commands [T, 1] by the operations of their field, to 0 closed and 1 open.

    Raises:
      ValueError: a command leaves the range of its convention.
    """
    x = values[:, 0]
    for name, *words in field.operations:
        if name == "clip":
            x = np.clip(x, 0, 1)
        elif name == "closed":
            closed, opened = float(words[0]), float(words[2])
            x = (x - closed) / (opened - closed)
        elif name == "relative":
            x = _follow(x)
        elif name == "binarise":
            x = _binarise(x)
        elif name == "as_is":
            return x[:, None]
    bad = (x < -_GRIPPER_SLACK) | (x > 1 + _GRIPPER_SLACK)
    if bad.any():
        step = int(np.argmax(bad))
        raise ValueError(
            f"{where}: gripper {field.key} is {values[step, 0]:g} at step {step}, which its "
            f"convention makes {x[step]:g}, expected 0 (closed) to 1 (open): leave the episode out "
            "or correct the convention"
        )
    return np.clip(x, 0, 1)[:, None]


def _follow(command: np.ndarray) -> np.ndarray:
    """Returns the state after commands to open (-1), close (+1) or hold (0); 1 = open."""
    moves = np.abs(command) > _COMMAND
    if not moves.any():
        return np.ones_like(command)
    state = (command < 0).astype(np.float64)
    latest = np.maximum.accumulate(np.where(moves, np.arange(len(command)), -1))
    before = 1 - state[np.argmax(moves)]  # the first command changes the state
    return np.where(latest >= 0, state[latest], before)


def _binarise(x: np.ndarray) -> np.ndarray:
    """Returns 1 above 0.95, 0 below 0.05, and between them the next such value, if there is one."""
    decided = (x > _OPEN) | (x < _CLOSED)
    steps = np.arange(len(x))
    following = np.minimum.accumulate(np.where(decided, steps, len(x))[::-1])[::-1]
    last = len(x) - 1
    state = np.where(decided, x > _OPEN, x)
    return np.where(following <= last, state[np.minimum(following, last)], x[last])
