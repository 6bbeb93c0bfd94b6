"""Figures of the table: success, the sweep, losses by noise level, and films with pictures."""

import textwrap
from collections.abc import Mapping

import jax
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.evaluate import evaluation
from experiments.paper_pushing import cameras, policies, task
from experiments.paper_pushing.env import PaperScene
from experiments.paper_pushing.rollout import Rollouts
from experiments.planar_pushing import claims, table_figures
from experiments.planar_pushing.env import pose
from experiments.planar_pushing.scene import DT
from experiments.table import figures as drawing
from experiments.table.experiment import Table
from experiments.table.report import Row

_LETTERS = 26  # of a line beside a picture
_SHOWN = {"image_primary": "from above", "image_wrist": "on the pusher"}


def write(
    table: Table,
    rows: Mapping[str, Row],
    fresh: Mapping[str, Row],
    best: Mapping[str, str],
    made: Mapping[str, Mapping[int, Rollouts]],
    losses: Mapping[str, np.ndarray],
) -> None:
    """Writes the figures of the report; ``made`` are rollouts from fresh starts."""
    section, scene = table.config.task, task.scene_of(table.config)
    swept = len(claims.sweep(section, rows)) > 1
    curves = {
        name: losses[name]
        for name in losses
        if name in ("source", "cotrain", *best.values(), policies.UPPER)
    }
    labels = {name: row.label for name, row in rows.items()}
    compare = {n: by_seed[min(by_seed)] for n, by_seed in made.items()}
    drawing.save(
        table.workdir / "report",
        {
            "success": table_figures.success_figure(fresh or rows),
            "sigma_min": table_figures.sweep_figure(section, rows) if swept else None,
            "levels": levels_figure(curves, losses["target"], labels)
            if curves and "target" in losses
            else None,
            "films": films(compare, labels, scene) if compare else None,
        },
    )


def levels_figure(
    losses: Mapping[str, np.ndarray], target: np.ndarray, labels: Mapping[str, str]
) -> Figure:
    """Plots losses [S, L] on held-out target chunks over those of target only, by noise level."""
    figure, [[axes]] = drawing.panels(1, 1, 6.0, 3.8)
    for i, (name, loss) in enumerate(losses.items()):
        ratio = loss.mean(0) / target.mean(0)
        look = drawing.style(i) | dict(ms=4, lw=1.3, label=labels[name])
        axes.plot(evaluation.LEVELS, ratio, **look)
    axes.axhline(1, color=drawing.GREY, ls="--", lw=1)
    drawing.noise_axis(axes, ylim=(0, None), ylabel="loss over target only's")
    axes.legend(fontsize=7)
    return figure


def films(
    rollouts: Mapping[str, Rollouts],
    labels: Mapping[str, str],
    scene: PaperScene,
    *,
    episode: int = 0,
    frames: int = 9,
) -> Figure:
    """Draws one episode per policy, from the same start, as the two cameras see it."""
    shown = {name: made for name, made in rollouts.items() if episode < len(made.lengths)}
    lines = [(name, camera) for name in shown for camera in _SHOWN]
    figure, grid = drawing.panels(len(lines), frames, 1.25 * frames, 1.32 * len(lines))
    draw = jax.jit(jax.vmap(lambda state: cameras.draw(state, scene)))
    for row, (name, camera) in enumerate(lines):
        made = shown[name]
        moments = np.linspace(0, made.lengths[episode], frames).round().astype(int)
        images = np.asarray(draw(states(made.qpos[episode, moments]))[camera])
        for axes, moment, image in zip(grid[row], moments, images, strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{moment * DT:.1f} s", fontsize=6, pad=2)
        ending = _ending(made, episode, scene)
        label = textwrap.fill(labels[name], _LETTERS)
        words = f"{label}\n{ending}" if camera == "image_primary" else _SHOWN[camera]
        grid[row, 0].set_ylabel(words, fontsize=5.5)
    return figure


def states(qpos: np.ndarray) -> np.ndarray:
    """Returns what ``cameras.draw`` needs of joint positions [..., 9]: [..., 6]."""
    slider = pose(qpos)
    turn = np.stack([np.cos(slider[..., 2]), np.sin(slider[..., 2])], -1)
    return np.concatenate([qpos[..., :2], slider[..., :2], turn], -1)


def _ending(rollouts, row, scene):
    if rollouts.success[row]:
        return "success"
    position, angle = rollouts.error[row]
    back = "" if rollouts.back[row] < scene.back else ", pusher not back"
    return f"{1000 * position:.0f} mm, {np.degrees(angle):.1f}° off{back}"
