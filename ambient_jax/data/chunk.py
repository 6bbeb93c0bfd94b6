"""Cuts episodes into training samples: one sample (a chunk) at every step of an episode.

The sample at step t has the observations of steps t-T+1..t (before the start, the first one is
repeated) and the actions of steps t..t+H-1 (past the end, the last one is repeated). Padding "mask"
masks actions past the end out of the loss. Padding "hold" trains on them: the robot stands still
where its episode ended, so positions and grippers keep their values and displacements are zero. A
policy denoises whole chunks, including masked entries; use "hold" if robots do hold their position.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks
from ambient_jax.transforms.steps import ACTION as ACTION
from ambient_jax.transforms.steps import OBSERVATION as OBSERVATION

# [N, D]: the action of standing still after a step, if padding is "hold" and an action has
# displacements; otherwise it is the action of the step.
STILL = "still"
PADDINGS = ("mask", "hold")
LAST_STEPS = ("drop", "keep")  # rules for an episode's last step with ``is_last``


def indices(step, start, end, history: int, horizon: int, xp=jnp):
    """Computes the positions of a chunk's steps; the device and the stream use this formula.

    Args:
      step: [...] integers, position of the present.
      start, end: [...], positions of the episode's first step and of one past its last.
      history, horizon: T observations up to the present, H actions from the present on.
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
    """Cuts chunks out of concatenated episodes.

    Args:
      steps: "action" [N, D], "observation/<name>" [N, d] and maybe ``STILL`` [N, D].
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


def standing_still(action, rest, normalised=None):
    """Returns ``STILL`` of each action [L, D].

    ``rest`` [D] is a displacement at rest (0, or a rotation's identity), and NaN for positions and
    commands, which keep their values. ``normalised`` is ``rest`` in the units of the action.
    """
    return np.where(np.isnan(rest), action, rest if normalised is None else normalised)


def rest(delta: Iterable[int], action_dim: int) -> np.ndarray:
    """Returns an action [D] at rest: 0 for the displacements ``delta``, NaN elsewhere."""
    delta, still = tuple(delta), np.full(action_dim, np.nan, np.float32)
    for dim in delta:
        if not 0 <= dim < action_dim:
            raise ValueError(
                f"config.data.delta is {delta}, expected dimensions of the action, which "
                f"has {action_dim}: 0 to {action_dim - 1}"
            )
    still[list(delta)] = 0
    return still


def _take(values, positions, xp):
    # All positions are inside; in this mode NumPy does not check them.
    return xp.take(values, positions, axis=0, mode="clip")


def episode_arrays(
    episode: Mapping[str, Any], observation: Sequence[str], action: str, *, source: str, index: int
) -> dict[str, np.ndarray]:
    """Returns an episode's numbers, "action" [L, D] and "observation/<name>" [L, d].

    Steps are flattened to vectors of float32, or of float64 if the data have more digits: a
    normaliser subtracts the shift before it rounds.

    Args:
      episode: RLDS episode, ``{"steps": {"observation": {...}, "action": ...}}``.
      observation, action: names (or paths) under steps/observation, and under steps.
      source, index: names of source and episode, for messages.

    Raises:
      ValueError: a field is missing, not numeric, not finite, or longer or shorter than the action.
    """
    fields = {ACTION: action} | {f"{OBSERVATION}{n}": f"{OBSERVATION}{n}" for n in observation}
    arrays = {}
    where = f"source {source!r}, episode {index}"
    for name, path in fields.items():
        values = np.asarray(_field(episode["steps"], path, where))
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{where}: steps/{path} has type {values.dtype}, expected numbers")
        values = values.reshape(len(values), math.prod(values.shape[1:]))
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float32)
        finite = np.isfinite(rounded)
        if not finite.all():
            step, dim = np.argwhere(~finite)[0]
            raise ValueError(
                f"{where}, step {step}: steps/{path}[{dim}] is {rounded[step, dim]}, expected "
                "finite numbers: mend or drop the episode"
            )
        wide = values.astype(np.float64)
        arrays[name] = rounded if (rounded == wide).all() else wide
    length = len(arrays[ACTION])
    for name, values in arrays.items():
        if len(values) != length:
            raise ValueError(f"{where}: {name} has {len(values)} steps, the action has {length}")
    return arrays


def _field(steps, path, where):
    node, parts = steps, path.split("/")
    for i, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            names = list(node) if isinstance(node, Mapping) else []
            at = "/".join(["steps", *parts[:i]])
            raise ValueError(
                f"{where}: {at} has no {part!r}, it has "
                f"{', '.join(names) or 'no fields'}{_checks.nearest(part, names)}"
            )
        node = node[part]
    if isinstance(node, Mapping):
        raise ValueError(
            f"{where}: steps/{path} is a dict of {', '.join(node)}: name one of them, as a path"
        )
    return node
