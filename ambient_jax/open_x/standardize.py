"""Converts an episode of any data set to the common form, by the data set's spec."""

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
    """Converts an RLDS episode to the common form.

    Args:
      spec: spec of the data set (``registry.get(name).spec``), or lines for `spec.parse`.
      episode: an episode of `rlds.open_dataset` with steps as arrays [T, ...]; images may be
        decoded or encoded.
      hz: common control rate; None keeps the data set's rate. A new step composes its motions, adds
        its rewards, and keeps the last absolute command and the latest observation.
      rotation: encoding in the action, "rpy" (as in Open-X models), "rotvec", "quat" or "rot6d".
      cameras, depth: the cameras to return, of "primary", "secondary" and "wrist".

    Returns:
      ``steps`` with ``observation`` (``image_<camera>``, ``depth_<camera>``, ``state`` [T, d]
      float32, if the data set has them), ``action`` [T, D] float32 (xyz m, rotation rad,
      gripper 1 = open; or joints, by the spec), ``action_mask`` [T, D] bool (False: a filler),
      ``camera_mask`` by camera [T] bool, ``language_instruction`` [T] bytes, ``quality`` by label
      [T] float32, ``is_first``, ``is_last``, ``is_terminal``, ``reward`` and ``discount``; and
      ``episode_metadata`` as stored. Channels of cameras in ``spec.bgr`` are swapped in decoded
      images; the caller must swap them after decoding encoded ones.

    Raises:
      ValueError: values do not fit the spec, there are too few steps, or the rate cannot change.
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
    reader = Reader(where, episode)
    length = reader.length - (spec.has_diff or reader.ends_in_filler(spec))
    grid = resample.grid(length, spec.hz, hz, first=int(spec.drop_first))
    if not len(grid.start):
        raise ValueError(
            f"{where}: the episode has {reader.length} steps, too few for what its spec drops "
            "(first step, filler of the last one, difference to the next one): leave it out"
        )
    action, mask = _action(spec, reader, grid, rotation)
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
        state = [reader.numbers(f, "state")[at] for f in spec.state]
        observation["state"] = np.concatenate(state, -1).astype(np.float32)
    for role in cameras:
        present = np.zeros(len(action), bool)
        if role in spec.cameras:
            present = reader.present(spec.cameras[role])[at]
            observation[f"image_{role}"] = reader.image(spec.cameras[role])[at]
        steps["camera_mask"][role] = present
    for role in depth:
        if role in spec.depth:
            observation[f"depth_{role}"] = reader.depth(spec.depth[role])[at]
    steps["language_instruction"] = reader.language(spec.language)[at]
    for label, field in spec.quality.items():
        steps["quality"][label] = reader.quality(label, field)[at]
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
    """Checks a spec against a data set's features.json, before reading a record.

    Returns the features that `standardise` reads with these cameras, for
    ``rlds.open_dataset(keys=...)``. Raises ValueError for a missing field or another width.
    """
    stored = leaves(features)
    where = spec.name or "spec"
    keys = []
    for use, field in spec.fields(cameras, depth):
        if field.key not in stored:
            raise ValueError(missing(where, use, field.key, stored))
        keys.append(field.key)
    for part in spec.action:
        if not part.field.constant and None not in stored[part.field.key].shape:
            _check_width(where, part, _width(spec, part.field, features))
    # Optional, as some data sets lack them.
    flags = (f"steps/{name}" for name in ("is_last", "is_terminal", "reward", "discount"))
    keys += [k for k in flags if k in stored]
    keys += [k for k in stored if k.startswith("episode_metadata/")]
    return tuple(dict.fromkeys(keys))


def action_mask(spec: Spec, features: Any, rotation: str = "rpy") -> np.ndarray:
    """Returns the ``action_mask`` [D] of every step of ``standardise``, from the features alone."""
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
    """Returns the action [D] of a robot that stands still. It is 0, or a rotation's identity, for
    displacements, and NaN for fillers and for positions and grippers, which keep their value."""
    values: list[np.ndarray] = []
    for part in spec.action:
        if part.is_rotation:
            values.append(rotations.from_matrix(rotation, np.eye(3)))
        elif part.kind == "xyz":
            values.append(np.zeros(3))
        else:
            width = 1 if part.field.constant else _width(spec, part.field, features)
            values.append(np.full(width, 0.0 if part.is_delta else np.nan))
    mask = action_mask(spec, features, rotation)
    return np.where(mask, np.concatenate(values), np.nan).astype(np.float32)


def state_width(spec: Spec, features: Any) -> int:
    """Returns the width of the state, from the features alone."""
    return sum(_width(spec, field, features) for field in spec.state)


def cannot_resample(spec: Spec) -> str:
    """Returns why a data set cannot have another control rate; "" if it can."""
    if spec.hz is None:
        return "its control rate is unknown"
    if spec.frame == "tool" and any(part.kind == "base" for part in spec.action):
        return "its displacements are in the frame of a base whose heading is unknown"
    return ""


def _width(spec: Spec, field: Field, features: Any) -> int:
    """Returns how many numbers a field reads, from the features alone."""
    shape = leaves(features)[field.key].shape
    if None in shape:
        raise ValueError(
            f"{spec.name or 'spec'}: {field.key} has shape {shape} in its features: take some of "
            "its numbers with [start:stop] in the spec"
        )
    window = window_of(spec.name or "spec", field, int(np.prod([n or 0 for n in shape])))
    return window.stop - window.start


def _action(spec, reader, grid, rotation) -> tuple[np.ndarray, np.ndarray]:
    """Returns the action [N, D] and its mask [D]."""
    columns: list[np.ndarray] = []
    mask: list[np.ndarray] = []
    xyz = np.zeros((grid.length, 3))
    for part in spec.action:
        field = part.field
        values = None if field.constant else _values(spec, reader, part)
        if values is not None:  # differences of rotations are taken later and need another step
            values = values[: grid.length + (part.is_rotation and part.is_diff)]
        if part.kind == "xyz":
            # The next part, its rotation, composes both.
            xyz = np.zeros((grid.length, 3)) if values is None else values
            mask.append(np.arange(3) < (0 if values is None else reader.width(field)))
        elif part.is_rotation:
            columns += _pose(spec, reader, part, xyz, values, grid, rotation)
            mask.append(_rotation_mask(part, rotation))
        else:
            if values is None:
                values = np.full((grid.length, 1), float(field.path == "open"))
            together = part.is_delta and not grid.whole
            columns.append(resample.sums(values, grid) if together else values[grid.commands])
            mask.append(np.full(values.shape[1], not field.constant))
    return np.concatenate(columns, -1), np.concatenate(mask)


def _values(spec: Spec, reader: Reader, part: Part) -> np.ndarray:
    """Reads the numbers of a part at each step; rotations stay in their encoding, undifferenced."""
    field = part.field
    values = reader.numbers(field, "action")
    _check_width(reader.where, part, values.shape[1])
    if part.kind == "grip":
        return grippers.to_open(reader.where, field, values)
    if field.has("rate"):
        values = values / spec.hz
    if field.has("diff") and not part.is_rotation:
        values = np.diff(values, axis=0)
    if field.has("pad"):
        values = np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
    return values


def _pose(spec, reader, part, xyz, values, grid, rotation) -> list[np.ndarray]:
    """Returns displacement [N, 3] and rotation [N, w] over each output step."""
    encoding, diff, at = part.kind, part.is_diff, grid.steps
    if values is not None and part.field.has("subtract") and rotation == "rpy":
        angles = -np.remainder(np.pi - np.diff(values, axis=0), 2 * np.pi) + np.pi
        return [v[at] if grid.whole else resample.sums(v, grid) for v in (xyz, angles)]
    if encoding == "unstated":
        encoding = rotation
        if rotations.WIDTHS[rotation] != 3:
            raise ValueError(
                f"{reader.where}: the encoding of its rotation is unstated, so that it cannot "
                f"become {rotation!r}: use 'rpy' or 'rotvec', or name the encoding in the spec"
            )
    if values is not None and not diff and encoding == rotation and grid.whole:
        return [xyz[at], values[at]]  # unchanged, even angles beyond half a turn
    turns = np.tile(np.eye(3), (grid.length, 1, 1))
    if values is not None:
        try:
            turns = rotations.to_matrix(encoding, values)
        except ValueError as error:
            raise ValueError(f"{reader.where}: {part.field.key}: {error}") from None
        if diff:  # the turn to the next attitude in the base frame; matrices do not wrap
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


def _check_width(where: str, part: Part, width: int) -> None:
    widths = {"xyz": 3, "unstated": 3, "grip": 1} | rotations.WIDTHS
    expected = widths.get(part.kind, width)
    if width > 3 if part.field.has("pad") else width != expected:
        raise ValueError(
            f"{where}: action part {part.kind!r} takes {width} numbers of {part.field.key}, "
            f"expected {expected}: correct the spec, or this is another version of the data set"
        )
