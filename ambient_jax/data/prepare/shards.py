"""Work by shard: each part of a source leaves a file, and a rerun makes those that are missing.

A part's file is named after the versions of the files that it was made of, so that a rerun finds
what is done without reading data, and makes a part anew after a file was mended.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

from ambient_jax.data import parts
from ambient_jax.data.files import first_line
from ambient_jax.data.paths import AnyPath, replacing
from ambient_jax.data.prepare import engine
from ambient_jax.data.prepare.engine import Task
from ambient_jax.data.source import Source

FAILED = ".failed"
_READERS = 16  # threads that look at files: they wait for storage


@dataclasses.dataclass(frozen=True)
class Pieces:
    """An opened source and its parts.

    Attributes:
      source: the source.
      files: files of each part.
      folder: where the files of its parts go.
      suffix: how their names end.
    """

    source: Source
    files: list[range]
    folder: AnyPath
    suffix: str

    @classmethod
    def of(cls, source: Source, folder: AnyPath, suffix: str) -> Pieces:
        return cls(source, parts.parts_of(source), folder, suffix)

    @functools.cached_property
    def paths(self) -> list[AnyPath]:
        """``path`` of all parts, as of the first time that it is asked for."""
        with futures.ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.path, range(len(self.files))))

    def path(self, index: int) -> AnyPath:
        """Returns where a part's file is once it is made."""
        versions = [self.source.shard_version(file) for file in self.files[index]]
        digest = hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:16]
        return self.folder / f"{index:05d}-{digest}{self.suffix}"

    def failed(self, index: int) -> AnyPath:
        """Returns where the reason is if a part cannot be made."""
        return self.folder / f"{index:05d}{FAILED}"

    def missing(self) -> list[int]:
        """Returns the parts that are not made."""
        names = self._names()
        return [index for index, path in enumerate(self.paths) if path.name not in names]

    def ended(self) -> set[int]:
        """Returns the parts that have a file or the reason of a failure."""
        ends = (self.suffix, FAILED)
        return {int(name[:5]) for name in self._names() if name.endswith(ends)}

    def forget_failures(self) -> None:
        """Deletes the reasons of an earlier run, and makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in [p for p in self.folder.iterdir() if p.name.endswith(FAILED)]:
            path.unlink(missing_ok=True)

    def make(self, index: int, write: Callable[[AnyPath], None]) -> None:
        """Makes a part with ``write``, unless it is there, or leaves the reason why it failed."""
        try:
            path = self.path(index)
            if not path.exists():
                write(path)
        except Exception as error:  # whatever it is, the other parts go on
            line = first_line(error)
            expected = isinstance(error, ValueError | OSError | ImportError)
            with replacing(self.failed(index)) as file:
                file.write((line if expected else f"{type(error).__name__}: {line}").encode())

    def failure(self, name: str, index: int, ended: str) -> tuple[str, str]:
        """Returns what failed and why; ``ended`` is why the engine ended early."""
        try:
            reason = self.failed(index).read_text()
        except FileNotFoundError:
            reason = f"it was not reached, the pipeline ended ({ended or 'its file changed'})"
        files = self.files[index]
        which = f"shard {files[0]}" if len(files) == 1 else f"shards {files[0]} to {files[-1]}"
        return f"source {name!r}, {which} of {len(self.source.shard_lengths)}", reason

    def _names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()


def complete(
    make: Callable[[Task], None],
    pieces: Mapping[str, Pieces],
    processes: int,
    options: Sequence[str] = (),
) -> tuple[dict[str, list[tuple[str, str]]], int]:
    """Makes the missing parts of some sources.

    Args:
      make: makes one part, in any process; calls ``Pieces.make``.
      pieces: by source.
      processes, options: see ``engine.run``.

    Returns:
      By source, (what, reason) of what failed; and the number of parts that were made.

    Raises:
      ImportError: Beam is not installed.
    """
    for opened in pieces.values():
        opened.forget_failures()
    tasks = [(name, index) for name, opened in pieces.items() for index in opened.missing()]
    wanted = {name: {i for n, i in tasks if n == name} for name, _ in tasks}
    count = lambda: sum(len(pieces[n].ended() & which) for n, which in wanted.items())  # noqa: E731
    ended = engine.run(make, tasks, count, processes, options) if tasks else ""
    failures = {
        name: [opened.failure(name, index, ended) for index in opened.missing()]
        for name, opened in pieces.items()
    }
    return failures, len(tasks) - sum(map(len, failures.values()))
