"""Figures of the arm: films of rollouts, rendered by MuJoCo, and the sources' plans."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from matplotlib.figure import Figure

from experiments import opengl
from experiments.arm.problems import Problem
from experiments.arm.scene import JOINTS, Arm
from experiments.arm.timing import DT
from experiments.table.figures import COLOURS, panels

_PIXELS = 360


def film(
    rollouts: Mapping[str, Any], problems: Sequence[Problem], *, episode: int = 0, frames: int = 7
) -> Figure | None:
    """Draws moments of one episode of each policy (by label, a row each), with the way of the hand;
    None, with a warning, where MuJoCo cannot render."""
    arm = Arm(problems[episode].scene)
    try:
        camera = Camera(arm)
    except OSError as error:
        logging.warning("no film: %s", error)
        return None
    width, height = 1.7 * frames, 1.85 * len(rollouts)
    figure, grid = panels(len(rollouts), frames, width, height)
    for line, (label, rolled) in zip(grid, rollouts.items(), strict=True):
        length = int(rolled.lengths[episode])
        path = np.asarray(rolled.positions[episode, : length + 1], float)
        moments = np.linspace(0, len(rolled.positions[episode]) - 1, frames).round().astype(int)
        for axes, moment in zip(line, np.minimum(moments, length), strict=True):
            axes.imshow(camera(path[moment], path[: moment + 1]))
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{moment * DT:.2f} s", fontsize=6, pad=2)
        ends = {"reached": "success", "collided": "collided", "at a joint's limit": "limits"}
        held = [end for end, field in ends.items() if getattr(rolled, field)[episode]]
        end = held[0] if held else "missed the goal"
        line[0].set_ylabel(f"{label}\n({end})", fontsize=7)
    camera.close()
    return figure


class Camera:
    """Renders the arm in its scene, and the way of the hand as a line of dots.

    OSError where MuJoCo cannot render.
    """

    def __init__(self, arm: Arm):
        import mujoco

        self._arm, self._mujoco = arm, mujoco
        self._renderer = opengl.renderer(arm.model, _PIXELS)
        self._view = mujoco.MjvCamera()
        self._view.lookat[:] = 0.42, 0.0, 0.55
        self._view.distance, self._view.azimuth, self._view.elevation = 2.0, 35, -22

    def __call__(self, q: np.ndarray, path: np.ndarray) -> np.ndarray:
        """Returns the image [P, P, 3] of configuration q [7] after a path [T, 7]."""
        dots = [self._arm.hand(p)[0] for p in between(path)]
        self._arm.data.qpos[:] = q
        self._mujoco.mj_forward(self._arm.model, self._arm.data)
        self._renderer.update_scene(self._arm.data, self._view)
        scene = self._renderer.scene
        for dot in dots[: scene.maxgeom - scene.ngeom]:
            self._mujoco.mjv_initGeom(
                scene.geoms[scene.ngeom],
                self._mujoco.mjtGeom.mjGEOM_SPHERE,
                np.full(3, 0.006),
                dot,
                np.eye(3).ravel(),
                np.array([0.85, 0.1, 0.1, 1], np.float32),
            )
            scene.ngeom += 1
        return self._renderer.render()

    def close(self) -> None:
        """Frees the renderer."""
        self._renderer.close()


def between(path: np.ndarray, count: int = 4) -> np.ndarray:
    """Returns the path [T, 7] with ``count`` steps in each of its own."""
    at = np.linspace(0, len(path) - 1, count * (len(path) - 1) + 1)
    return np.stack([np.interp(at, np.arange(len(path)), joint) for joint in path.T], 1)


def plans_figure(sources: Mapping[str, Sequence[np.ndarray]], count: int = 6) -> Figure:
    """Plots the joints of the first plans of each source over time."""
    figure, grid = panels(len(sources), JOINTS, 1.7 * JOINTS, 1.9 * len(sources), sharex=True)
    for line, (name, paths) in zip(grid, sources.items(), strict=True):
        for joint, axes in enumerate(line):
            for index, path in enumerate(paths[:count]):
                seconds = DT * np.arange(len(path))
                axes.plot(seconds, path[:, joint], lw=0.9, color=COLOURS[index])
            axes.tick_params(labelsize=6)
            axes.grid(alpha=0.25)
            axes.set_title(f"joint {joint + 1} [rad]", fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("time [s]", fontsize=7)
    return figure
