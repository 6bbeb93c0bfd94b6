"""The scene of bin sorting as a MuJoCo model: table, two bins, blocks, a gripper on three slides.

Metres, kilograms, newtons, seconds. x points to the right, y away from the front, z up; the table's
top is z = 0. The gripper's position is the point between its finger tips, which close along y.
"""

import dataclasses
import functools

import mujoco

from experiments import checks
from experiments.tabletop import DT

LEFT, RIGHT, NOWHERE = 0, 1, -1  # places of a block
RED, BLUE = 0, 1  # colours; the correct rule puts red blocks left and blue ones right
BINS = ("left", "right")
COLOURS = ("red", "blue")
JOINTS = ("x", "y", "z", "front_finger", "back_finger")


@dataclasses.dataclass(frozen=True)
class Scene:
    """Sizes of the scene; raises ValueError for a wrong field or no block. Lists become tuples."""

    red: int = 2  # blocks of each colour; red ones come first everywhere
    blue: int = 2
    spread: tuple[float, float] = (0.12, 0.15)  # largest |x| and |y| of a block's start
    yaw: float = 0.1  # largest angle [rad] by which a block starts turned; the gripper cannot turn
    gap: float = 0.09  # least distance between the centres of two blocks at the start
    opening: float = 0.06  # largest distance between the fingers
    max_steps: int = 250  # control steps until an episode is out of time
    block: float = 0.02  # half a block's side
    bin_x: float = 0.27  # |x| of the bins' centres
    bin_half: tuple[float, float] = (0.075, 0.10)  # half sizes of the bins' inside along x and y
    wall: float = 0.04  # height of the bins' walls
    # The gripper's |x| and |y| stay below the first two, its z between the last two.
    reach: tuple[float, float, float, float] = (0.36, 0.24, 0.008, 0.25)
    home: tuple[float, float, float] = (0.0, 0.0, 0.16)  # where the gripper starts
    home_jitter: float = 0.03  # largest distance from there along each axis
    timestep: float = 0.01  # of the physics [s], at most 0.01; divides ``DT``

    def __post_init__(self):
        positive = ("opening", "max_steps", "block", "bin_x", "bin_half", "wall")
        checks.scene_numbers(self, DT, positive)
        if min(self.red, self.blue) < 0 or self.red + self.blue < 1:
            raise ValueError(f"red is {self.red} and blue {self.blue}, expected at least one block")

    @property
    def colours(self) -> tuple[int, ...]:
        """The colour of each block."""
        return (RED,) * self.red + (BLUE,) * self.blue


@functools.cache
def model(scene: Scene) -> mujoco.MjModel:
    """Compiles the model, which all environments of a scene share and do not change."""
    return mujoco.MjModel.from_xml_string(xml(scene))


def xml(scene: Scene) -> str:
    """Returns the scene in MuJoCo's XML."""
    x, y, low, high = scene.reach
    side, half = scene.block, scene.opening / 2
    (a, b), thick, height = scene.bin_half, 0.004, scene.wall / 2
    sides = (
        (a + thick, 0.0, thick, b + 2 * thick),
        (-a - thick, 0.0, thick, b + 2 * thick),
        (0.0, b + thick, a, thick),
        (0.0, -b - thick, a, thick),
    )
    walls = "\n".join(
        f'<geom name="{name}_wall_{i}" class="wall" pos="{sign * scene.bin_x + x} {y} {height}" '
        f'size="{half_x} {half_y} {height}"/>'
        for name, sign in zip(BINS, (-1, 1), strict=True)
        for i, (x, y, half_x, half_y) in enumerate(sides)
    )
    blocks = "\n".join(
        f"""<body name="block_{i}" pos="0 {0.1 * i} {side}"><freejoint name="block_{i}"/>
          <geom name="block_{i}" class="block" size="{side} {side} {side}"
                material="{COLOURS[colour]}"/></body>"""
        for i, colour in enumerate(scene.colours)
    )
    fingers = "\n".join(
        f"""<body name="{name}" pos="0 {sign * 0.006} 0" gravcomp="1">
          <joint name="{name}" type="slide" axis="0 {sign} 0" range="0 {half}" damping="2"/>
          <geom name="{name}" class="finger" pos="0 0 0.024"/></body>"""
        for name, sign in (("front_finger", -1), ("back_finger", 1))
    )
    slides = "\n".join(
        f'<joint name="{name}" type="slide" axis="{axis}"/>'
        for name, axis in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))
    )
    ranges = ((-x, x), (-y, y), (low, high), (0, half), (0, half))
    servos = "\n".join(
        f'<position name="{name}" joint="{name}" class="{group}" ctrlrange="{a} {b}"/>'
        for name, group, (a, b) in zip(JOINTS, ["arm"] * 3 + ["hand"] * 2, ranges, strict=True)
    )
    return f"""
<mujoco model="bin_sorting">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{scene.timestep}" integrator="implicitfast" cone="elliptic" impratio="3"/>
  <size memory="4M"/>
  <default>
    <default class="block">
      <geom type="box" mass="0.05" friction="0.8 0.01 0.001" condim="4" solref="0.02 1"/>
    </default>
    <default class="finger">
      <geom type="box" size="0.012 0.006 0.025" mass="0.05" friction="1.5 0.02 0.001" condim="4"
            material="steel" priority="1" solref="0.02 1"/>
    </default>
    <default class="wall">
      <geom type="box" friction="0.5 0.01 0.001" condim="3" rgba="0.55 0.45 0.35 1"/>
    </default>
    <default class="arm"><position kp="400" kv="36" forcerange="-25 25" timeconst="0.04"/></default>
    <default class="hand"><position kp="250" kv="8" forcerange="-6 6"/></default>
  </default>
  <asset>
    <material name="red" rgba="0.85 0.2 0.2 1"/>
    <material name="blue" rgba="0.2 0.35 0.85 1"/>
    <material name="steel" rgba="0.35 0.35 0.38 1"/>
  </asset>
  <visual><headlight ambient="0.5 0.5 0.5" diffuse="0.5 0.5 0.5" specular="0 0 0"/>
    <global offwidth="640" offheight="480"/></visual>
  <worldbody>
    <camera name="front" pos="0 -0.68 0.68" xyaxes="1 0 0 0 1 1" fovy="45"/>
    <camera name="top" pos="0 0 0.95" xyaxes="1 0 0 0 1 0" fovy="45"/>
    <geom name="table" type="plane" size="0.6 0.45 0.02" rgba="0.85 0.83 0.8 1"
          friction="0.8 0.01 0.001" condim="3"/>
    {walls}
    <body name="gripper" gravcomp="1">
      {slides}
      <geom name="palm" type="box" pos="0 0 0.062" size="0.014 {half + 0.014} 0.012" mass="0.4"
            material="steel" contype="0" conaffinity="0"/>
      {fingers}
    </body>
    {blocks}
  </worldbody>
  <contact><exclude body1="front_finger" body2="back_finger"/></contact>
  <actuator>{servos}</actuator>
</mujoco>
"""
