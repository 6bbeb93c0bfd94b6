"""Bin sorting as a Gymnasium environment over MuJoCo: blocks of two colours, a bin on either side.

The bin sorting experiment of the talks, section 5.3 of the method.
"""

import gymnasium
import mujoco
import numpy as np

from experiments.bin_sorting import scene as scenes
from experiments.bin_sorting.scene import LEFT, NOWHERE, RED, RIGHT, Scene
from experiments.tabletop import Step, TabletopEnv

REST = 0.05  # m/s, below which a block is at rest


class BinSortingEnv(TabletopEnv):
    """One scene of K blocks, which the gripper grasps by contact and friction alone.

    Observation "state" [4 + 7 K], float32, metres: the gripper's x, y, z and the distance between
    its fingers, then for each block, in ``order``, its centre's x, y, z, the same relative to the
    gripper and 1 for red or 0 for blue. ``camera`` "front" or "top" adds "image" [96, 96, 3] uint8.

    Action [4] float32: the gripper's target x, y, z and the distance between the fingers in metres,
    clipped to the action space. The arm follows with a lag of some 0.1 s and limited force.

    An episode ends (terminated, reward 1) when every block rests in either bin, and is truncated
    after ``scene.max_steps``. Info ``placements`` [K] has the place where each block rests
    (``LEFT``, ``RIGHT`` or ``NOWHERE``). The option "blocks" [K, 3] of ``reset`` sets x, y [m] and
    yaw [rad] of the blocks.
    """

    def __init__(
        self,
        scene: Scene = Scene(),  # noqa: B008
        *,
        camera: str = "",
        render_mode: str | None = None,
    ):
        self.blocks = scene.red + scene.blue
        x, y, low, high = scene.reach
        action_space = gymnasium.spaces.Box(
            np.array([-x, -y, low, 0], np.float32),
            np.array([x, y, high, scene.opening], np.float32),
        )
        size = state_size(scene)
        super().__init__(scene, scenes.model(scene), size, action_space, camera, render_mode)
        self.start_sizes = {"blocks": (self.blocks, 3)}
        self._red = (np.array(scene.colours) == RED)[:, None].astype(float)
        self._fingers = [self.model.geom(name).id for name in scenes.JOINTS[3:]]
        self._first_block = self.model.geom("block_0").id

    def _begin(self, start):
        poses = start.get("blocks")
        if poses is None:
            poses = start_poses(self.scene, self.np_random)
        jitter = self.np_random.uniform(-1, 1, 3) * self.scene.home_jitter
        qpos = self.data.qpos
        qpos[:3] = np.asarray(self.scene.home) + jitter
        qpos[3:5] = self.scene.opening / 2
        free = qpos[5:].reshape(self.blocks, 7)
        free[:, :2], free[:, 2] = poses[:, :2], self.scene.block
        free[:, 3], free[:, 4:6], free[:, 6] = np.cos(poses[:, 2] / 2), 0, np.sin(poses[:, 2] / 2)
        self.data.act[:] = qpos[:3]
        self.data.ctrl[:] = qpos[:5]

    def _info(self):
        return {"placements": self.placements()}

    def step(self, action: np.ndarray) -> Step:
        """Moves towards ``action`` [4] for 0.1 s; raises ValueError if it is non-finite."""
        action = self._accepted(action, "x, y, z, opening")
        self.data.ctrl[:3] = action[:3]
        self.data.ctrl[3:] = action[3] / 2
        mujoco.mj_step(self.model, self.data, self.substeps)
        info = self._info()
        return self._result(bool((info["placements"] != NOWHERE).all()), info)

    def placements(self) -> np.ndarray:
        """Returns where each block rests, [K]. A block rests if its centre is within a bin's walls
        and no higher than a stack of two, it is slower than 5 cm/s, and no finger touches it."""
        scene = self.scene
        blocks = self.positions()
        speed = np.linalg.norm(self.data.qvel[5:].reshape(self.blocks, 6)[:, :3], axis=-1)
        resting = in_bin(scene, blocks) & (speed < REST)
        if resting.any():
            pairs = self.data.contact.geom[: self.data.ncon]
            touched = pairs[np.isin(pairs, self._fingers).any(1)].ravel() - self._first_block
            resting[touched[(touched >= 0) & (touched < self.blocks)]] = False
        return np.where(resting, np.where(blocks[:, 0] < 0, LEFT, RIGHT), NOWHERE)

    def gripper(self) -> np.ndarray:
        """Returns the gripper's x, y, z and the distance between its fingers, [4]."""
        return np.append(self.data.qpos[:3], self.data.qpos[3] + self.data.qpos[4])

    def positions(self) -> np.ndarray:
        """Returns the blocks' centres [K, 3], red ones first."""
        return self.data.qpos[5:].reshape(self.blocks, 7)[:, :3].copy()

    def _state(self):
        gripper, blocks = self.gripper(), self.positions()
        near = order(self.scene, gripper, blocks)
        rows = np.concatenate([blocks, blocks - gripper[:3], self._red], axis=1)[near]
        return np.concatenate([gripper, rows.ravel()], dtype=np.float32)


def state_size(scene: Scene) -> int:
    """Returns the width of a state."""
    return 4 + 7 * (scene.red + scene.blue)


def in_bin(scene: Scene, blocks: np.ndarray) -> np.ndarray:
    """Returns whether blocks' centres [K, 3] are within a bin's walls, at most one block high."""
    off = np.abs(np.abs(blocks[:, :2]) - (scene.bin_x, 0.0))
    return (off < scene.bin_half).all(1) & (blocks[:, 2] < 4 * scene.block)


def order(scene: Scene, gripper: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Returns indices [K] of blocks [K, 3]: those outside of the bins first, near before far. An
    expert that takes the nearest block (in x and y) goes to the first one of a state."""
    distance = np.linalg.norm(blocks[:, :2] - gripper[:2], axis=1)
    return np.lexsort((distance, in_bin(scene, blocks)))


def start_poses(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draws x, y and yaw [K, 3] of blocks at a distance; raises ValueError if they do not fit."""
    count = scene.red + scene.blue
    for _ in range(10_000):
        poses = rng.uniform(-1, 1, (count, 3)) * (*scene.spread, scene.yaw)
        distances = np.linalg.norm(poses[:, None, :2] - poses[None, :, :2], axis=-1)
        if distances[np.triu_indices(count, 1)].min(initial=np.inf) >= scene.gap:
            return poses
    raise ValueError(
        f"{count} blocks at least {scene.gap} m apart do not fit within {scene.spread}: "
        "fewer blocks, a smaller gap or a wider spread"
    )


ENV_ID = "ambient_jax/BinSorting-v0"
if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=BinSortingEnv)
