"""Paths as a user gives them."""

from __future__ import annotations

import os


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with a leading ``~`` or ``~name`` as the home that it stands for.

    One whose home nobody knows stays as it is, and so does any other path, also ``gs://``.
    """
    return os.path.expanduser(os.fspath(path))
