"""Floating point operations of a training step, counted from the parameters."""

from typing import Any

import jax


def flops_per_step(backbone: Any, params: Any, rows: int, horizon: int) -> float:
    """Returns floating point operations of the products in forward and backward, at dense cost.

    Convolutions count as if all taps met data and gradients as twice the forward pass, whatever
    the implementation saves, so one number serves all sides.
    """
    forward = 0
    lengths = [horizon]
    while lengths[-1] > 1:
        lengths.append((lengths[-1] + 1) // 2)
    flat = {"/".join(k.key for k in path[1:]): v for path, v in jax.tree.leaves_with_path(params)}
    for name, value in flat.items():
        if value.ndim < 2 or name == "position":
            continue
        forward += 2 * rows * value.size * _positions(name, lengths, backbone)
    if hasattr(backbone, "heads"):
        forward += backbone.depth * 4 * rows * horizon**2 * backbone.width
    return 3.0 * forward


def _positions(name: str, lengths: list[int], backbone: Any) -> int:
    stem, *numbers = name.split("/")[0].split("_")
    if stem in ("noise", "film", "condition"):
        return 1
    if stem == "middle":
        return lengths[len(backbone.features) - 1]
    if stem in ("down", "up", "downsample", "upsample"):
        return lengths[int(numbers[0]) + (stem == "downsample")]
    return lengths[0]
