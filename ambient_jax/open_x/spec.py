"""The vocabulary of one-liners that define how a data set is converted to the common form.

An action is a list of parts, ``kind field | operation | operation; kind ...``::

    xyz action/world_vector; rpy action/rotation_delta; grip action/gripper | closed 1 open 0

Kinds, in the order in which they enter the action:
  ``xyz``                 displacement of the end effector, m
  ``rpy``, ``quat``, ...  its rotation, in one of `rotations.WIDTHS`; ``unstated`` passes three
                          numbers of an undocumented encoding
  ``grip``                gripper command, 0 closed and 1 open
  ``joint``, ``djoint``   joint positions, or their differences, rad
  ``base``                displacement of a mobile base
Fields are paths inside a step (``action/world_vector``); ``[3]``, ``[0:3]`` or ``[-7:]`` select
some of their numbers; a leading ``/`` means a field of the episode. ``zeros`` (no such motion),
``open`` or ``closed`` (no gripper command) replace a field and are masked out of the loss.
Operations of motions:
  ``diff``                the field is an absolute pose: take the motion to the next step's pose,
                          which costs the last step; for a rotation in any encoding, it is the turn
                          about the axes of the base (R' = dR R)
  ``subtract``            ``diff`` of an ``rpy`` as common loaders do it: roll, pitch and yaw of the
                          next step minus those of this step, wrapped to (-pi, pi]
  ``rate``                the field is a velocity per second: divide by Hz
  ``scale c``             multiply
  ``pad``                 fill missing dimensions with zeros (masked out)
Operations of grippers:
  ``clip``                clip to [0, 1]
  ``closed a open b``     map a to 0 and b to 1 linearly: ``closed 1 open 0`` inverts,
                          ``closed 0 open 0.08`` reads a width
  ``relative``            commands -1 open, +1 close, 0 hold: take the state after them
  ``binarise``            above 0.95 open, below 0.05 closed, between them the next decided value
  ``as_is``               the convention is unknown: pass values unchecked
A state is ``field + field + ...``; language ``field, field`` (the first that is not empty; with
``| codepoints`` an array of integers); quality ``name = field | op; ...`` with ``max`` (over the
episode), ``equals v``, ``contains text``; a camera ``field | bgr | if /flag``; depth ``| scale c``.
``drop`` "first" drops the first step, ``last_step`` "drop" the last step if its is_last is set.

Loaders of Bridge (Octo, OpenVLA) use ``subtract``, and so do the registry's rows of Bridge, to get
the same numbers. Differences of Euler angles are not a rotation (the error is up to 0.07 rad on
BridgeData V2), and the robot's commands agree better with ``diff``: use it for a robot that
executes turns about the axes of its base. With a rotation other than "rpy" both give the turn.
Other loaders do not wrap: at half a turn they jump by 2 pi.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ambient_jax import _checks
from ambient_jax.data import chunk
from ambient_jax.open_x import rotations

ROTATIONS = (*rotations.WIDTHS, "unstated")
KINDS = ("xyz", *ROTATIONS, "grip", "joint", "djoint", "base")
CAMERAS = ("primary", "secondary", "wrist")
FRAMES = ("base", "tool")
_MOTION = {"diff": 0, "subtract": 0, "rate": 0, "scale": 1, "pad": 0}
_GRIPPER = {"clip": 0, "closed": 3, "relative": 0, "binarise": 0, "as_is": 0}
_OPERATIONS = {
    "motion": _MOTION,
    "grip": _GRIPPER,
    "joint": {"scale": 1},
    "state": {"scale": 1},
    "language": {"codepoints": 0},
    "quality": {"max": 0, "equals": 1, "contains": 1},
    "camera": {"bgr": 0, "if": 1},
    "depth": {"scale": 1, "if": 1},
}
_CONSTANTS = ("zeros", "open", "closed")
_FREE = ("joint", "djoint", "base")  # any width, so that a constant cannot replace the field
_FIELD = re.compile(r"(?P<path>/?\w[\w/.-]*)(?:\[(?P<slice>(?:-?\d+)?(?::(?:-?\d+)?)?)\])?")


@dataclasses.dataclass(frozen=True)
class Field:
    """A field, or some of its numbers, and its operations.

    ``path`` is below ``steps``, or in the episode (``of_episode``: one value per episode), or the
    name of a constant. ``window`` is [start, stop) of the last axis, (None, None) for all.
    ``operations`` are names with their words, such as ``("closed", "1", "open", "0")``.
    """

    path: str
    of_episode: bool = False
    window: tuple[int | None, int | None] = (None, None)
    operations: tuple[tuple[str, ...], ...] = ()

    @property
    def scale(self) -> float:
        return float(next(iter(self.words("scale")), 1.0))

    @property
    def constant(self) -> bool:
        return self.path in _CONSTANTS

    @property
    def key(self) -> str:
        """Returns the path from the episode's root, ``steps/...``."""
        return self.path if self.of_episode else f"steps/{self.path}"

    def has(self, operation: str) -> bool:
        return any(name == operation for name, *_ in self.operations)

    def words(self, operation: str) -> tuple[str, ...]:
        """Returns the words after an operation's name; empty if the field lacks the operation."""
        return next((tuple(w) for name, *w in self.operations if name == operation), ())


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an action: its kind and the field it comes from."""

    kind: str
    field: Field

    @property
    def is_rotation(self) -> bool:
        return self.kind in ROTATIONS

    @property
    def is_diff(self) -> bool:
        """Whether it is a difference of consecutive poses."""
        return self.field.has("diff") or self.field.has("subtract")

    @property
    def is_delta(self) -> bool:
        """Whether several steps compose into one; otherwise the last one applies."""
        return self.kind in ("xyz", "djoint", "base") or self.is_rotation


@dataclasses.dataclass(frozen=True)
class Spec:
    """The conversion of one data set to the common form; `parse` makes it."""

    name: str  # for messages
    hz: float | None  # control rate; None if unknown
    action: tuple[Part, ...]  # in order
    # Axes of displacements and rotations: those of the robot's "base", or of the "tool" (or mobile
    # base) at the start of each step.
    frame: str = "base"
    state: tuple[Field, ...] = ()  # concatenated
    language: tuple[Field, ...] = ()  # the first that is not empty applies
    cameras: Mapping[str, Field] = dataclasses.field(default_factory=dict)  # by role
    depth: Mapping[str, Field] = dataclasses.field(default_factory=dict)  # by role
    quality: Mapping[str, Field] = dataclasses.field(default_factory=dict)  # labels by name
    drop_first: bool = False  # drop the first step
    # "drop" if the action of a step with is_last is a filler, "keep" if it is real; "": the caller
    # decides (``source.open_source``).
    last_step: str = ""

    @property
    def bgr(self) -> tuple[str, ...]:
        """Returns the cameras whose channels are stored blue first."""
        return tuple(role for role, field in self.cameras.items() if field.has("bgr"))

    @property
    def has_diff(self) -> bool:
        return any(part.is_diff for part in self.action)

    def fields(
        self, cameras: Iterable[str] = CAMERAS, depth: Iterable[str] = CAMERAS
    ) -> Iterator[tuple[str, Field]]:
        """Yields (use, field) of every field that is read, for these cameras and depth cameras."""
        yield from (("action", part.field) for part in self.action if not part.field.constant)
        yield from (("state", field) for field in self.state)
        yield from (("language", field) for field in self.language)
        for use, group, roles in (("camera", self.cameras, cameras), ("depth", self.depth, depth)):
            for role in roles:
                if role in group:
                    yield use, group[role]
                    for flag in group[role].words("if"):
                        yield "flag", parse_field(flag, use)
        yield from (("quality", field) for field in self.quality.values())


def parse(config: Mapping[str, Any], name: str = "") -> Spec:
    """Parses the one-liners of a registry row, or of another data set, into a spec::

        {"hz": 10, "action": "xyz action[0:3]; rpy action[3:6]; grip action[6]",
         "state": "observation/eef", "language": "language_instruction",
         "primary": "observation/front"}

    Optional lines are ``frame``, ``quality``, ``secondary``, ``wrist``, ``depth_primary``, ...,
    ``drop`` ("first") and ``last_step`` ("drop" or "keep"). ``name`` is for messages.
    """
    where = name or "spec"
    keys = ["action", "hz", "frame", "state", "language", "quality", "drop", "last_step"]
    keys += [*CAMERAS, *(f"depth_{c}" for c in CAMERAS)]
    for key in config:
        _checks.one_of(f"{where}: key", key, keys)
    lines = {k: v for k, v in config.items() if v not in (None, "")}
    for key, value in lines.items():
        if key != "hz" and not isinstance(value, str):
            raise ValueError(f"{where}: {key} is {value!r}, expected a line of text")
    if "action" not in lines:
        raise ValueError(f"{where} has no action: give a line such as 'xyz action[0:3]; ...'")
    hz = lines.get("hz")
    if hz is not None and (isinstance(hz, bool) or not isinstance(hz, int | float)):
        raise ValueError(f"{where}: hz is {hz!r}, expected a number")
    if hz is not None and not 0 < hz < float("inf"):
        raise ValueError(f"{where}: hz is {hz}, expected a positive rate, or none if unknown")
    frame = lines.get("frame", "base")
    _checks.one_of(f"{where}: frame", frame, FRAMES)
    drop = lines.get("drop", "")
    last_step = lines.get("last_step", "")
    for key, value, choices in (
        ("drop", drop, ("first",)),
        ("last_step", last_step, chunk.LAST_STEPS),
    ):
        if value:
            _checks.one_of(f"{where}: {key}", value, choices)
    quality = {}
    for item in _items(lines.get("quality", ""), ";"):
        label, equals, text = item.partition("=")
        if not equals or not label.strip().isidentifier():
            raise ValueError(f"{where}: quality {item!r}, expected 'name = field'")
        quality[label.strip()] = parse_field(text, f"{where}: quality", "quality")

    def fields(key: str, separator: str) -> tuple[Field, ...]:
        items = _items(lines.get(key, ""), separator)
        return tuple(parse_field(t, f"{where}: {key}", key) for t in items)

    def by_role(prefix: str, group: str) -> dict[str, Field]:
        keys = {role: prefix + role for role in CAMERAS if prefix + role in lines}
        return {c: parse_field(lines[k], f"{where}: {k}", group) for c, k in keys.items()}

    spec = Spec(
        name=name,
        hz=hz,
        action=tuple(_part(t, where) for t in _items(lines["action"], ";")),
        frame=frame,
        state=fields("state", "+"),
        language=fields("language", ","),
        cameras=by_role("", "camera"),
        depth=by_role("depth_", "depth"),
        quality=quality,
        drop_first=bool(drop),
        last_step=last_step,
    )
    return _checked(spec, where)


def parse_field(text: str, where: str, group: str = "flag") -> Field:
    """Parses ``path[slice] | operation ...``; ``group`` sets the allowed operations."""
    head, *steps = (part.strip() for part in text.split("|"))
    match = _FIELD.fullmatch(head)
    if not match:
        raise ValueError(
            f"{where}: cannot read {head!r}, expected a field such as 'observation/state[0:3]'"
        )
    operations = []
    allowed = _OPERATIONS.get(group, {})
    for step in steps:
        words = tuple(step.split())
        if not words or words[0] not in allowed:
            name = words[0] if words else ""
            raise ValueError(
                f"{where}: operation {name!r}, expected one of {', '.join(allowed) or 'none'}"
                f"{_checks.nearest(name, allowed)}"
            )
        if len(words) - 1 != allowed[words[0]]:
            raise ValueError(
                f"{where}: {step!r} has {len(words) - 1} words after {words[0]!r}, expected "
                f"{allowed[words[0]]}"
            )
        numbers = {"scale": words[1:], "equals": words[1:], "closed": words[1::2]}
        for number in numbers.get(words[0], ()):
            try:
                is_finite = math.isfinite(float(number))
            except ValueError:
                is_finite = False
            if not is_finite:
                raise ValueError(f"{where}: {number!r} in {step!r} is no finite number")
        operations.append(words)
    path = match["path"]
    return Field(path.lstrip("/"), path[0] == "/", _window(match["slice"]), tuple(operations))


def _window(text: str | None) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    if ":" in text:
        start, stop = (int(t) if t else None for t in text.split(":"))
        return start, stop
    return int(text), int(text) + 1 or None


def _items(line: str, separator: str) -> list[str]:
    return [t.strip() for t in line.split(separator) if t.strip()]


def _part(text: str, where: str) -> Part:
    kind, _, line = text.partition(" ")
    _checks.one_of(f"{where}: kind of action part {text!r}", kind, KINDS)
    group = kind if kind in ("grip", "joint") else "motion"
    field = parse_field(line, f"{where}: action part {text!r}", group)
    allowed = {"grip": ("open", "closed")}.get(group, ("zeros",))
    if field.constant and (field.path not in allowed or field.operations or kind in _FREE):
        raise ValueError(f"{where}: action part {text!r} takes a field or {' or '.join(allowed)}")
    for name, *words in field.operations:
        if name == "closed" and (words[1] != "open" or float(words[0]) == float(words[2])):
            raise ValueError(f"{where}: {text!r}, expected 'closed a open b' with different a, b")
    if field.has("subtract") and (kind != "rpy" or field.has("diff")):
        raise ValueError(
            f"{where}: {text!r}, expected 'rpy field | subtract', without diff: it subtracts roll, "
            "pitch and yaw; other parts and encodings take diff"
        )
    return Part(kind, field)


def _checked(spec: Spec, where: str) -> Spec:
    if spec.frame == "tool" and spec.has_diff:
        raise ValueError(
            f"{where}: diff and subtract give motions in the base frame, but frame is 'tool'"
        )
    if spec.hz is None and any(p.field.has("rate") for p in spec.action):
        raise ValueError(f"{where}: rate divides by hz, which is not given")
    kinds = [p.kind for p in spec.action]
    for i, kind in enumerate(kinds):
        if kind in ROTATIONS and (i == 0 or kinds[i - 1] != "xyz"):
            raise ValueError(f"{where}: {kind!r} stands alone, expected it right after an xyz part")
        if kind == "xyz" and (i + 1 == len(kinds) or kinds[i + 1] not in ROTATIONS):
            raise ValueError(
                f"{where}: xyz has no rotation after it: add one, or 'rpy zeros' if there is none"
            )
    return spec
