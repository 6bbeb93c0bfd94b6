"""Adds up the bytes that a compiled program's collectives move, from the text of its HLO.

The text is that of ``jax.stages.Compiled.as_text()``: one program that every device runs. HLO:
https://openxla.org/xla/operation_semantics.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_OTHER_NAMES = {"ragged-all-to-all": "all-to-all", "collective-broadcast": "collective-permute"}
# XLA writes a reduce-scatter for TPUs as a fusion of this name, in which an all-reduce is followed
# by slices.
_FUSED_SCATTER = "all-reduce-scatter"
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<= ]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|true_computation|false_computation"
    r"|called_computations)=(\{[^}]*\}|%?[\w.-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass
class Moved:
    """Collectives of one kind in a step, for one device.

    Attributes:
      count: how often they run.
      operand_bytes: bytes of their inputs.
      sent_bytes: bytes that the device sends if its group is a ring: of n devices, 2 (n - 1) / n
        of an all-reduce's input, n - 1 of an all-gather's, (n - 1) / n of a reduce-scatter's and
        an all-to-all's, the whole of a permutation's.
      in_loops: how many of ``count`` are in the bodies of loops with a known number of rounds.
      in_open_loops: and in loops whose number the text does not tell, each counted once.
    """

    count: int = 0
    operand_bytes: int = 0
    sent_bytes: float = 0.0
    in_loops: int = 0
    in_open_loops: int = 0


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: str
    attributes: str


def moved(hlo: str, devices: int) -> dict[str, Moved]:
    """Returns what each kind of collective moves in one run of the program.

    An asynchronous collective, a pair of ``-start`` and ``-done``, counts once. What a loop's body
    moves counts as often as the loop runs, where the compiler knows it.

    Args:
      hlo: text of a compiled module.
      devices: number of devices, the group of a collective that names none.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations, entry = _computations(hlo)
    if entry is None:
        raise ValueError("the text has no ENTRY computation, expected that of a compiled program")
    total = {kind: Moved() for kind in KINDS}
    pending = [(entry, 1, False, False)]
    while pending:
        name, times, loop, open_loop = pending.pop()
        body = computations.get(name, {})
        for instruction in body.values():
            if kind := _kind(instruction.opcode):
                if kind == "all-reduce" and name.startswith(_FUSED_SCATTER):
                    kind = "reduce-scatter"
                _add(total[kind], kind, instruction, body, devices, times, loop, open_loop)
            # The pair's second half names the computation of the first again.
            if instruction.opcode.endswith(("-done", "-update")):
                continue
            inner = times, loop, open_loop
            if instruction.opcode == "while":
                trips = _TRIPS.search(instruction.attributes)
                inner = times * int(trips[1]) if trips else times, True, open_loop or not trips
            pending += [(called, *inner) for called in _called(instruction.attributes)]
    return total


def _computations(hlo: str) -> tuple[dict[str, dict[str, _Instruction]], str | None]:
    """Returns instructions by name for every computation, and the name of the first."""
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, current = None, None
    for line in hlo.splitlines():
        if head := _COMPUTATION.match(line.rstrip()):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _parsed(found[1], found[2])
            current[instruction.name] = instruction
    return computations, entry


def _parsed(name: str, text: str) -> _Instruction:
    """Splits ``shape opcode(operands), attributes``."""
    end = _closing(text, 0) if text.startswith("(") else -1
    shape_end = text.find(" ", end + 1)
    shape, rest = text[:shape_end], text[shape_end + 1 :].lstrip()
    opening = rest.find("(")
    closing = _closing(rest, opening)
    return _Instruction(name, shape, rest[:opening], rest[opening + 1 : closing], rest[closing:])


def _closing(text: str, start: int) -> int:
    """Returns the position of the bracket that closes the one at ``start``."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    return len(text)


def _kind(opcode: str) -> str | None:
    plain = opcode.removesuffix("-start")
    plain = _OTHER_NAMES.get(plain, plain)
    return plain if plain in KINDS else None


def _called(attributes: str) -> Iterator[str]:
    for _, names in _CALLED.findall(attributes):
        yield from re.findall(r"[\w.-]+", names)


def _add(total, kind, instruction, body, devices, times, loop, open_loop):
    size = _operand_bytes(instruction, body)
    n = _group(instruction.attributes, devices)
    shares = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "collective-permute": 1}
    total.count += times
    total.operand_bytes += times * size
    total.sent_bytes += times * size * shares.get(kind, (n - 1) / n)
    total.in_loops += times if loop and not open_loop else 0
    total.in_open_loops += times if open_loop else 0


def _operand_bytes(instruction: _Instruction, body: dict[str, _Instruction]) -> int:
    """Adds up the operands' shapes, which stand beside them or where they are made."""
    size = 0
    for operand in _split(instruction.operands):
        made = body.get(operand.split()[-1].lstrip("%"))
        size += shape_bytes(operand if "[" in operand else made.shape if made else "")
    return size


def _split(operands: str) -> Iterator[str]:
    """Splits at the commas outside of brackets."""
    depth, start = 0, 0
    for i, letter in enumerate(operands):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            yield operands[start:i].strip()
            start = i + 1
    if operands[start:].strip():
        yield operands[start:].strip()


def shape_bytes(shape: str) -> int:
    """Returns the bytes of a shape as HLO writes it, such as ``(f32[8,4]{1,0}, bf16[])``."""
    size = 0
    for dtype, dims in _SHAPE.findall(re.sub(r"\{[^{}]*\}", "", shape)):
        count = 1
        for n in re.findall(r"\d+", dims):
            count *= int(n)
        size += -(-count * _bits(dtype) // 8)
    return size


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    found = re.match(r"[a-z]+(\d+)", dtype)  # f32, bf16, s8, u4, c64, f8e4m3fn
    return int(found[1]) if found else 0


def _group(attributes: str, devices: int) -> int:
    """Returns the number of devices of a group; all, if there is none."""
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", attributes):
        return int(iota[2])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"('[^']*')=(\d+)", mesh[1]))
        # An axis may be split: 'x':(2)4 is a part of four devices after one of two.
        parts = re.findall(r"('[^']*')(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[name]) for name, part in parts)
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return listed[1].count(",") + 1
    return devices


def as_dict(total: dict[str, Moved]) -> dict[str, dict[str, float]]:
    """Returns the kinds that occur as plain numbers."""
    return {kind: dataclasses.asdict(m) for kind, m in total.items() if m.count}
