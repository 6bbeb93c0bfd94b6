"""From episodes to training samples: one sample (a chunk) at every step of an episode.

The sample at step t has the observations of steps t-T+1..t (before the start: the first one
repeated) and the actions of steps t..t+H-1 (past the end: the last one repeated). What lies past
the end is masked out of the loss (padding "mask"), or is the truth itself (padding "hold"): the
robot stands still where its episode ended. Positions and grippers then stay as they are and
displacements are zero, see ``hold``. Masked entries are never trained, yet a policy
denoises whole chunks and its convolutions look at them; where holding is true, use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks
from ambient_jax.transforms.steps import ACTION as ACTION
from ambient_jax.transforms.steps import OBSERVATION as OBSERVATION

# [N, D]: what the robot does when it stands still after a step. Only where padding is "hold" and an
# action has displacements; without it, that is the step's own action.
STILL = "still"
PADDINGS = ("mask", "hold")


def indices(step, start, end, history: int, horizon: int, xp=jnp):
    """Which steps a chunk is made of; the one formula of the device path and of the stream.

    Args:
      step: position of the present, an integer or integers [...]; start <= step < end.
      start, end: positions of the episode's first step and of one past its last, same shape.
      history: T, observations up to the present.
      horizon: H, actions from the present on.
      xp: ``jax.numpy`` or ``numpy``.

    Returns:
      Positions of the observations [..., T] and of the actions [..., H], both in [start, end), and
      the mask [..., H], False where an action lies past the end.
    """
    step, start, end = (xp.asarray(a)[..., None] for a in (step, start, end))
    ahead = step + xp.arange(horizon)
    observed = xp.maximum(step + xp.arange(1 - history, 1), start)
    return observed, xp.minimum(ahead, end - 1), ahead < end


def gather(
    steps: Mapping[str, Any],
    step,
    start,
    end,
    history: int,
    horizon: int,
    xp=jnp,
    padding: str = "mask",
):
    """Chunks out of concatenated episodes.

    Args:
      steps: "action" [N, D] and "observation/<name>" [N, d], episodes one after the other; and,
        where standing still is not repeating an action, ``STILL`` [N, D].
      step, start, end, history, horizon, xp: see ``indices``; positions in [0, N).
      padding: "mask", or "hold" for a mask that is True throughout.

    Returns:
      observation {name: [..., T, d]}, action [..., H, D] and mask [..., H].
    """
    observed, acted, mask = indices(step, start, end, history, horizon, xp)
    observation = {
        name.removeprefix(OBSERVATION): _take(values, observed, xp)
        for name, values in steps.items()
        if name.startswith(OBSERVATION)
    }
    action = _take(steps[ACTION], acted, xp)
    if padding == "mask":
        return observation, action, mask
    if STILL in steps:
        action = xp.where(mask[..., None], action, _take(steps[STILL], acted[..., -1:], xp))
    return observation, action, xp.ones_like(mask)


def _take(values, positions, xp):
    # Clipping never happens, the positions are inside; it is what NumPy gathers without a check.
    return xp.take(values, positions, axis=0, mode="clip")


def episode_arrays(
    episode: Mapping[str, Any],
    observation: Sequence[str],
    action: str,
    *,
    source: str,
    index: int,
) -> dict[str, np.ndarray]:
    """An episode's fields as training reads them, "action" [L, D] and "observation/<name>" [L, d].

    Every step is flattened to a vector of float32, or of float64 where the data have more digits:
    a normaliser takes the shift away before it rounds.

    Args:
      episode: RLDS episode, ``{"steps": {"observation": {...}, "action": ...}}``.
      observation: names (or paths) under steps/observation.
      action: name (or path) under steps.
      source, index: of the episode, for messages.

    Raises:
      ValueError: a field is missing, not numeric, not finite (named with its step), or of another
        length than the action.
    """
    fields = {ACTION: action} | {f"{OBSERVATION}{n}": f"{OBSERVATION}{n}" for n in observation}
    arrays = {}
    for name, path in fields.items():
        values = np.asarray(_field(episode["steps"], path, source, index))
        if values.dtype.kind not in "fiub":
            raise ValueError(
                f"source {source!r}, episode {index}: steps/{path} has type {values.dtype}, "
                "expected numbers"
            )
        values = values.reshape(len(values), math.prod(values.shape[1:]))
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float32)
        finite = np.isfinite(rounded)
        if not finite.all():
            step, dim = np.argwhere(~finite)[0]
            raise ValueError(
                f"source {source!r}, episode {index}, step {step}: steps/{path}[{dim}] is "
                f"{rounded[step, dim]}, expected finite numbers: mend or drop the episode"
            )
        wide = values.astype(np.float64)
        arrays[name] = rounded if (rounded == wide).all() else wide
    lengths = {name: len(values) for name, values in arrays.items()}
    for name, length in lengths.items():
        if length != lengths[ACTION]:
            raise ValueError(
                f"source {source!r}, episode {index}: {name} has {length} steps, the action has "
                f"{lengths[ACTION]}"
            )
    return arrays


def _field(steps, path, source, index):
    node, parts = steps, path.split("/")
    for i, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            names = list(node) if isinstance(node, Mapping) else []
            at = "/".join(["steps", *parts[:i]])
            raise ValueError(
                f"source {source!r}, episode {index}: {at} has no {part!r}, it has "
                f"{', '.join(names) or 'no fields'}{_checks.nearest(part, names)}"
            )
        node = node[part]
    if isinstance(node, Mapping):
        raise ValueError(
            f"source {source!r}, episode {index}: steps/{path} is a dict of {', '.join(node)}: "
            "name one of them, as a path"
        )
    return node
