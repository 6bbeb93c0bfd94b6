"""How smooth paths are, by finite differences of their positions."""

import numpy as np


def squared_derivative(path: np.ndarray, order: int, dt: float) -> float:
    """Returns the mean over time of ||d^order/dt^order||^2 of [T + 1, D]; NaN if T < order.

    ``dt`` is the time between positions. Raises ValueError for another shape, or an order below 1.
    """
    path = np.asarray(path, float)
    if path.ndim != 2 or order < 1:
        raise ValueError(
            f"got a path of shape {path.shape} and order {order}, expected [T + 1, D] and an "
            "order of at least 1"
        )
    if len(path) <= order:
        return float("nan")
    return float((np.diff(path, order, axis=0) ** 2).sum(-1).mean() / dt ** (2 * order))
