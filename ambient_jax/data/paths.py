"""Paths as a user gives them, and files that are written whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import BinaryIO


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with a leading ``~`` or ``~name`` of a known user replaced by that home."""
    return os.path.expanduser(os.fspath(path))


def below(root: str, path: str) -> str:
    """``expanded`` path, taken from ``root`` unless it is absolute or ``root`` is ""."""
    whole = "://" in path or path.startswith("~") or os.path.isabs(path)
    return expanded(path if whole or not root else os.path.join(root, path))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """An open file beside ``path`` that replaces it at the end, or is deleted after an error.

    Readers see the old content or all of the new one. The directory must exist.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing_folder(
    final: str | os.PathLike[str], overwrite: bool = False, other: str = "folder"
) -> Iterator[pathlib.Path]:
    """A new folder beside ``final`` that gets its name at the end, or is deleted after an error.

    Raises FileExistsError where ``final`` exists, at the beginning or the end, unless it may be
    replaced; ``other`` is what the message says to choose instead.
    """
    final = pathlib.Path(final)

    def refuse_existing():
        if final.exists() and not overwrite:
            raise FileExistsError(
                f"{final} exists: choose another {other}, or pass overwrite=True to replace it"
            )

    refuse_existing()
    # Beside its final place: a rename stays in one file system. Hidden: it is not finished yet.
    partial = final.parent / f".{final.name}.partial-{uuid.uuid4().hex[:8]}"
    partial.mkdir(parents=True)
    try:
        yield partial
        refuse_existing()
        old = final.parent / f".{final.name}.replaced-{uuid.uuid4().hex[:8]}"
        if final.exists():
            final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
