"""Docstrings are plain text with ``code``; this makes them reStructuredText that keeps their lines.

Sections such as Args are left to napoleon. A paragraph whose lines are laid out by hand (commands,
tables, terms with their meaning) becomes a line block; ``*`` and ``_`` outside of code are letters.
"""

import re
from collections.abc import Iterator

_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes):$")
_LIST = re.compile(r"([*-]|\d+\.) ")
_LAID_OUT = re.compile(r"python -m |\$ ")
_MARKS = re.compile(r"(``.+?``|`[^`]+`)|([*|])|(?<=\w)(_)(?!\w)")


def process(app, what, name, obj, options, lines: list[str]) -> None:
    """Replaces the lines of a docstring, as Sphinx's event autodoc-process-docstring asks for."""
    rendered: list[str] = []
    literal = None  # margin of the paragraph whose "::" made what is indented below it literal
    for paragraph in _paragraphs(lines):
        margin = min(len(line) - len(line.lstrip()) for line in paragraph)
        if literal is None or margin <= literal:
            literal = margin if paragraph[-1].endswith("::") else None
            paragraph = _render(paragraph)
        rendered += [*paragraph, ""]
    lines[:] = rendered


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []


def _render(paragraph: list[str]) -> list[str]:
    first = paragraph[0].strip()
    if first.startswith(">>>") or _SECTION.match(first):
        return paragraph if first.startswith(">>>") else [_escaped(line) for line in paragraph]
    if _LIST.match(first):
        return list(_items(paragraph))
    indents = {len(line) - len(line.lstrip()) for line in paragraph}
    if len(indents) == 1 and not any(_LAID_OUT.match(line.strip()) for line in paragraph):
        return [_escaped(line) for line in paragraph]
    least = min(indents)
    return [" " * least + "| " + _escaped(line[least:]) for line in paragraph]


def _items(paragraph: list[str]) -> Iterator[str]:
    """A list's lines; text that follows it at once becomes a paragraph of its own."""
    margin = len(paragraph[0]) - len(paragraph[0].lstrip())
    for line in paragraph:
        mark = _LIST.match(line[margin:])
        if not mark and line[margin : margin + 1].strip():
            yield ""
        head = margin + (mark.end() if mark else 0)
        yield line[:head] + _escaped(line[head:])


def _escaped(line: str) -> str:
    """The line with every mark of reStructuredText escaped, but those of code."""
    return _MARKS.sub(lambda m: m[1] or "\\" + m[0], line)
