"""The scene: a Panda before a shelf of four cells, with a box in each and a pillar in between.

The arm is the MJCF model inside the package gymnasium-robotics, with its own convex collision
meshes. A configuration is 7 joint angles in rad; the fingers are fixed. Lengths are in metres, the
arm's base is at the origin, x points to the shelf and z up.
"""

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ambient_jax._packages import MissingError
from experiments import opengl

opengl.choose()  # before MuJoCo is imported, by ``Arm``

JOINTS = 7
ROWS, COLUMNS = 2, 2
CELLS = ROWS * COLUMNS
WIDTH, HEIGHT, DEPTH = 0.46, 0.38, 0.30  # of a cell, between the middles of its walls
_BOTTOM, _WALL = 0.34, 0.01  # height of the lowest plate, half of a wall's thickness
_PILLAR = 0.035  # half of the pillar's width
# Links that are near each other at every angle; the limits of the joint between keep them apart.
_NEAR = ((0, 1), (2, 4), (3, 5), (5, 7))
_FOLDER = "envs/assets/kitchen_franka/franka_assets"
# The least and the largest value of each number of a scene.
SHELF = ((0.55, 0.63), (-0.06, 0.06), (-0.10, 0.10))  # x of its front, y of its middle, yaw [rad]
# Of a cell's box: depth and side of its middle from the cell's, half of its width, its height.
BOX = ((-0.06, 0.08), (-0.14, 0.14), (0.02, 0.04), (0.08, 0.20))
PILLAR = ((0.36, 0.44), (-0.30, 0.30), (0.40, 0.90))  # x, y, height
RANGES = np.array([*SHELF, *BOX * CELLS, *PILLAR])
SIZE = len(RANGES)  # numbers of a scene: 22


def draw(rng: np.random.Generator) -> np.ndarray:
    """Returns a scene [22]: pose of the shelf, a box for each cell and the pillar, see ``RANGES``;
    uniform."""
    return rng.uniform(*RANGES.T)


def model_folder() -> pathlib.Path:
    """Returns the folder of the arm's model; MissingError without gymnasium-robotics."""
    spec = importlib.util.find_spec("gymnasium_robotics")
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(
            "experiments.arm needs the Panda inside gymnasium-robotics, which is not installed: "
            "pip install 'ambient-jax[arm]' (or pip install gymnasium-robotics)"
        )
    return pathlib.Path(spec.submodule_search_locations[0]) / _FOLDER


@functools.cache
def _compiled(clearance: float) -> Any:
    """Returns the MuJoCo model, whose geoms touch when nearer than ``clearance``."""
    import mujoco

    folder = model_folder()
    spec = mujoco.MjSpec.from_string(f"""
    <mujoco model="arm">
      <include file="{folder}/assets.xml"/>
      <compiler angle="radian" meshdir="{folder}/meshes"/>
      <visual><global offwidth="640" offheight="640"/></visual>
      <worldbody>
        <light pos="0 -1 2.5" dir="0.3 0.5 -1" diffuse="0.7 0.7 0.7"/>
        <light pos="-1 1 2.5" dir="0.6 -0.4 -1" diffuse="0.4 0.4 0.4"/>
        <include file="{folder}/chain.xml"/>
      </worldbody>
    </mujoco>""")
    for name in ("panda0_leftfinger", "panda0_rightfinger"):
        for joint in list(spec.body(name).joints):
            spec.delete(joint)
    for geom in spec.geoms:
        if geom.contype:  # collides with the arm and the scene; the scene with the arm alone
            geom.contype, geom.conaffinity = 1, 3
            geom.margin = clearance
    for a, b in _NEAR:
        spec.add_exclude(bodyname1=f"panda0_link{a}", bodyname2=f"panda0_link{b}")
    box = dict(type=mujoco.mjtGeom.mjGEOM_BOX, contype=2, conaffinity=1)
    ground = dict(type=mujoco.mjtGeom.mjGEOM_PLANE, contype=2, conaffinity=1)
    spec.worldbody.add_geom(name="ground", size=[2, 2, 0.1], rgba=[0.85, 0.85, 0.87, 1], **ground)
    shelf = spec.worldbody.add_body(name="shelf", mocap=True)
    wood = dict(rgba=[0.76, 0.62, 0.45, 1], **box)
    high, wide = ROWS * HEIGHT / 2, COLUMNS * WIDTH / 2
    for row in range(ROWS + 1):
        at = [DEPTH / 2, 0, _BOTTOM + row * HEIGHT]
        shelf.add_geom(pos=at, size=[DEPTH / 2, wide + _WALL, _WALL], **wood)
    for column in range(COLUMNS + 1):
        at = [DEPTH / 2, column * WIDTH - wide, _BOTTOM + high]
        shelf.add_geom(pos=at, size=[DEPTH / 2, _WALL, high], **wood)
    back = {**wood, "rgba": [0.68, 0.55, 0.4, 1]}
    shelf.add_geom(pos=[DEPTH, 0, _BOTTOM + high], size=[_WALL, wide, high], **back)
    colours = (
        [0.84, 0.37, 0.0, 1],
        [0.0, 0.45, 0.7, 1],
        [0.0, 0.62, 0.45, 1],
        [0.8, 0.47, 0.65, 1],
    )
    for cell, rgba in enumerate(colours):
        body = spec.worldbody.add_body(name=f"box{cell}", mocap=True)
        body.add_geom(name=f"box{cell}", size=[0.04, 0.04, 0.1], rgba=rgba, **box)
    body = spec.worldbody.add_body(name="pillar", mocap=True)
    body.add_geom(name="pillar", size=[_PILLAR, _PILLAR, 0.3], rgba=[0.45, 0.47, 0.5, 1], **box)
    return spec.compile()


def cell_middle(cell: int) -> np.ndarray:
    """Returns the middle of a cell's floor [3] in the shelf's frame, whose origin is on the ground
    below the middle of its front."""
    row, column = divmod(cell, COLUMNS)
    side = (column - (COLUMNS - 1) / 2) * WIDTH
    return np.array([DEPTH / 2, side, _BOTTOM + row * HEIGHT + _WALL])


@dataclasses.dataclass(frozen=True)
class Solid:
    """A box in the shelf's frame (cells) or the world's (pillar): middle [3] and half sizes [3]."""

    middle: np.ndarray
    half: np.ndarray


def solids(scene: np.ndarray) -> list[Solid]:
    """Returns the boxes of the cells and the pillar of a scene [22]."""
    boxes = []
    for cell, (deep, side, half, height) in enumerate(scene[3:-3].reshape(CELLS, 4)):
        middle = cell_middle(cell) + [deep, side, height / 2]
        boxes.append(Solid(middle, np.array([half, half, height / 2])))
    x, y, height = scene[-3:]
    half = np.array([_PILLAR, _PILLAR, height / 2])
    return [*boxes, Solid(np.array([x, y, height / 2]), half)]


def rotation(yaw: float) -> np.ndarray:
    """Returns the rotation [3, 3] about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


class Arm:
    """The arm in one scene [22], which ``place`` changes: collisions, hand poses and images.

    ``clearance`` [m]: two bodies that are nearer to each other collide.
    """

    def __init__(self, scene: np.ndarray | None = None, *, clearance: float = 0.0):
        import copy

        import mujoco

        self._mujoco = mujoco
        self.model = copy.copy(_compiled(clearance))
        self.data = mujoco.MjData(self.model)
        self.limits = np.array(self.model.jnt_range)  # [7, 2] rad
        self._site = self.model.site("end_effector").id
        if scene is not None:
            self.place(scene)

    def place(self, scene: np.ndarray) -> None:
        """Moves shelf, boxes and pillar."""
        scene = np.asarray(scene, float)
        if scene.shape != (SIZE,) or not np.isfinite(scene).all():
            raise ValueError(f"scene has shape {scene.shape}, expected ({SIZE},) finite numbers")
        turn, origin = rotation(scene[2]), np.array([*scene[:2], 0.0])
        quat = np.array([np.cos(scene[2] / 2), 0, 0, np.sin(scene[2] / 2)])
        self._move("shelf", origin, quat)
        *boxes, pillar = solids(scene)
        for cell, box in enumerate(boxes):
            self._move(f"box{cell}", origin + turn @ box.middle, quat)
            self._resize(f"box{cell}", box.half)
        self._move("pillar", pillar.middle, np.array([1.0, 0, 0, 0]))
        self._resize("pillar", pillar.half)

    def _move(self, name, position, quat):
        mocap = self.model.body(name).mocapid[0]
        self.data.mocap_pos[mocap], self.data.mocap_quat[mocap] = position, quat

    def _resize(self, name, half):
        # Besides the size: the bounds from which MuJoCo decides which pairs it looks at.
        model, geom, body = self.model, self.model.geom(name).id, self.model.body(name).id
        model.geom_size[geom], model.geom_rbound[geom] = half, np.linalg.norm(half)
        model.geom_aabb[geom, 3:] = model.bvh_aabb[model.body_bvhadr[body], 3:] = half

    def collides(self, q: np.ndarray) -> bool:
        """Whether the configuration q [7] touches the scene or itself."""
        self.data.qpos[:] = q
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_collision(self.model, self.data)
        return self.data.ncon > 0

    def hand(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns position [3] and rotation [3, 3] of the point between the fingertips, whose z
        axis points out of the hand and whose y axis joins the fingers."""
        self.data.qpos[:] = q
        self._mujoco.mj_kinematics(self.model, self.data)
        site = self.data.site(self._site)
        return site.xpos.copy(), site.xmat.reshape(3, 3).copy()

    def hand_jacobian(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what ``hand`` does, and the Jacobian [6, 7] of position and rotation."""
        at = self.hand(q)
        self._mujoco.mj_comPos(self.model, self.data)
        jacobian = np.empty((6, JOINTS))
        self._mujoco.mj_jacSite(self.model, self.data, jacobian[:3], jacobian[3:], self._site)
        return *at, jacobian


def hand_position() -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from a configuration [7] to the position of the hand [3]."""
    arm = Arm()
    return lambda q: arm.hand(q)[0]
