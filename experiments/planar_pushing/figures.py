"""Figures of planar pushing: filmstrips, and the paths of slider and pusher from above."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon

from experiments import filmstrip as filmstrips
from experiments.planar_pushing.env import PlanarPushingEnv, pose, to_world
from experiments.planar_pushing.rollout import Rollouts
from experiments.planar_pushing.scene import DT, HALF_OUTLINE, RADIUS, Scene
from experiments.table.figures import panels

_RIGHT = np.array(HALF_OUTLINE[1:-1])
_OUTLINE = np.concatenate([_RIGHT, _RIGHT[::-1] * (-1, 1)])


def filmstrip(rollouts: Rollouts, scene: Scene, **options: Any) -> Figure:
    """Draws moments of episodes labelled with their outcome; see ``filmstrip.draw``."""
    label = lambda row: _ending(rollouts, row)  # noqa: E731
    above = lambda axes, qpos: draw_from_above(axes, qpos, scene)  # noqa: E731
    return filmstrips.draw(PlanarPushingEnv(scene), rollouts, label, above, **options)


def traces(
    rollouts: Rollouts, scene: Scene, *, episodes: Sequence[int] = tuple(range(8)), every: int = 10
) -> Figure:
    """Draws a panel per episode: the slider at every ``every``-th step, from light to dark. The
    pusher's path is a line from its start (dot); the goal is green."""
    rows = [episode for episode in episodes if episode < len(rollouts.lengths)]
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure, grid = panels(lines, columns, 2.4 * columns, 2.5 * lines)
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, row in zip(grid.ravel(), rows, strict=False):
        path = rollouts.qpos[row, : rollouts.lengths[row] + 1]
        _goal(axes, scene)
        shown = [*range(0, len(path) - 1, every), len(path) - 1]
        for step in shown:
            shade = 0.15 + 0.85 * step / max(len(path) - 1, 1)
            corners = to_world(pose(path[step]), _OUTLINE)
            axes.add_patch(Polygon(corners, fc="none", ec="#3457c8", alpha=shade, lw=1))
        axes.plot(*path[:, :2].T, color="#d0393b", lw=0.8)
        axes.plot(*path[0, :2], "o", color="#d0393b", ms=3)
        _frame(axes)
        ending, time = _ending(rollouts, row), rollouts.lengths[row] * DT
        axes.set_title(f"{rollouts.seeds[row]}: {ending}, {time:.1f} s", fontsize=7)
    return figure


def draw_from_above(axes: Axes, qpos: np.ndarray, scene: Scene) -> None:
    """Draws goal, slider and pusher of joint positions [9]."""
    _goal(axes, scene)
    axes.add_patch(Polygon(to_world(pose(qpos), _OUTLINE), fc="#3457c8", ec="none"))
    axes.add_patch(Circle(qpos[:2], RADIUS, fc="#d0393b", ec="none"))
    _frame(axes)


def _goal(axes, scene):
    corners = to_world(np.asarray(scene.goal), _OUTLINE)
    axes.add_patch(Polygon(corners, fc="#bfe3bf", ec="#5b9c5b", lw=0.8))


def _frame(axes):
    axes.set(xlim=(-0.32, 0.32), ylim=(-0.32, 0.32), aspect="equal")


def _ending(rollouts, row):
    if rollouts.success[row]:
        return "at goal"
    position, angle = rollouts.error[row]
    return f"{1000 * position:.0f} mm, {np.degrees(angle):.0f}° off"
