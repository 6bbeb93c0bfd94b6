"""The scene of planar pushing as a MuJoCo model, and its physics.

Metres, kilograms, newtons, seconds; seen from above, x to the right and y up; the table is z = 0.

The slider is a free T of two boxes on three small feet, so its centre of mass sets the weight on
each foot, and with it how the slider turns. All friction is that of contacts with elliptic cones:
friction losses of planar joints are cheaper, but push harder along the diagonals than the axes. The
pusher is on two slides with a compliant position servo, so it lags behind more where the slider
resists more. It touches as a sphere at half the slider's height, the cheapest contact.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import mujoco

from experiments import checks
from experiments.tabletop import DT

UNIT = 0.03  # the T's bar is 4 x 1 units, its stem 1 x 3
HEIGHT = 0.03  # of the slider
RADIUS = 0.012  # of the pusher
# Centres of bar and stem along y, and half sizes, of a T whose centroid is the body's origin.
BAR, STEM = 6 / 7 * UNIT, -8 / 7 * UNIT
BAR_HALF, STEM_HALF = (2 * UNIT, 0.5 * UNIT), (0.5 * UNIT, 1.5 * UNIT)
TOP, WAIST, TAIL = BAR + 0.5 * UNIT, BAR - 0.5 * UNIT, STEM - 1.5 * UNIT
# Corners of the T on its side x >= 0, from the top's middle to the tail's: it is symmetric.
HALF_OUTLINE = (
    *((0.0, TOP), (BAR_HALF[0], TOP), (BAR_HALF[0], WAIST)),
    *((STEM_HALF[0], WAIST), (STEM_HALF[0], TAIL), (0.0, TAIL)),
)
FEET = ((-1.7 * UNIT, BAR), (1.7 * UNIT, BAR), (0.0, TAIL + 0.3 * UNIT))
_FOOT = 0.004  # radius of a foot


@dataclasses.dataclass(frozen=True)
class Scene:
    """The task of an episode in any physics; raises ValueError for a wrong field. Lists become
    tuples."""

    position: float = 0.015  # the slider is at its goal within this distance [m]
    angle: float = math.radians(8)  # and this angle [rad]
    goal: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, y and yaw of the slider
    spread: tuple[float, float] = (0.1, 0.1)  # largest |x| and |y| of a start
    yaw: float = math.radians(60)  # largest angle [rad] of a start from the goal's
    least: float = 0.05  # least ``distance`` [m] of a start from the goal
    max_steps: int = 200  # control steps until an episode is out of time
    home: tuple[float, float] = (0.0, -0.26)  # where the pusher starts
    home_jitter: float = 0.02  # largest distance from there along each axis
    reach: float = 0.32  # largest |x| and |y| of the pusher's targets
    timestep: float = 0.01  # of the physics [s], at most 0.01; divides ``DT``

    def __post_init__(self):
        checks.scene_numbers(self, DT, ("position", "angle", "max_steps", "reach"))


@dataclasses.dataclass(frozen=True)
class Physics:
    """Physical parameters, in which two worlds differ. The defaults represent the real world: a
    slick, heavy, unbalanced slider and a slow pusher. Raises ValueError if a number is not finite
    or too small, or the slider would tip over."""

    pusher_friction: float = 0.15  # between pusher and slider
    table_friction: float = 0.45  # between slider and table
    mass: float = 0.7  # of the slider [kg]
    com_x: float = 0.018  # the slider's centre of mass against the T's centroid [m]
    com_y: float = -0.009
    softness: float = 0.06  # time constant [s] of pusher and slider's contact; larger is softer
    damping: float = 2.0  # viscous resistance to the slider's motion [N s / m]
    lag: float = 0.12  # time constant [s] of the pusher's target
    delay: float = 0.1  # [s] after which a command arrives, rounded to whole physics steps

    def __post_init__(self):
        checks.finite_numbers(self, _SCALES)
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")
        low = FEET[2][1]
        room = FEET[1][0] * (self.com_y - low) / (BAR - low)
        if not (low < self.com_y < BAR and abs(self.com_x) < room):
            raise ValueError(
                f"the centre of mass is ({self.com_x}, {self.com_y}), expected it between the feet "
                f"{FEET}: the slider would tip over"
            )


# ``between`` interpolates these by ratios and the others by differences.
_SCALES = ("pusher_friction", "table_friction", "mass", "softness", "lag")
# Least values; ``between`` stops there. A physics step of 10 ms resolves no stiffer contact.
_LEAST = {"damping": 0.0, "delay": 0.0, "softness": 0.02}
KNOBS = tuple(field.name for field in dataclasses.fields(Physics))

TARGET = Physics()
# A typical simulator: all guesses are wrong, and properties that are hard to measure are missing.
SOURCE = Physics(
    pusher_friction=0.7,
    table_friction=0.25,
    mass=0.35,
    com_x=0.0,
    com_y=0.0,
    softness=0.02,
    damping=0.0,
    lag=0.03,
    delay=0.0,
)


def between(level: float, knobs: Sequence[str] = KNOBS) -> Physics:
    """Returns physics at a gap of ``level``: 0 is ``TARGET``, 1 ``SOURCE``, more extrapolates.

    Only the fields ``knobs`` differ from ``TARGET``.

    Raises:
      ValueError: a knob is unknown, the level is below 0 or not finite, or the slider tips over.
    """
    unknown = set(knobs) - set(KNOBS)
    if unknown:
        raise ValueError(f"unknown knobs {sorted(unknown)}, expected some of {KNOBS}")
    if not 0 <= level < math.inf:
        raise ValueError(f"level of the gap is {level}, expected a finite number of at least 0")
    changes = {}
    try:
        for name in knobs:
            a, b = getattr(TARGET, name), getattr(SOURCE, name)
            value = a * (b / a) ** level if name in _SCALES else a + level * (b - a)
            changes[name] = max(_LEAST[name], value) if name in _LEAST else value
        return dataclasses.replace(TARGET, **changes)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"level of the gap is {level}, expected a smaller one: {error}") from error


@functools.cache
def model(scene: Scene, physics: Physics) -> mujoco.MjModel:
    """Compiles the model, which all environments of these physics share and do not change."""
    compiled = mujoco.MjModel.from_xml_string(xml(scene, physics))
    # One number for translation and rotation, as of resistance on a disc of about the T's size.
    compiled.dof_damping[2:5] = physics.damping
    compiled.dof_damping[5:8] = physics.damping * _gyration2()
    return compiled


def xml(scene: Scene, physics: Physics) -> str:
    """Returns the scene in MuJoCo's XML."""
    half, reach, r2 = HEIGHT / 2, scene.reach, _gyration2()
    flat = physics.mass * (r2 / 2 + HEIGHT**2 / 12)
    boxes = lambda rest, gap=0.0: "\n".join(  # noqa: E731
        f'<geom type="box" pos="0 {y} 0" size="{a} {b} {half - gap}" {rest}/>'
        for y, (a, b) in ((BAR, BAR_HALF), (STEM, STEM_HALF))
    )
    feet = "\n".join(f'<geom class="foot" pos="{x} {y} {_FOOT - half}"/>' for x, y in FEET)
    x, y, yaw = scene.goal
    return f"""
<mujoco model="planar_pushing">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{scene.timestep}" integrator="implicitfast" cone="elliptic" impratio="5"
          iterations="20"/>
  <size memory="1M"/>
  <default>
    <geom contype="0" conaffinity="0"/>
    <default class="foot">
      <geom type="sphere" size="{_FOOT}" contype="2" conaffinity="2" condim="3" priority="1"
            friction="{physics.table_friction} 0.005 0.0001" solref="0.02 1"/>
    </default>
    <position kp="200" kv="20" forcerange="-12 12" timeconst="{physics.lag}"
              ctrlrange="{-reach} {reach}"/>
  </default>
  <visual><headlight ambient="0.5 0.5 0.5" diffuse="0.5 0.5 0.5" specular="0 0 0"/>
    <global offwidth="640" offheight="480"/></visual>
  <worldbody>
    <camera name="top" pos="0 0 0.8" xyaxes="1 0 0 0 1 0" fovy="45"/>
    <camera name="front" pos="0 -0.6 0.6" xyaxes="1 0 0 0 1 1" fovy="45"/>
    <geom name="table" type="plane" size="0.5 0.5 0.02" rgba="0.85 0.83 0.8 1" contype="2"
          conaffinity="2" condim="3"/>
    <body name="goal" pos="{x} {y} 0.0005" euler="0 0 {yaw}">
      {boxes('rgba="0.45 0.75 0.45 1"', half - 0.0005)}
    </body>
    <body name="pusher" pos="0 0 {half}">
      <joint name="x" type="slide" axis="1 0 0"/><joint name="y" type="slide" axis="0 1 0"/>
      <geom name="pusher" type="sphere" size="{RADIUS}" mass="0.3" contype="1" conaffinity="1"
            condim="3" priority="2" friction="{physics.pusher_friction} 0.005 0.0001"
            solref="{physics.softness} 1" rgba="0 0 0 0"/>
      <geom type="cylinder" size="{RADIUS} {half}" mass="0" rgba="0.85 0.3 0.2 1"/>
    </body>
    <body name="slider" pos="0 0 {half}"><freejoint name="slider"/>
      <inertial pos="{physics.com_x} {physics.com_y} 0" mass="{physics.mass}"
                diaginertia="{flat} {flat} {physics.mass * r2}"/>
      {boxes('contype="1" conaffinity="1" rgba="0.3 0.4 0.7 1"')}
      {feet}
    </body>
  </worldbody>
  <actuator><position name="x" joint="x"/><position name="y" joint="y"/></actuator>
</mujoco>
"""


def _gyration2():
    """Returns the squared radius of gyration of the uniform T about its centroid."""
    parts = [
        (a * b, (a**2 + b**2) / 3 + y**2) for y, (a, b) in ((BAR, BAR_HALF), (STEM, STEM_HALF))
    ]
    return sum(area * r2 for area, r2 in parts) / sum(area for area, _ in parts)
