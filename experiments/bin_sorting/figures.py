"""Filmstrips of bin sorting: one row for each episode, time from left to right."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from absl import logging
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.rollout import Rollouts
from experiments.bin_sorting.scene import BINS, COLOURS, DT, Scene

_PAINT = {"red": "#d0393b", "blue": "#3457c8"}


def filmstrip(
    rollouts: Rollouts,
    scene: Scene,
    *,
    episodes: Sequence[int] = (0, 1, 2, 3),
    frames: int = 8,
    camera: str = "front",
) -> Figure:
    """``frames`` moments, evenly spaced from start to end, of each of these episodes.

    Rendered where there is OpenGL (EGL or OSMesa); elsewhere drawn from above, and said so in the
    log.
    """
    episodes = [episode for episode in episodes if episode < len(rollouts.lengths)]
    figure = Figure(figsize=(1.6 * frames, 1.7 * len(episodes)), layout="constrained")
    axes = figure.subplots(len(episodes), frames, squeeze=False)
    env = BinSortingEnv(scene)
    rendered = True
    try:
        env.image(camera)
    except RuntimeError as error:
        logging.warning("filmstrip drawn from above: %s", error)
        rendered = False
    for row, episode in zip(axes, episodes, strict=True):
        moments = np.linspace(0, rollouts.lengths[episode], frames).round().astype(int)
        for axis, moment in zip(row, moments, strict=True):
            qpos = rollouts.qpos[episode, moment]
            if rendered:
                env.data.qpos[:] = qpos
                mujoco.mj_forward(env.model, env.data)
                axis.imshow(env.image(camera, 240))
            else:
                draw_from_above(axis, qpos, scene)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"{moment * DT:.1f} s", fontsize=6, pad=2)
        names = [BINS[p][0] if p >= 0 else "-" for p in rollouts.placements[episode]]
        row[0].set_ylabel(f"{rollouts.seeds[episode]}: {' '.join(names)}", fontsize=6)
    env.close()
    return figure


def draw_from_above(axes: Axes, qpos: np.ndarray, scene: Scene) -> None:
    """Bins, blocks and the two fingers of joint positions [5 + 7 K]."""
    a, b = scene.bin_half
    for sign in (-1, 1):
        corner = (sign * scene.bin_x - a, -b)
        axes.add_patch(Rectangle(corner, 2 * a, 2 * b, fc="#eee6dc", ec="#8c7358", lw=1.5))
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * scene.block
    for pose, colour in zip(qpos[5:].reshape(-1, 7), scene.colours, strict=True):
        turn = 2 * np.arctan2(pose[6], pose[3])
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        corners = square @ matrix.T + pose[:2]
        axes.add_patch(Polygon(corners, fc=_PAINT[COLOURS[colour]], ec="none"))
    x, y = qpos[:2]
    for edge in (y + qpos[4], y - qpos[3] - 0.012):
        axes.add_patch(Rectangle((x - 0.012, edge), 0.024, 0.012, fc="#222", ec="none", alpha=0.8))
    axes.set(xlim=(-0.38, 0.38), ylim=(-0.26, 0.26), aspect="equal")
