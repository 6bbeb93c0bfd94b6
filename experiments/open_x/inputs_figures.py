"""Figures of the inputs variant."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from ambient_jax.policy.policy import Policy
from experiments.open_x import scene
from experiments.open_x.held_out import HeldOut

_COLOURS = {"policy": "C0", "image": "C1", "instruction": "C2"}
_LABELS = {
    "policy": "policy: image, instruction, state",
    "image": "least of image and state",
    "instruction": "least of instruction and state",
}


def losses(
    path: pathlib.Path,
    bins: Mapping[str, Mapping[str, Mapping[str, float]]],
    by_step: Mapping[int, Mapping[str, float]],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Draws the loss against the step with the floors as lines, and by noise level.

    ``bins`` hold {noise level ("all" first): {loss: its ``inputs.estimate``}}, ``by_step`` the same
    of the held-out loss with the minutes of training, ``history`` the rows of ``metrics.jsonl``.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, values = [r["step"] for r in history], [r["loss"] for r in history]
    left.plot(steps, values, color="C0", lw=0.6, alpha=0.4, label="policy, training batches")
    minutes = [loss["minutes"] for loss in by_step.values()]
    line = dict(fmt=".-", lw=1)
    left.errorbar(list(by_step), *_bars(by_step), color="C0", label="policy, held out", **line)
    for name in ("image", "instruction"):
        mean, error = bins["all"][name]["mean"], bins["all"][name]["plus_minus"]
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
        bars = _bars({level: b[name] for level, b in by_level})
        right.errorbar(middle, *bars, color=colour, label=_LABELS[name], **line)
    for name, style in (("image_primary", "--"), ("instruction", ":")):
        means = [b[f"{name} swapped"]["mean"] for _, b in by_level]
        label = f"policy, {name.removesuffix('_primary')}s swapped"
        right.plot(middle, means, color="C0", ls=style, lw=1, label=label)
    right.set(xlabel=r"noise level $\sigma$ (bins of 0.1)", yscale="log", ylim=(1e-6, 20))
    right.set_ylabel("loss of v, held out")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    left.legend(fontsize=7)
    right.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=150)


def _bars(estimates):
    """Returns means and halves of their intervals."""
    return zip(*((e["mean"], e["plus_minus"]) for e in estimates.values()), strict=True)


def chunks(path: pathlib.Path, policy: Policy, held: HeldOut, key: jax.Array) -> None:
    """Draws held-out images with three sampled chunks each: for their own instruction (above) and
    for one that names another object (below). The circle is around the named object."""
    count, draws = min(6, len(held.named) // scene.STEPS), 3
    first = np.arange(count) * scene.STEPS
    observation = {
        n: np.repeat(v[first], draws, axis=0) for n, v in held.chunks.observation.items()
    }
    second = (held.named[first] + 1) % scene.OBJECTS
    texts = [bytes(t).rstrip(b"\0").decode() for t in held.chunks.observation["instruction"][first]]
    colours = np.array(list(scene.COLOURS))[held.colours[first, second]]
    shapes = np.array(scene.SHAPES)[held.shapes[first, second]]
    changed = [f"go to the {c} {s}" for c, s in zip(colours, shapes, strict=True)]
    figure = Figure(figsize=(1.75 * count, 3.9), layout="constrained")
    grid = figure.subplots(2, count, squeeze=False)
    for row, (instructions, target) in enumerate(((texts, held.named[first]), (changed, second))):
        inputs = {**observation, "instruction": list(np.repeat(instructions, draws))}
        moved = np.asarray(policy(inputs, key))[..., :2].reshape(count, draws, -1, 2)
        for i, axes in enumerate(grid[row]):
            edge = [-scene.HALF_VIEW, scene.HALF_VIEW]
            image = held.chunks.observation["image_primary"][first[i], -1]
            axes.imshow(image, extent=(*edge, *edge))
            start = held.effector[first[i]]
            for way in moved[i]:
                axes.plot(*np.cumsum(np.vstack([start, way]), axis=0).T, "-", color="cyan", lw=1.2)
            axes.plot(*held.objects[first[i], target[i]], "o", mfc="none", mec="black", ms=13)
            axes.set_title(instructions[i], fontsize=7)
            axes.set(xticks=[], yticks=[], xlim=edge, ylim=edge)
    figure.savefig(path, dpi=130)
