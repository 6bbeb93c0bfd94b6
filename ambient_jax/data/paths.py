"""Expands paths of users, and writes files whole or not at all, on disks and in buckets."""

import contextlib
import glob
import io
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

from etils import epath

from ambient_jax.data.bucket import BucketPath, is_bucket

AnyPath: TypeAlias = pathlib.Path | BucketPath
ReadablePath: TypeAlias = epath.Path | BucketPath
CACHE_VARIABLE = "AMBIENT_JAX_CACHE"  # folder of what can be computed anew from data
_CACHE = "~/.cache/ambient_jax"


def expanded(path: str | os.PathLike[str]) -> str:
    """Returns the path with a leading ``~`` or ``~name`` replaced by that user's home."""
    return os.path.expanduser(os.fspath(path))


def folder(path: str | os.PathLike[str]) -> AnyPath:
    """Returns the ``expanded`` path as an object, for a folder of results."""
    path = expanded(path)
    return BucketPath.of(path) if is_bucket(path) else pathlib.Path(path)


def cache_folder(path: str | os.PathLike[str] | None = None, local: bool = False) -> AnyPath:
    """Returns the ``folder`` at a path, by default at ``$AMBIENT_JAX_CACHE`` or
    ``~/.cache/ambient_jax``; with ``local`` the latter if it is in a bucket."""
    path = path or os.environ.get(CACHE_VARIABLE) or _CACHE
    return folder(_CACHE if local and is_bucket(path) else path)


def readable(path: str | os.PathLike[str]) -> ReadablePath:
    """Returns the ``expanded`` path as an object, for data to read."""
    path = expanded(path)
    return BucketPath.of(path) if is_bucket(path) else epath.Path(path)


def check_local(what: str, path: str | os.PathLike[str]) -> None:
    """Raises ValueError for a URL, which pathlib would take for a local folder named gs:."""
    if "://" in os.fspath(path):
        raise ValueError(
            f"{what} is {os.fspath(path)!r}, expected a local path: copy it to a bucket afterwards"
        )


def below(root: str, path: str) -> str:
    """Returns the ``expanded`` path, relative to ``root`` unless it is absolute or root is ""."""
    whole = "://" in path or path.startswith("~") or os.path.isabs(path)
    return expanded(path if whole or not root else os.path.join(root, path))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file beside ``path`` that replaces it at the end, or is deleted after an error.

    Readers see the old content or the complete new one. The directory must exist.
    """
    if is_bucket(path):
        whole = io.BytesIO()
        yield whole
        BucketPath.of(path).write_bytes(whole.getvalue())
        return
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


def restore_folder(final: pathlib.Path) -> None:
    """Brings back the folder that a killed process was replacing, if ``final`` is absent."""
    replaced = sorted(final.parent.glob(f".{glob.escape(final.name)}.replaced-*"))
    if replaced and not final.exists():
        replaced[-1].rename(final)


@contextlib.contextmanager
def replacing_folder(
    final: str | os.PathLike[str],
    overwrite: bool = False,
    other: str = "folder",
    inside: pathlib.Path | None = None,
) -> Iterator[pathlib.Path]:
    """Makes a folder beside ``final``, or ``inside`` another one of the same file system, that gets
    its name at the end; an error deletes it.

    Raises FileExistsError if ``final`` exists at the beginning or the end, unless ``overwrite``;
    the message tells the user to choose another ``other``. ValueError if it is in a bucket.
    """
    check_local(f"the new {other}", final)
    final = pathlib.Path(final)

    def refuse_existing():
        if final.exists() and not overwrite:
            raise FileExistsError(
                f"{final} exists: choose another {other}, or pass overwrite=True to replace it"
            )

    restore_folder(final)
    refuse_existing()
    # In the same file system, for the rename; hidden, as it is unfinished.
    partial = (inside or final.parent) / f".{final.name}.partial-{uuid.uuid4().hex[:8]}"
    partial.mkdir(parents=True)
    try:
        yield partial
        refuse_existing()
        old = final.parent / f".{final.name}.replaced-{uuid.uuid4().hex[:8]}"
        if final.exists():
            final.rename(old)
        try:
            partial.rename(final)
        except BaseException:
            restore_folder(final)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
