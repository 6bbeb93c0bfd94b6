"""The timing law of all plans: Drake's TOPP-RA, stretched to one duration and sampled evenly."""

import functools
from typing import Any

import numpy as np

STEPS = 32  # of a plan
DURATION = 4.0  # s
DT = DURATION / STEPS
# Of the Panda, https://frankaemika.github.io/docs/control_parameters.html
VELOCITY = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])  # rad/s
ACCELERATION = np.array([15, 7.5, 10, 12.5, 15, 20, 20.0])  # rad/s^2
_GRID = 64  # intervals of the path


@functools.cache
def _plant() -> Any:
    """Returns a plant of 7 joints: TOPP-RA needs one, though only the joints' limits count."""
    from pydrake.multibody.plant import MultibodyPlant
    from pydrake.multibody.tree import RevoluteJoint, SpatialInertia

    plant = MultibodyPlant(0.0)
    parent: Any = plant.world_body()
    for joint in range(len(VELOCITY)):
        body = plant.AddRigidBody(f"link{joint}", SpatialInertia.SolidSphereWithMass(1.0, 0.1))
        frames: Any = parent.body_frame(), body.body_frame(), [0, 0, 1]
        plant.AddJoint(RevoluteJoint(f"joint{joint}", *frames))
        parent = body
    plant.Finalize()
    return plant


def timed(waypoints: np.ndarray, *, smooth: bool) -> np.ndarray | None:
    """Returns configurations [STEPS + 1, 7], ``DT`` apart, along waypoints [P, 7]; None where
    TOPP-RA finds no timing or the fastest one takes longer than ``DURATION``.

    The path is a cubic spline through the waypoints (``smooth``) or straight between them; its
    fastest timing within the arm's limits of velocity and acceleration is stretched in time. Both
    ends are kept exactly and at rest.
    """
    from pydrake.multibody.optimization import Toppra
    from pydrake.trajectories import PiecewisePolynomial

    length = np.linalg.norm(np.diff(waypoints, axis=0), axis=1)
    keep = np.concatenate([[True], length > 1e-6])
    points, at = waypoints[keep], np.concatenate([[0.0], length[length > 1e-6].cumsum()])
    make: Any = PiecewisePolynomial.FirstOrderHold
    if smooth:
        make = PiecewisePolynomial.CubicWithContinuousSecondDerivatives
    path: Any = make(at, points.T)
    grid = np.linspace(0, at[-1], _GRID + 1)
    problem: Any = Toppra(path, _plant(), grid)
    problem.AddJointVelocityLimit(-VELOCITY, VELOCITY)
    problem.AddJointAccelerationLimit(-ACCELERATION, ACCELERATION)
    law = problem.SolvePathParameterization()
    if law is None or law.end_time() > DURATION:
        return None
    moments = np.linspace(law.start_time(), law.end_time(), STEPS + 1)
    along = np.clip(law.vector_values(moments)[0], 0, at[-1])
    plan = path.vector_values(along).T
    plan[0], plan[-1] = waypoints[0], waypoints[-1]
    return plan
