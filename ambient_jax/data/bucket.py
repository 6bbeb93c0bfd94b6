"""Paths in buckets, ``gs://bucket/key`` and ``s3://bucket/key``, with the methods of ``pathlib``
that this package uses.

A bucket has no folders, no renaming and no appending: a folder is what keys have in common, and an
object is written whole. A request that the store does not answer is repeated with growing waits for
``PATIENCE``; then ``StoreError`` names the object in one line.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import pathlib
import posixpath
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from absl import logging

from ambient_jax._packages import MissingError
from ambient_jax.data import stores

SCHEMES = ("gs", "s3")
FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0  # s between two attempts; a wait is twice the one before
PATIENCE = 120.0  # s after which a request is given up
_ATTEMPTS = 4  # at least, however long each takes
_silent: set[str] = set()  # schemes of stores that were given up and have not answered since
_AHEAD, _NEAR = 1 << 20, 1 << 16  # bytes read beyond what is asked for: in order, after a jump
_T = TypeVar("_T")


class StoreError(OSError):
    """A store that does not answer, or refuses; the message names the object and the reason."""

    def __str__(self):
        return f"{self.filename}: {self.strerror}"


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


@dataclasses.dataclass(frozen=True, order=True)
class BucketPath(os.PathLike[str]):
    """An object, or the folder of all objects whose keys begin with ``key`` and a slash."""

    scheme: str
    bucket: str
    key: str  # without a slash at its ends; "" is the bucket

    @classmethod
    def of(cls, url: str | os.PathLike[str]) -> BucketPath:
        """Returns the path of a URL; raises ValueError if it names no bucket."""
        scheme, _, rest = os.fspath(url).partition("://")
        bucket, _, key = rest.partition("/")
        if scheme not in SCHEMES or not bucket:
            raise ValueError(f"{os.fspath(url)!r} is no bucket, expected gs:// or s3:// and a name")
        key = posixpath.normpath(f"/{key}").strip("/")
        return cls(scheme, bucket, key)

    def __fspath__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    __str__ = __fspath__

    def __truediv__(self, name: str | os.PathLike[str]) -> BucketPath:
        return self.of(f"{self}/{os.fspath(name)}")

    @property
    def name(self) -> str:
        return posixpath.basename(self.key)

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.key)[1]

    @property
    def parent(self) -> BucketPath:
        return dataclasses.replace(self, key=posixpath.dirname(self.key))

    def with_name(self, name: str) -> BucketPath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> BucketPath:
        return dataclasses.replace(self, key=posixpath.splitext(self.key)[0] + suffix)

    def relative_to(self, other: str | os.PathLike[str]) -> pathlib.PurePosixPath:
        return pathlib.PurePosixPath(self.key).relative_to(self.of(other).key)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return bool(self.key) and self.version() is not None

    def is_dir(self) -> bool:
        """Whether any object lies below the path."""
        return bool(self._ask("listed", lambda s: s.files(self.bucket, self._prefix, limit=1)))

    def iterdir(self) -> Iterator[BucketPath]:
        """Yields objects and folders right below the path, in the order of their names."""
        keys, folders = self._ask("listed", lambda s: s.children(self.bucket, self._prefix))
        names = {*keys, *(folder.removesuffix("/") for folder in folders)}
        return (dataclasses.replace(self, key=key) for key in sorted(filter(_is_path, names)))

    def files(self) -> dict[str, int]:
        """Returns bytes of all objects below the path, by their name from there; without objects
        that no path names, such as ``a//b`` or ``a/``."""
        found = self._ask("listed", lambda s: s.files(self.bucket, self._prefix))
        return {key.removeprefix(self._prefix): n for key, n in found.items() if _is_path(key)}

    def version(self) -> str | None:
        """Returns a text that changes with the object's content; None if there is no object."""
        try:
            size, mark = self._ask("read", lambda s: s.size(self.bucket, self.key))
        except FileNotFoundError:
            return None
        return f"{size} {mark}"

    def versions(self) -> dict[str, str]:
        """Returns ``version`` of all objects below the path, by their name from there."""
        found = self._ask("listed", lambda s: s.versions(self.bucket, self._prefix))
        return {
            key.removeprefix(self._prefix): f"{n} {mark}"
            for key, (n, mark) in found.items()
            if _is_path(key)
        }

    def size(self) -> int:
        """Returns the object's bytes."""
        return self._ask("read", lambda s: s.size(self.bucket, self.key))[0]

    def read_bytes(self) -> bytes:
        return self._ask("read", lambda s: s.read(self.bucket, self.key, 0, None))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, stop: int) -> bytes:
        """Returns bytes ``start`` to ``stop``, all of which the object must have."""
        if stop <= start:
            return b""

        def read(store):
            data = store.read(self.bucket, self.key, start, stop)
            if len(data) != stop - start:
                raise stores.AgainError(f"{len(data)} of {stop - start} bytes came")
            return data

        return self._ask("read", read)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Opens the object to read."""
        if mode != "rb":
            raise ValueError(f"{self} cannot be opened as {mode!r}: an object is written whole")
        return BucketFile(self, self.size())  # type: ignore[return-value]

    def write_bytes(self, data: bytes) -> None:
        """Writes the object; readers see the old content or the new one."""
        self._ask("written", lambda s: s.write(self.bucket, self.key, data, False))

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    def create(self, data: bytes) -> bool:
        """Writes the object unless it exists; returns whether it did. Of many that try, one does;
        ``data`` must be no other's."""
        try:
            self._ask("written", lambda s: s.write(self.bucket, self.key, data, True))
        except FileExistsError:  # perhaps by an attempt whose answer was lost
            pass
        try:
            # Also asked of a store that knows no condition.
            return self.read_bytes() == data
        except FileNotFoundError:
            return False

    def upload(self, file: pathlib.Path) -> None:
        """Writes the content of a local file."""
        os.stat(file)  # a FileNotFoundError of the request is about the bucket
        self._ask("written", lambda s: s.write(self.bucket, self.key, file, False))

    def download(self, file: pathlib.Path) -> None:
        """Writes a local file, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            size = self.size()
            with partial.open("xb") as copy:
                for start in range(0, size, 64 << 20):
                    copy.write(self.read_range(start, min(size, start + (64 << 20))))
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)

    def unlink(self, missing_ok: bool = True) -> None:
        self._ask("deleted", lambda s: s.delete(self.bucket, self.key))

    def rmtree(self) -> None:
        """Deletes all objects below the path."""
        for name in self.files():
            (self / name).unlink()

    def mkdir(self, **_: Any) -> None:
        """Does nothing: a folder is there with its first object."""

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def _ask(self, what: str, send: Callable[[stores.Store], _T]) -> _T:
        """Sends a request until the store answers it."""
        begin, wait, attempts = time.monotonic(), FIRST_WAIT, 0
        # What a run does before it ends shall not take as long again for each request.
        patience = 0.0 if self.scheme in _silent else PATIENCE
        while True:
            attempts += 1
            try:
                answer = send(stores.get(self.scheme))
                _silent.discard(self.scheme)
                return answer
            except MissingError as error:
                raise ValueError(f"{self} cannot be {what}: {error}") from error
            except FileNotFoundError as error:
                why = "does not exist in the store"
                if what != "read":
                    why = f"cannot be {what}: there is no bucket {self.scheme}://{self.bucket}"
                raise FileNotFoundError(f"{self} {why}") from error
            except stores.RefusedError as error:
                reason = f"it cannot be {what}, the store refuses ({error})"
                raise StoreError(errno.EACCES, reason, f"{self}") from error
            except stores.AgainError as error:
                if attempts >= _ATTEMPTS and time.monotonic() + wait > begin + patience:
                    _silent.add(self.scheme)
                    reason = (
                        f"it cannot be {what}, the store has not answered {attempts} requests in "
                        f"{time.monotonic() - begin:.0f} s ({error}); the same command carries on"
                    )
                    raise StoreError(errno.EIO, reason, f"{self}") from error
                logging.log(
                    logging.WARNING if attempts > 2 else logging.DEBUG,
                    "%s: attempt %d failed (%s), the next one follows in %.2g s",
                    *(self, attempts, error, wait),
                )
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT)


def _is_path(key: str) -> bool:
    return not {"", ".", ".."} & set(key.split("/"))


class BucketFile(io.RawIOBase):
    """An object open to read, from any place. Reads ahead; ``read(n)`` gives n bytes but at the
    end."""

    def __init__(self, path: BucketPath, size: int):
        super().__init__()
        self._path, self._size, self._position = path, size, 0
        self._begin, self._data = 0, b""  # what is read ahead

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        start = min(self._position, self._size)
        stop = self._size if size is None or size < 0 else min(self._size, start + size)
        end = self._begin + len(self._data)
        if not self._begin <= start <= stop <= end:
            near = self._begin <= start <= end
            kept = self._data[start - self._begin :] if near else b""
            beyond = stop + (_AHEAD if near and end else _NEAR)
            more = self._path.read_range(start + len(kept), min(self._size, beyond))
            self._begin, self._data = start, kept + more
        self._position = stop
        return self._data[start - self._begin : stop - self._begin]

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def fetched(path: BucketPath, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a local copy of an object, for readers of local files; makes it below ``folder`` if
    it is not there. Another version of the object has another copy."""
    version = path.version()
    if version is None:
        raise FileNotFoundError(f"{path} does not exist in the store")
    mark = hashlib.sha256(version.encode()).hexdigest()[:16]
    copy = pathlib.Path(folder, path.scheme, path.bucket, mark, path.key)
    if not copy.exists():
        path.download(copy)
    return copy
