"""Planar pushing as a Gymnasium environment over MuJoCo: a T is pushed to a goal pose.

The sim-and-real planar pushing experiment of the talks, section 5.2 of the method.
"""

import gymnasium
import mujoco
import numpy as np

from experiments.planar_pushing import scene as scenes
from experiments.planar_pushing.scene import BAR, BAR_HALF, HEIGHT, TAIL, TARGET, Physics, Scene
from experiments.tabletop import Step, TabletopEnv

REST = 0.03, 0.3  # m/s and rad/s, below which the slider is at rest
STATE = 12
TURN = 0.07  # m per radian in ``distance``: about the motion of the T's ends
# Points of the T, in its frame: the ends of its bar and of its stem.
KEYPOINTS = np.array([(-BAR_HALF[0], BAR), (BAR_HALF[0], BAR), (0.0, TAIL)])


class PlanarPushingEnv(TabletopEnv):
    """One T-shaped slider, one pusher. A seed's start is the same in all physics.

    Observation "state" [12], float32, metres: the pusher's x and y, the slider's x, y, cosine and
    sine of its yaw, and x and y of three points of the slider (the ends of its bar and of its stem)
    relative to the pusher. ``camera`` "front" or "top" adds "image" [96, 96, 3] uint8. The goal is
    the same in all episodes and not observed.

    Action [2] float32: the pusher's target x and y in metres, clipped to the action space. The
    pusher follows with the physics' lag and delay and limited force.

    An episode ends (terminated, reward 1) when the slider rests (slower than 3 cm/s and 0.3 rad/s)
    within ``scene.position`` and ``scene.angle`` of its goal, and is truncated after
    ``scene.max_steps``. Info ``error`` [2] is the distance [m] and angle [rad] to the goal. The
    options of ``reset``, "slider" [3] and "pusher" [2], set the slider's x, y [m] and yaw [rad],
    and the pusher's x and y.
    """

    view = "top"

    def __init__(
        self,
        scene: Scene = Scene(),  # noqa: B008
        physics: Physics = TARGET,
        *,
        camera: str = "",
        render_mode: str | None = None,
    ):
        self.physics, model = physics, scenes.model(scene, physics)
        action_space = gymnasium.spaces.Box(-scene.reach, scene.reach, (2,), np.float32)
        super().__init__(scene, model, STATE, action_space, camera, render_mode)
        self.start_sizes = {"slider": (3,), "pusher": (2,)}
        # A command arrives after whole control steps and further physics steps.
        late = round(physics.delay / scene.timestep)
        self._late, self._part = divmod(late, self.substeps)
        self._commands: list[np.ndarray] = []

    def _begin(self, start):
        slider = start_pose(self.scene, self.np_random)
        jitter = self.np_random.uniform(-1, 1, 2) * self.scene.home_jitter
        slider = start.get("slider", slider)
        pusher = start.get("pusher", np.asarray(self.scene.home) + jitter)
        qpos = self.data.qpos
        qpos[:2], qpos[2:4], qpos[4] = pusher, slider[:2], HEIGHT / 2
        qpos[5:] = np.cos(slider[2] / 2), 0, 0, np.sin(slider[2] / 2)
        self.data.act[:] = self.data.ctrl[:] = pusher
        self._commands = [pusher] * (self._late + 2)

    def _info(self):
        return {"error": self.error()}

    def step(self, action: np.ndarray) -> Step:
        """Moves towards ``action`` [2] for 0.1 s; raises ValueError if it is non-finite."""
        action = self._accepted(action, "x, y")
        self._commands = [*self._commands[1:], action]
        if self._part:
            self.data.ctrl[:] = self._commands[0]
            mujoco.mj_step(self.model, self.data, self._part)
        self.data.ctrl[:] = self._commands[1]
        mujoco.mj_step(self.model, self.data, self.substeps - self._part)
        return self._result(self._solved(), self._info())

    def _solved(self) -> bool:
        """Whether the slider rests at its goal."""
        error = self.error()
        speed, turning = np.linalg.norm(self.data.qvel[2:4]), abs(self.data.qvel[7])
        near = error[0] < self.scene.position and error[1] < self.scene.angle
        return bool(near and speed < REST[0] and turning < REST[1])

    def pusher(self) -> np.ndarray:
        """Returns the pusher's x and y, [2]."""
        return self.data.qpos[:2].copy()

    def slider(self) -> np.ndarray:
        """Returns the slider's x, y and yaw in [-pi, pi), [3]."""
        return pose(self.data.qpos)

    def error(self) -> np.ndarray:
        """Returns distance [m] and angle [rad] from the slider to its goal, [2], both >= 0."""
        return error(self.slider(), self.scene)

    def _state(self):
        pusher, slider = self.pusher(), self.slider()
        c, s = np.cos(slider[2]), np.sin(slider[2])
        points = to_world(slider, KEYPOINTS) - pusher
        return np.concatenate([pusher, slider[:2], (c, s), points.ravel()], dtype=np.float32)


def pose(qpos: np.ndarray) -> np.ndarray:
    """Returns the slider's x, y and yaw [..., 3] in [-pi, pi) at joint positions [..., 9]."""
    yaw = 2 * np.arctan2(qpos[..., 8], qpos[..., 5])
    return np.stack([qpos[..., 2], qpos[..., 3], wrap(yaw)], -1)


def wrap(angle: np.ndarray) -> np.ndarray:
    """Wraps an angle to [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def to_world(slider: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Converts points [K, 2] from the frame of a slider at [3] to the world, [K, 2]."""
    return slider[:2] + points @ rotation(slider[2]).T


def rotation(angle: float) -> np.ndarray:
    """Returns the rotation [2, 2] by an angle [rad], counter-clockwise."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([(c, -s), (s, c)])


def error(slider: np.ndarray, scene: Scene) -> np.ndarray:
    """Returns distance [m] and angle [rad] [..., 2] of poses [..., 3] from the goal."""
    off = slider - np.asarray(scene.goal)
    return np.stack([np.hypot(off[..., 0], off[..., 1]), np.abs(wrap(off[..., 2]))], -1)


def distance(slider: np.ndarray, scene: Scene) -> np.ndarray:
    """Returns a distance [...] [m] for position and angle of poses [..., 3], 0 at the goal."""
    off = error(slider, scene)
    return np.hypot(off[..., 0], TURN * off[..., 1])


def start_pose(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draws the slider's x, y and yaw [3], not too near to the goal; raises ValueError if none."""
    for _ in range(1000):
        start = rng.uniform(-1, 1, 3) * (*scene.spread, scene.yaw) + (0, 0, scene.goal[2])
        if distance(start, scene) >= scene.least:
            return start
    raise ValueError(
        f"no start within {scene.spread} m and {scene.yaw} rad is {scene.least} m from the goal: "
        "a wider spread or a smaller least"
    )


ENV_ID = "ambient_jax/PlanarPushing-v0"
if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=PlanarPushingEnv)
