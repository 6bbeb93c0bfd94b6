"""Filmstrips of bin sorting: one row for each episode, time from left to right."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from experiments import filmstrip as filmstrips
from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.rollout import Rollouts
from experiments.bin_sorting.scene import BINS, COLOURS, Scene

_PAINT = {"red": "#d0393b", "blue": "#3457c8"}


def filmstrip(rollouts: Rollouts, scene: Scene, **options: Any) -> Figure:
    """Draws moments of episodes labelled with each block's bin; see ``filmstrip.draw``."""

    def label(row):
        return " ".join(BINS[p][0] if p >= 0 else "-" for p in rollouts.placements[row])

    above = lambda axes, qpos: draw_from_above(axes, qpos, scene)  # noqa: E731
    return filmstrips.draw(BinSortingEnv(scene), rollouts, label, above, **options)


def draw_from_above(axes: Axes, qpos: np.ndarray, scene: Scene) -> None:
    """Draws bins, blocks and the two fingers of joint positions [5 + 7 K]."""
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
