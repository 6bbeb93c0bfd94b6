"""Finds the fenced Python and shell blocks of a Markdown page, and what is to be done with each.

The comment on the line before a block says it; a block without one is an error:

    <!-- snippet: run -->                    runs it
    <!-- snippet: run slow -->               runs it with the slow tests only
    <!-- snippet: run after CODE -->         Python: runs this line of code first
    <!-- snippet: continue -->               Python: runs it with the names of the block before it
    <!-- snippet: file my_config.py -->      writes it to this file, which later blocks use
    <!-- snippet: check -->                  shell: its modules, flags, configs and extras exist
    <!-- command: demo -->                   as check; .ci/run or a reader runs it word for word
"""

import dataclasses
import pathlib
import re

PYTHON, SHELL = ("python", "py", "python3"), ("bash", "sh", "shell", "console")
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*\{?([\w-]*)")
_MARKER = re.compile(r"<!-- (snippet|command): (\w+)(?: (.*?))? -->$")
_KINDS = {True: ("run", "continue", "file"), False: ("run", "file", "check")}


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A block of code of a page."""

    page: pathlib.Path
    line: int  # of its first line of code
    python: bool
    kind: str  # run, continue, file or check
    code: str
    slow: bool = False
    extra: str = ""  # the code after "after", or the file's name

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def collect(page: pathlib.Path) -> list[Snippet]:
    """Returns the Python and shell blocks of a page.

    Raises:
      ValueError: a block has no marker, or one that it cannot have.
    """
    lines, found, number = page.read_text(encoding="utf-8").split("\n"), [], 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if not fence:
            number += 1
            continue
        margin, ticks, language = fence.groups()
        end = next(
            (i for i in range(number + 1, len(lines)) if lines[i].strip() == ticks), len(lines)
        )
        if language in PYTHON + SHELL:
            before = lines[number - 1].strip() if number else ""
            code = "\n".join(line.removeprefix(margin) for line in lines[number + 1 : end])
            found.append(_snippet(page, number + 2, language in PYTHON, before, code))
        number = end + 1
    return found


def _snippet(page, line, python, before, code):
    marker = _MARKER.match(before)
    if not marker:
        raise ValueError(
            f"{page}:{line}: a block of code without a marker; expected a line such as "
            f"<!-- snippet: run --> before it (all: {pathlib.Path(__file__).name})"
        )
    family, kind, rest = marker.groups()
    kind, rest = ("check", "") if family == "command" else (kind, rest or "")
    slow, rest = rest.split(" ")[0] == "slow", re.sub(r"^slow ?", "", rest)
    after, _, extra = ("", "", rest) if kind == "file" else rest.partition(" ")
    right = bool(extra) if kind == "file" else not after or (after == "after" and extra)
    if kind not in _KINDS[python] or not right or (extra and kind != "file" and not python):
        raise ValueError(f"{page}:{line}: the marker {before!r} is none for this block")
    return Snippet(page, line, python, kind, code, slow, extra)
