"""Paths as a user gives them, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with a leading ``~`` or ``~name`` as the home that it stands for.

    One whose home nobody knows stays as it is, and so does any other path, also ``gs://``.
    """
    return os.path.expanduser(os.fspath(path))


def below(root: str, path: str) -> str:
    """The path, from a root ("" = none) on unless it is whole by itself; ``expanded``."""
    whole = "://" in path or path.startswith("~") or os.path.isabs(path)
    return expanded(path if whole or not root else os.path.join(root, path))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A temporary path that becomes ``path`` when the block ends without an error, so that a file
    is there whole or not at all."""
    path = pathlib.Path(expanded(path))
    temporary = path.with_name(f"{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
