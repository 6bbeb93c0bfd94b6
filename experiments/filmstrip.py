"""Filmstrips of simulated episodes: one row for each episode, time from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
from absl import logging
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def draw(
    env: Any,
    qpos: np.ndarray,
    lengths: np.ndarray,
    labels: Sequence[str],
    *,
    from_above: Callable[[Axes, np.ndarray], None],
    seconds: float,
    frames: int = 8,
    camera: str = "front",
) -> Figure:
    """Draws ``frames`` evenly spaced moments of each episode, from start to end.

    They are rendered where there is OpenGL (EGL or OSMesa), else by ``from_above(axes, qpos)``
    with a warning. The state of ``env`` (``model``, ``data``, ``image``) is overwritten.

    Args:
      env: an environment over MuJoCo.
      qpos: [N, T + 1, q] joint positions before each step of ``seconds``.
      lengths, labels: [N] steps, and names, of the episodes.
      from_above, seconds, frames, camera: see above; the camera is one of the model's.
    """
    figure = Figure(figsize=(1.6 * frames, 1.7 * len(labels)), layout="constrained")
    axes = figure.subplots(len(labels), frames, squeeze=False)
    rendered = True
    try:
        env.image(camera)
    except RuntimeError as error:
        logging.warning("filmstrip drawn from above: %s", error)
        rendered = False
    for row, path, length, label in zip(axes, qpos, lengths, labels, strict=True):
        moments = np.linspace(0, length, frames).round().astype(int)
        for axis, moment in zip(row, moments, strict=True):
            if rendered:
                env.data.qpos[:] = path[moment]
                mujoco.mj_forward(env.model, env.data)
                axis.imshow(env.image(camera, 240))
            else:
                from_above(axis, path[moment])
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{moment * seconds:.1f} s", fontsize=6, pad=2)
        row[0].set_ylabel(label, fontsize=6)
    return figure
