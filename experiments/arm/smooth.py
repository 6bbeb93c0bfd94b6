"""Optimised plans: the least squared acceleration at a distance from the scene, like KOMO's."""

import numpy as np

from experiments.arm.scene import JOINTS, Arm

WAYPOINTS = 32  # segments
MARGIN = 0.05  # m, the distance to the scene that the cost asks for
_ITERATIONS = 40
_TESTED = 3  # configurations of each segment
_WEIGHT = 1000.0  # of a distance that is missing, in units of the margin


def optimised(arm: Arm, waypoints: np.ndarray) -> np.ndarray:
    """Returns waypoints [WAYPOINTS + 1, 7] from a path [P, 7], whose ends it keeps.

    Gauss-Newton on the sum of squared second differences (the ends at rest) and of squared missing
    distances, of bodies nearer than ``MARGIN`` (Toussaint 2014, "Newton methods for k-order Markov
    constrained motion problems"). ``arm`` has that clearance. The result may collide: test it.
    """
    length = np.concatenate([[0], np.linalg.norm(np.diff(waypoints, axis=0), axis=1).cumsum()])
    even = np.linspace(0, length[-1], WAYPOINTS + 1)
    path = np.stack([np.interp(even, length, joint) for joint in waypoints.T], 1)
    inner = WAYPOINTS - 1
    # Second differences of [q0, q0, q1, ..., qn, qn]: linear in the inner waypoints.
    padded = np.zeros((WAYPOINTS + 3, WAYPOINTS + 1))
    padded[np.arange(WAYPOINTS + 3), np.clip(np.arange(-1, WAYPOINTS + 2), 0, WAYPOINTS)] = 1
    bend = np.diff(padded, 2, axis=0) * WAYPOINTS
    stiff = np.kron(bend.T @ bend, np.eye(JOINTS))
    low, high = arm.limits.T
    # Distances are also asked for between the waypoints: walls are thin.
    between = np.arange(1, WAYPOINTS * _TESTED) / _TESTED
    for _ in range(_ITERATIONS):
        gradient = (bend.T @ (bend @ path)).ravel()
        hessian = stiff + 1e-3 * np.eye(stiff.shape[0])
        for place in between:
            first, share = int(place), place % 1
            weight = np.array([1 - share, share]) if share else np.ones(1)
            at = slice(first * JOINTS, (first + len(weight)) * JOINTS)
            missing, jacobian = near(arm, weight @ path[first : first + len(weight)])
            if len(missing):
                jacobian = np.kron(weight, jacobian)
                gradient[at] += _WEIGHT / _TESTED * jacobian.T @ missing
                hessian[at, at] += _WEIGHT / _TESTED * jacobian.T @ jacobian
        gradient, hessian = gradient[JOINTS:-JOINTS], hessian[JOINTS:-JOINTS, JOINTS:-JOINTS]
        step = -np.linalg.solve(hessian, gradient).reshape(inner, JOINTS)
        step *= min(1.0, 0.15 / np.abs(step).max())
        path[1:-1] = np.clip(path[1:-1] + step, low, high)
        if np.abs(step).max() < 2e-3:
            break
    return path


def near(arm: Arm, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the missing distances [C] of the pairs nearer than ``MARGIN``, in its units and
    positive, and their Jacobian [C, 7]."""
    import mujoco

    model, data = arm.model, arm.data
    if not arm.collides(q):
        return np.zeros(0), np.zeros((0, JOINTS))
    mujoco.mj_comPos(model, data)
    missing = np.empty(data.ncon)
    jacobian = np.zeros((data.ncon, JOINTS))
    part = np.empty((3, JOINTS))
    for row in range(data.ncon):
        contact = data.contact[row]
        missing[row] = 1 - contact.dist / MARGIN
        normal = contact.frame[:3]  # from the first geom to the second
        for geom, sign in zip(contact.geom, (1, -1), strict=True):
            body = model.geom_bodyid[geom]
            mujoco.mj_jac(model, data, part, None, contact.pos, body)
            jacobian[row] += sign * normal @ part / MARGIN
    return missing, jacobian
