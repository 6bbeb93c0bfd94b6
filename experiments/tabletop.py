"""The base of the MuJoCo environments: a scene, a state, cameras from the front and the top."""

from typing import Any

import gymnasium
import mujoco
import numpy as np

from experiments import opengl
from experiments.opengl import IMAGE

DT = 0.1  # seconds per control step
CAMERAS = ("front", "top")
Observation = dict[str, np.ndarray]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]  # what ``step`` returns


class TabletopEnv(gymnasium.Env):
    """A scene that position targets move, each held for 0.1 s.

    A subclass has ``_begin(start)``, ``_state()``, ``_info()`` and ``step``. The same seed and
    actions give the same episode, bit for bit on one machine. Threads may step different
    environments at once: the physics run without Python's lock.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
    view = CAMERAS[0]  # what ``render`` shows without a camera

    def __init__(
        self,
        scene: Any,
        model: mujoco.MjModel,
        state: int,
        action_space: gymnasium.spaces.Box,
        camera: str,
        render_mode: str | None,
    ):
        """Makes an environment whose observation has a state [``state``] and a camera's image;
        raises ValueError for an unknown camera or render mode."""
        if camera not in ("", *CAMERAS):
            raise ValueError(f"camera is {camera!r}, expected 'front', 'top' or '' for none")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
        self.scene, self.model, self.data = scene, model, mujoco.MjData(model)
        self.substeps = round(DT / scene.timestep)  # of the physics in a control step
        self.start_sizes: dict[str, tuple[int, ...]] = {}  # shapes of the options of ``reset``
        self.camera, self.render_mode = camera, render_mode
        self.action_space = action_space
        spaces = {"state": gymnasium.spaces.Box(-np.inf, np.inf, (state,), np.float32)}
        if camera:
            spaces["image"] = gymnasium.spaces.Box(0, 255, (IMAGE, IMAGE, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self._low, self._high = action_space.low.astype(float), action_space.high.astype(float)
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._steps: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode; ``options`` set parts of its start, see the class.

        Raises:
          ValueError: other options, or other numbers than finite ones.
        """
        super().reset(seed=seed)
        start = {name: np.asarray(value, float) for name, value in (options or {}).items()}
        for name, value in start.items():
            if name not in self.start_sizes:
                expected = ", ".join(self.start_sizes)
                raise ValueError(f"unknown reset option {name!r}, expected {expected}")
            size = self.start_sizes[name]
            if value.shape != size or not np.isfinite(value).all():
                raise ValueError(
                    f"reset option {name} is {value.tolist()}, expected finite numbers {[*size]}"
                )
        mujoco.mj_resetData(self.model, self.data)
        self._begin(start)
        mujoco.mj_forward(self.model, self.data)
        self._steps = 0
        return self._observation(), self._info()

    def _result(self, terminated: bool, info: dict[str, Any]) -> Step:
        """Counts a step and returns what ``step`` returns."""
        self._steps += 1
        truncated = self._steps >= self.scene.max_steps and not terminated
        return self._observation(), float(terminated), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Returns an image [96, 96, 3] of the camera in render mode rgb_array, else None."""
        return None if self.render_mode is None else self.image(self.camera or self.view)

    def image(self, camera: str, size: int = IMAGE) -> np.ndarray:
        """Returns an image [size, size, 3] uint8; raises OSError without OpenGL."""
        if size not in self._renderers:
            self._renderers[size] = opengl.renderer(self.model, size)
        self._renderers[size].update_scene(self.data, camera)
        return self._renderers[size].render()

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _accepted(self, action: np.ndarray, numbers: str) -> np.ndarray:
        """Returns the action clipped to its space; raises ValueError for wrong or infinite ones."""
        action, size = np.asarray(action, float), len(self._low)
        if action.shape != (size,) or not np.isfinite(action).all():
            raise ValueError(
                f"action is {action.tolist()}, expected {size} finite numbers ({numbers} in "
                "metres): look at the policy's output"
            )
        if self._steps is None:
            raise gymnasium.error.ResetNeeded("step before the first reset: call reset first")
        return np.clip(action, self._low, self._high)

    def _observation(self) -> Observation:
        image = {"image": self.image(self.camera)} if self.camera else {}
        return {"state": self._state()} | image
