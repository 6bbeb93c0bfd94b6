"""The vocabulary in which a data set says how it becomes the common form: readable one-liners.

An action is a list of parts, ``kind field | operation | operation; kind ...``::

    xyz action/world_vector; rpy action/rotation_delta; grip action/gripper | closed 1 open 0

Kinds, in the order in which they are written into the action:
  ``xyz``                 displacement of the end effector, m
  ``rpy``, ``quat``, ...  its rotation, in one of `rotations.WIDTHS`; ``unstated`` passes three
                          numbers of which nobody says what they are
  ``grip``                gripper command, 0 closed and 1 open
  ``joint``, ``djoint``   joint positions, or their differences, rad
  ``base``                displacement of a mobile base
Fields are paths inside a step (``action/world_vector``) with ``[3]``, ``[0:3]``, ``[-7:]`` for some
of their numbers; a leading ``/`` means a field of the episode. In place of a field: ``zeros``
(no such motion), ``open`` or ``closed`` (no gripper command); these are masked out of the loss.
Operations of motions:
  ``diff``                the field is an absolute pose: take what leads to the next step's, which
                          costs the last step; of a rotation, the turn about the axes of the base
                          (R' = dR R) in whatever encoding
  ``subtract``            ``diff`` of an ``rpy`` as the field's loaders do it: the next step's roll,
                          pitch and yaw less this one's, each wrapped to (-pi, pi]
  ``rate``                the field is a velocity per second: divide by Hz
  ``scale c``             multiply
  ``pad``                 fill missing dimensions with zeros (masked out)
Operations of grippers:
  ``clip``                into [0, 1]
  ``closed a open b``     straight line from a to 0 and from b to 1: ``closed 1 open 0`` inverts,
                          ``closed 0 open 0.08`` reads a width
  ``relative``            commands -1 open, +1 close, 0 hold, to the state that they lead to
  ``binarise``            above 0.95 open, below 0.05 closed, between them the next decided value
  ``as_is``               convention unknown: passes unchecked
A state is ``field + field + ...``; language ``field, field`` (the first that is not empty; with
``| codepoints`` an array of integers); quality ``name = field | op; ...`` with ``max`` (over the
episode), ``equals v``, ``contains text``; a camera ``field | bgr | if /flag``; depth ``| scale c``.
``drop`` "first" leaves out the first step, ``last_step`` "drop" the last one if its is_last is set.

Loaders of Bridge (Octo, OpenVLA) use ``subtract``, and so do the registry's rows of Bridge, to have
the same numbers. Differences of Euler angles are no rotation (up to 0.07 rad off on BridgeData V2),
and the robot's commands agree better with ``diff``: take it for a robot that executes turns about
the axes of its base. With another rotation than "rpy" both give the turn. Loaders elsewhere do not
wrap: at half a turn they jump by 2 pi.
"""

import dataclasses
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
_FREE = ("joint", "djoint", "base")  # their fields give their width; a constant has none
_FIELD = re.compile(r"(?P<path>/?\w[\w/.-]*)(?:\[(?P<slice>-?\d*(?::-?\d*)?)\])?")


@dataclasses.dataclass(frozen=True)
class Field:
    """A field, or some of its numbers, and its operations.

    ``path`` is below ``steps``, or of the episode (``of_episode``: one value an episode), or a
    constant's name. ``window`` is [start, stop) of the last axis, (None, None) for all.
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
        """Path from the episode's root, ``steps/...``."""
        return self.path if self.of_episode else f"steps/{self.path}"

    def has(self, operation: str) -> bool:
        return any(name == operation for name, *_ in self.operations)

    def words(self, operation: str) -> tuple[str, ...]:
        """Words after an operation's name; empty if the operation is not there."""
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
        """Whether it is made of poses that follow each other."""
        return self.field.has("diff") or self.field.has("subtract")

    @property
    def is_delta(self) -> bool:
        """Whether several steps compose into one (else the last one stands)."""
        return self.kind in ("xyz", "djoint", "base") or self.is_rotation


@dataclasses.dataclass(frozen=True)
class Spec:
    """How one data set becomes the common form; `parse` makes it."""

    name: str  # for messages
    hz: float | None  # control rate; None if unknown
    action: tuple[Part, ...]  # in order
    # Axes of displacements and rotations: those of the robot's "base", or of the "tool" (or mobile
    # base), each step in the frame it starts from.
    frame: str = "base"
    state: tuple[Field, ...] = ()  # concatenated
    language: tuple[Field, ...] = ()  # the first that is not empty counts
    cameras: Mapping[str, Field] = dataclasses.field(default_factory=dict)  # by role
    depth: Mapping[str, Field] = dataclasses.field(default_factory=dict)  # by role
    quality: Mapping[str, Field] = dataclasses.field(default_factory=dict)  # labels by name
    drop_first: bool = False  # leave out the first step
    # "drop" where a step with is_last has a filler for its action, "keep" where it is real; ""
    # leaves that to the caller (``source.open_source``).
    last_step: str = ""

    @property
    def bgr(self) -> tuple[str, ...]:
        """Cameras whose channels are stored blue first."""
        return tuple(role for role, field in self.cameras.items() if field.has("bgr"))

    @property
    def has_diff(self) -> bool:
        return any(part.is_diff for part in self.action)

    def fields(
        self, cameras: Iterable[str] = CAMERAS, depth: Iterable[str] = CAMERAS
    ) -> Iterator[tuple[str, Field]]:
        """(use, field) of every field that is read, with the cameras and depth cameras given."""
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
    """A spec from its one-liners, of a registry row or of a data set of one's own::

        {"hz": 10, "action": "xyz action[0:3]; rpy action[3:6]; grip action[6]",
         "state": "observation/eef", "language": "language_instruction",
         "primary": "observation/front"}

    All optional: ``frame``, ``quality``, ``secondary``, ``wrist``, ``depth_primary``, ..., ``drop``
    ("first") and ``last_step`` ("drop" or "keep"). ``name`` is for messages.
    """
    where = name or "spec"
    known = ["action", "hz", "frame", "state", "language", "quality", "drop", "last_step"]
    known += [*CAMERAS, *(f"depth_{c}" for c in CAMERAS)]
    for key in config:
        _checks.one_of(f"{where}: key", key, known)
    lines = {k: v for k, v in config.items() if v not in (None, "")}
    for key, value in lines.items():
        if key != "hz" and not isinstance(value, str):
            raise ValueError(f"{where}: {key} is {value!r}, expected a line of text")
    if "action" not in lines:
        raise ValueError(f"{where} has no action: give a line such as 'xyz action[0:3]; ...'")
    hz = lines.get("hz")
    if isinstance(hz, str | bool):
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
    """``path[slice] | operation ...``; ``group`` says which operations there may be."""
    head, *steps = (part.strip() for part in text.split("|"))
    found = _FIELD.fullmatch(head)
    if not found:
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
                float(number)
            except ValueError:
                raise ValueError(f"{where}: {number!r} in {step!r} is no number") from None
        operations.append(words)
    path = found["path"]
    return Field(path.lstrip("/"), path[0] == "/", _window(found["slice"]), tuple(operations))


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
    kind, _, rest = text.partition(" ")
    _checks.one_of(f"{where}: kind of action part {text!r}", kind, KINDS)
    group = kind if kind in ("grip", "joint") else "motion"
    field = parse_field(rest, f"{where}: action part {text!r}", group)
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
