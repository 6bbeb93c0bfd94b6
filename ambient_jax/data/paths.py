"""Paths as a user gives them."""

from __future__ import annotations

import os


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with a leading ``~`` or ``~name`` as the home that it stands for.

    One whose home nobody knows stays as it is, and so does any other path, also ``gs://``.
    """
    return os.path.expanduser(os.fspath(path))


def below(root: str, path: str) -> str:
    """The path, from a root ("" = none) on unless it is whole by itself; ``expanded``."""
    whole = "://" in path or path.startswith("~") or os.path.isabs(path)
    return expanded(path if whole or not root else os.path.join(root, path))
