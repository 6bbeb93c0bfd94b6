"""Filmstrips of simulated episodes: one row for each episode, time from left to right."""

from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
from absl import logging
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.tabletop import DT, TabletopEnv


def draw(
    env: TabletopEnv,
    rollouts: Any,
    label: Callable[[int], str],
    from_above: Callable[[Axes, np.ndarray], None],
    *,
    episodes: Sequence[int] = (0, 1, 2, 3),
    frames: int = 8,
) -> Figure:
    """Draws ``frames`` evenly spaced moments of each episode that is there, from start to end.

    They are rendered where there is OpenGL (EGL or OSMesa), else by ``from_above(axes, qpos)``
    with a warning. The state of ``env`` (``model``, ``data``, ``image``) is overwritten.

    Args:
      env: of the rollouts' scene; its state is overwritten, and it is closed.
      rollouts: has ``seeds``, ``lengths`` and ``qpos`` [N, T + 1, q], see ``simulate.Episodes``.
      label: of an episode, which is written beside its seed.
      from_above: draws joint positions [q] on axes.
      episodes: indices of the rows.
      frames: number of moments.
    """
    rows = [episode for episode in episodes if episode < len(rollouts.lengths)]
    figure = Figure(figsize=(1.6 * frames, 1.7 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), frames, squeeze=False)
    rendered = True
    try:
        env.image(env.view)
    except OSError as error:
        logging.warning("filmstrip drawn from above: %s", error)
        rendered = False
    for line, row in zip(grid, rows, strict=True):
        moments = np.linspace(0, rollouts.lengths[row], frames).round().astype(int)
        for axes, moment in zip(line, moments, strict=True):
            qpos = rollouts.qpos[row, moment]
            if rendered:
                env.data.qpos[:] = qpos
                mujoco.mj_forward(env.model, env.data)
                axes.imshow(env.image(env.view, 240))
            else:
                from_above(axes, qpos)
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{moment * DT:.1f} s", fontsize=6, pad=2)
        line[0].set_ylabel(f"{rollouts.seeds[row]}: {label(row)}", fontsize=6)
    env.close()
    return figure
