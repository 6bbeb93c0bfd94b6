"""Figures of the inputs variant."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.policy.policy import Policy
from experiments.open_x import scene

if TYPE_CHECKING:
    from experiments.open_x.inputs import HeldOut

_COLOURS = {"policy": "C0", "image": "C1", "instruction": "C2"}
_LABELS = {
    "policy": "policy: image, instruction, state",
    "image": "least of image and state",
    "instruction": "least of instruction and state",
}


def losses(
    path: pathlib.Path,
    bins: Mapping[str, Mapping[str, tuple[float, float]]],
    by_step: Mapping[int, tuple[float, float, float]],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Loss against the step with the floors as lines, and by noise level.

    Args:
      path: of the png.
      bins: by noise level ("all" first), mean and half of the 95% interval of each loss.
      by_step: held-out loss of each checkpoint, likewise, and after how many minutes it was.
      history: rows of ``metrics.jsonl``.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, values = [r["step"] for r in history], [r["loss"] for r in history]
    left.plot(steps, values, color="C0", lw=0.6, alpha=0.4, label="policy, training batches")
    means, errors, minutes = np.array(list(by_step.values())).T
    left.errorbar(
        list(by_step), means, errors, color="C0", fmt=".-", lw=1, label="policy, held out"
    )
    for name in ("image", "instruction"):
        mean, error = bins["all"][name]
        left.axhline(mean, color=_COLOURS[name], lw=1, label=_LABELS[name])
        left.axhspan(mean - error, mean + error, color=_COLOURS[name], alpha=0.2, lw=0)
    left.set(xlabel="step", ylabel="loss of v, all noise levels", yscale="log")
    ticks = slice(len(minutes) % 2 if len(minutes) > 2 else 0, None, 2)
    above = left.secondary_xaxis("top")
    above.set_xticks(list(by_step)[ticks], [f"{m:.0f}" for m in minutes[ticks]])
    above.set_xlabel("minutes")
    by_level = [(n, b) for n, b in bins.items() if n != "all"]
    middle = (np.arange(len(by_level)) + 0.5) / len(by_level)
    for name, colour in _COLOURS.items():
        means, errors = np.array([b[name] for _, b in by_level]).T
        right.errorbar(middle, means, errors, color=colour, fmt=".-", lw=1, label=_LABELS[name])
    for name, style in (("image_primary", "--"), ("instruction", ":")):
        means = [b[f"{name} swapped"][0] for _, b in by_level]
        label = f"policy, {name.removesuffix('_primary')}s swapped"
        right.plot(middle, means, color="C0", ls=style, lw=1, label=label)
    right.set(xlabel=r"noise level $\sigma$ (bins of 0.1)", yscale="log", ylim=(1e-6, 20))
    right.set_ylabel("loss of v, held out")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    left.legend(fontsize=7)
    right.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=150)


def chunks(path: pathlib.Path, policy: Policy, held: HeldOut, key: jax.Array) -> None:
    """Held-out images with three sampled chunks each, for their own instruction (above) and for
    one that names another object (below). The circle is what is named."""
    count, draws = min(6, len(held.named) // scene.STEPS), 3
    first = np.arange(count) * scene.STEPS
    observation = {
        n: np.repeat(v[first], draws, axis=0) for n, v in held.chunks.observation.items()
    }
    other = (held.named[first] + 1) % scene.OBJECTS
    texts = [bytes(t).rstrip(b"\0").decode() for t in held.chunks.observation["instruction"][first]]
    colours = np.array(list(scene.COLOURS))[held.colours[first, other]]
    shapes = np.array(scene.SHAPES)[held.shapes[first, other]]
    changed = [f"go to the {c} {s}" for c, s in zip(colours, shapes, strict=True)]
    figure = Figure(figsize=(1.75 * count, 3.9), layout="constrained")
    grid = figure.subplots(2, count, squeeze=False)
    for row, (told, target) in enumerate(((texts, held.named[first]), (changed, other))):
        given = {**observation, "instruction": list(np.repeat(told, draws))}
        moved = np.asarray(policy(given, key))[..., :2].reshape(count, draws, -1, 2)
        for i, axes in enumerate(grid[row]):
            edge = [-scene.HALF_VIEW, scene.HALF_VIEW]
            image = held.chunks.observation["image_primary"][first[i], -1]
            axes.imshow(image, extent=(*edge, *edge))
            start = held.effector[first[i]]
            for way in moved[i]:
                axes.plot(*np.cumsum(np.vstack([start, way]), axis=0).T, "-", color="cyan", lw=1.2)
            axes.plot(*held.objects[first[i], target[i]], "o", mfc="none", mec="black", ms=13)
            axes.set_title(told[i], fontsize=7)
            axes.set(xticks=[], yticks=[], xlim=edge, ylim=edge)
    figure.savefig(path, dpi=130)
