"""The one interpreter that turns an episode of any data set into the common form."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ambient_jax import _checks
from ambient_jax.data.features import leaves
from ambient_jax.open_x import grippers, resample, rotations
from ambient_jax.open_x.reader import Reader, missing, window_of
from ambient_jax.open_x.spec import CAMERAS, Field, Part, Spec, parse

OUTPUT_ROTATIONS = ("rpy", "rotvec", "quat", "rot6d")


def standardise(
    spec: Spec | Mapping[str, Any],
    episode: Mapping[str, Any],
    *,
    hz: float | None = None,
    rotation: str = "rpy",
    cameras: Iterable[str] = CAMERAS,
    depth: Iterable[str] = (),
) -> dict[str, Any]:
    """An RLDS episode in the common form.

    Args:
      spec: of the data set (``registry.get(name).spec``), or the lines that `spec.parse` takes.
      episode: as `rlds.open_dataset` gives it, steps as arrays [T, ...]; images decoded or encoded.
      hz: common control rate; None keeps the data set's own. Motions over a new step are composed,
        the last of absolute commands stands, an observation is the latest, rewards are added.
      rotation: of the action, "rpy" (as Open-X models take it), "rotvec", "quat" or "rot6d".
      cameras, depth: those wanted of "primary", "secondary" and "wrist".

    Returns:
      ``steps`` with ``observation`` (``image_<camera>``, ``depth_<camera>``, ``state`` [T, d]
      float32: those that the data set has), ``action`` [T, D] float32 (xyz m, rotation rad,
      gripper 1 = open; or joints, as the spec says), ``action_mask`` [T, D] bool (False: a filler),
      ``camera_mask`` by camera [T] bool, ``language_instruction`` [T] bytes, ``quality`` by label
      [T] float32, ``is_first``, ``is_last``, ``is_terminal``, ``reward`` and ``discount``; and
      ``episode_metadata`` as stored. Channels of cameras in ``spec.bgr`` are swapped in decoded
      images, and must be swapped after decoding in encoded ones.

    Raises:
      ValueError: values that the spec does not fit, too few steps, or a rate that cannot change.
    """
    spec = spec if isinstance(spec, Spec) else parse(spec)
    where = spec.name or "episode"
    _checks.one_of("rotation", rotation, OUTPUT_ROTATIONS)
    cameras, depth = tuple(cameras), tuple(depth)
    for role in (*cameras, *depth):
        _checks.one_of("camera", role, CAMERAS)
    if hz is not None and hz != spec.hz and (why := cannot_resample(spec)):
        raise ValueError(f"{where}: {why}: keep its own rate (hz=None), or give hz in its spec")
    if hz is not None and not 0 < hz < float("inf"):
        raise ValueError(f"{where}: hz is {hz}, expected a positive rate, or None for its own")
    read = Reader(where, episode)
    length = read.length - (spec.has_diff or read.ends_in_filler(spec))
    grid = resample.grid(length, spec.hz, hz, first=int(spec.drop_first))
    if not len(grid.start):
        raise ValueError(
            f"{where}: the episode has {read.length} steps, too few for what its spec drops "
            "(first step, filler of the last one, difference to the next one): leave it out"
        )
    action, mask = _action(spec, read, grid, rotation)
    steps: dict[str, Any] = {
        "observation": {},
        "action": action.astype(np.float32),
        "action_mask": np.tile(mask, (len(action), 1)),
        "camera_mask": {},
        "quality": {},
    }
    observation = steps["observation"]
    at: Any = grid.steps
    if grid.whole:  # a view: images are not copied
        at = slice(at[0], at[-1] + 1)
    if spec.state:
        state = [read.numbers(f, "state")[at] for f in spec.state]
        observation["state"] = np.concatenate(state, -1).astype(np.float32)
    for role in cameras:
        there = np.zeros(len(action), bool)
        if role in spec.cameras:
            there = read.present(spec.cameras[role])[at]
            observation[f"image_{role}"] = read.image(spec.cameras[role])[at]
        steps["camera_mask"][role] = there
    for role in depth:
        if role in spec.depth:
            observation[f"depth_{role}"] = read.depth(spec.depth[role])[at]
    steps["language_instruction"] = read.language(spec.language)[at]
    for label, field in spec.quality.items():
        steps["quality"][label] = read.quality(label, field)[at]
    steps.update(resample.flags(episode["steps"], grid))
    out = {"steps": steps}
    if "episode_metadata" in episode:
        out["episode_metadata"] = episode["episode_metadata"]
    return out


def check(
    spec: Spec,
    features: Any,
    *,
    cameras: Iterable[str] = CAMERAS,
    depth: Iterable[str] = (),
) -> tuple[str, ...]:
    """Checks a spec against a data set's features.json, before a record is read.

    Returns the features that `standardise` reads with these cameras, for
    ``rlds.open_dataset(keys=...)``; ValueError for a missing field or another width.
    """
    stored = leaves(features)
    where = spec.name or "spec"
    keys = []
    for what, field in spec.fields(cameras, depth):
        if field.key not in stored:
            raise ValueError(missing(where, what, field.key, stored))
        keys.append(field.key)
    for part in spec.action:
        if not part.field.constant and None not in stored[part.field.key].shape:
            _check_width(where, part, _width(spec, part.field, features))
    # Never required: not every data set has all of them.
    flags = (f"steps/{name}" for name in ("is_last", "is_terminal", "reward", "discount"))
    keys += [k for k in flags if k in stored]
    keys += [k for k in stored if k.startswith("episode_metadata/")]
    return tuple(dict.fromkeys(keys))


def action_mask(spec: Spec, features: Any, rotation: str = "rpy") -> np.ndarray:
    """What ``standardise`` gives as every step's ``action_mask``, from the features alone: [D]."""
    masks = []
    for part in spec.action:
        if part.is_rotation:
            masks.append(_rotation_mask(part, rotation))
            continue
        width = 1 if part.field.constant else _width(spec, part.field, features)
        columns = np.arange(3 if part.kind == "xyz" else width)
        masks.append(columns < (0 if part.field.constant else width))
    return np.concatenate(masks)


def rest(spec: Spec, features: Any, rotation: str = "rpy") -> np.ndarray:
    """The action [D] of a robot that stands still: 0, or a rotation's identity, for displacements;
    NaN for positions and grippers, which stay as they are, and for fillers."""
    values: list[np.ndarray] = []
    for part in spec.action:
        if part.is_rotation:
            values.append(rotations.from_matrix(rotation, np.eye(3)))
        elif part.kind == "xyz":
            values.append(np.zeros(3))
        else:
            width = 1 if part.field.constant else _width(spec, part.field, features)
            values.append(np.full(width, 0.0 if part.is_delta else np.nan))
    there = action_mask(spec, features, rotation)
    return np.where(there, np.concatenate(values), np.nan).astype(np.float32)


def state_width(spec: Spec, features: Any) -> int:
    """Numbers of a state, from the features alone."""
    return sum(_width(spec, field, features) for field in spec.state)


def cannot_resample(spec: Spec) -> str:
    """Why a data set cannot be brought to another control rate; "" if it can."""
    if spec.hz is None:
        return "its control rate is unknown"
    if spec.frame == "tool" and any(part.kind == "base" for part in spec.action):
        return "its displacements are in the frame of a base whose heading is unknown"
    return ""


def _width(spec: Spec, field: Field, features: Any) -> int:
    """How many numbers a field takes, from the features alone."""
    shape = leaves(features)[field.key].shape
    if None in shape:
        raise ValueError(
            f"{spec.name or 'spec'}: {field.key} has shape {shape} in its features: take some of "
            "its numbers with [start:stop] in the spec"
        )
    window = window_of(spec.name or "spec", field, int(np.prod([n or 0 for n in shape])))
    return window.stop - window.start


def _action(spec, read, grid, rotation) -> tuple[np.ndarray, np.ndarray]:
    """The action [N, D] and its mask [D]."""
    columns: list[np.ndarray] = []
    mask: list[np.ndarray] = []
    xyz = np.zeros((grid.length, 3))
    for part in spec.action:
        field = part.field
        values = None if field.constant else _values(spec, read, part)
        if values is not None:  # a rotation's differences come later, and need one step more
            values = values[: grid.length + (part.is_rotation and part.is_diff)]
        if part.kind == "xyz":
            # Composed together with the rotation, which follows it.
            xyz = np.zeros((grid.length, 3)) if values is None else values
            mask.append(np.arange(3) < (0 if values is None else read.width(field)))
        elif part.is_rotation:
            columns += _pose(spec, read, part, xyz, values, grid, rotation)
            mask.append(_rotation_mask(part, rotation))
        else:
            if values is None:
                values = np.full((grid.length, 1), float(field.path == "open"))
            together = part.is_delta and not grid.whole
            columns.append(resample.sums(values, grid) if together else values[grid.commands])
            mask.append(np.full(values.shape[1], not field.constant))
    return np.concatenate(columns, -1), np.concatenate(mask)


def _values(spec: Spec, read: Reader, part: Part) -> np.ndarray:
    """Numbers of a part at each step; rotations are not yet converted, nor differences of them."""
    field = part.field
    values = read.numbers(field, "action")
    _check_width(read.where, part, values.shape[1])
    if part.kind == "grip":
        return grippers.to_open(read.where, field, values)
    if field.has("rate"):
        values = values / spec.hz
    if field.has("diff") and not part.is_rotation:
        values = np.diff(values, axis=0)
    if field.has("pad"):
        values = np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
    return values


def _pose(spec, read, part, xyz, values, grid, rotation) -> list[np.ndarray]:
    """Displacement [N, 3] and rotation [N, w] over each output step."""
    encoding, diff, at = part.kind, part.is_diff, grid.steps
    if values is not None and part.field.has("subtract") and rotation == "rpy":
        angles = -np.remainder(np.pi - np.diff(values, axis=0), 2 * np.pi) + np.pi
        return [each[at] if grid.whole else resample.sums(each, grid) for each in (xyz, angles)]
    if encoding == "unstated":
        encoding = rotation
        if rotations.WIDTHS[rotation] != 3:
            raise ValueError(
                f"{read.where}: nobody says what the three numbers of its rotation are, so they "
                f"cannot become {rotation!r}: take 'rpy' or 'rotvec', or name them in the spec"
            )
    if values is not None and not diff and encoding == rotation and grid.whole:
        return [xyz[at], values[at]]  # to the last bit, angles beyond half a turn included
    turns = np.tile(np.eye(3), (grid.length, 1, 1))
    if values is not None:
        try:
            turns = rotations.to_matrix(encoding, values)
        except ValueError as error:
            raise ValueError(f"{read.where}: {part.field.key}: {error}") from None
        if diff:  # what leads to the next attitude in the base frame: matrices do not wrap
            turns = turns[1:] @ np.swapaxes(turns[:-1], -1, -2)
    if grid.whole:
        return [xyz[at], rotations.from_matrix(rotation, turns[at])]
    moved, turned = resample.poses(xyz, turns, grid, spec.frame)
    return [moved, rotations.from_matrix(rotation, turned)]


def _rotation_mask(part: Part, rotation: str) -> np.ndarray:
    width = rotations.WIDTHS[rotation]
    if part.field.constant:
        return np.zeros(width, bool)
    if part.kind == "yaw" and rotation in ("rpy", "rotvec"):
        return np.arange(width) == 2
    return np.ones(width, bool)


def _check_width(where: str, part: Part, taken: int) -> None:
    widths = {"xyz": 3, "unstated": 3, "grip": 1} | rotations.WIDTHS
    expected = widths.get(part.kind, taken)
    if taken > 3 if part.field.has("pad") else taken != expected:
        raise ValueError(
            f"{where}: action part {part.kind!r} takes {taken} numbers of {part.field.key}, "
            f"expected {expected}: correct the spec, or this is another version of the data set"
        )
