"""The paper's pushing as a Gymnasium environment: a tight tolerance, and the pusher goes back.

Section 5.2 of arXiv 2606.12365: within 15 mm and 3.5 degrees, the pusher back within 1.5 times that
distance, in 75 s. Its worlds differ in contact, friction (0.5 and 0.1) and centre of mass (65 mm).
"""

import dataclasses
import math

import gymnasium
import numpy as np

from experiments import checks
from experiments.planar_pushing.env import PlanarPushingEnv
from experiments.planar_pushing.scene import DT, Physics, Scene

# Compliant contact, much friction and a heavy tail.
TARGET = Physics(
    pusher_friction=0.5,
    table_friction=0.45,
    mass=0.7,
    com_x=0.0,
    com_y=-0.045,
    softness=0.06,
    damping=0.0,
    lag=0.06,
    delay=0.0,
)
# What the planner believes: stiff contact, little friction, and so light a slider that it stops
# where it is left (quasi-static). Its centre of mass is 65 mm off. The robot is the same.
SOURCE = dataclasses.replace(
    TARGET, pusher_friction=0.1, table_friction=0.25, mass=0.2, com_y=0.02, softness=0.02
)


@dataclasses.dataclass(frozen=True)
class PaperScene(Scene):
    """The task of an episode; fields as of ``Scene``."""

    angle: float = math.radians(3.5)
    max_steps: int = 750
    back: float = 0.0225  # the pusher is back within this distance [m] of ``home``

    def __post_init__(self):
        super().__post_init__()
        checks.scene_numbers(self, DT, ("back",))


class PaperPushingEnv(PlanarPushingEnv):
    """As ``PlanarPushingEnv``, but an episode ends only once the slider rests at its goal and the
    pusher is within ``scene.back`` of ``scene.home``.

    Info ``back`` is the pusher's distance [m] from there.
    """

    scene: PaperScene

    def __init__(
        self,
        scene: PaperScene = PaperScene(),  # noqa: B008
        physics: Physics = TARGET,
        **options,
    ):
        super().__init__(scene, physics, **options)

    def back(self) -> float:
        """Returns the pusher's distance [m] from its place."""
        return float(np.linalg.norm(self.pusher() - self.scene.home))

    def _solved(self):
        return super()._solved() and self.back() < self.scene.back

    def _info(self):
        return super()._info() | {"back": np.float64(self.back())}


ENV_ID = "ambient_jax/PaperPushing-v0"
if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=PaperPushingEnv)
