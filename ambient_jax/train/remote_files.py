"""Files of checkpoints in a bucket: which steps are finished, local copies, upload and deletion.

A step's files are objects below ``<step>/``, the same as in a local folder, and Orbax's own mark of
a commit, with which Orbax reads it from the bucket as well. ``<step>/unfinished`` is written before
the first of them and deleted after the last; likewise when a step is deleted.
"""

import atexit
import functools
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable
from concurrent import futures

from ambient_jax.data.bucket import BucketPath

DIGESTS = "digests.json"
COMMITTED = "commit_success.txt"  # Orbax's mark of a commit, written last and never read here
UNFINISHED = "unfinished"
PARTS = ("assets", "state", "ema_params")  # items, any of which makes a folder a checkpoint
_THREADS = 8  # that wait for the store
_ORIGINS: dict[pathlib.Path, BucketPath] = {}


def steps_in(directory: BucketPath) -> list[int]:
    """Returns steps of the finished checkpoints, ascending, including damaged ones."""
    return [
        step
        for step, names in _by_step(directory).items()
        if UNFINISHED not in names and any(name.split("/")[0] in PARTS for name in names)
    ]


def _by_step(directory: BucketPath) -> dict[int, list[str]]:
    """Returns names of the objects of every step, finished or not, ascending."""
    found: dict[int, list[str]] = {}
    for name in directory.files():
        step, _, rest = name.partition("/")
        if rest and re.fullmatch("0|[1-9][0-9]*", step):
            found.setdefault(int(step), []).append(rest)
    return dict(sorted(found.items()))


@functools.cache
def _shadow(pid: int) -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ambient_jax-checkpoints-"))
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == pid else 0)
    return folder


def local(directory: BucketPath) -> pathlib.Path:
    """Returns this process's local folder for copies of the checkpoints in ``directory``; it is
    deleted when the process ends."""
    folder = _shadow(os.getpid()).joinpath(directory.scheme, directory.bucket, directory.key)
    folder.mkdir(parents=True, exist_ok=True)
    _ORIGINS[folder] = directory
    return folder


def origin(folder: pathlib.Path) -> BucketPath | None:
    """Returns the directory in a bucket whose ``local`` folder this is; None for any other."""
    return _ORIGINS.get(folder)


def shown(folder: pathlib.Path) -> str:
    """Returns a step's folder as an error names it: by its URL if it is a copy."""
    directory = origin(folder.parent)
    return f"{directory / folder.name if directory else folder}"


def forget() -> None:
    """Deletes this process's local copies."""
    shutil.rmtree(_shadow(os.getpid()), ignore_errors=True)


def fetched(directory: BucketPath, step: int) -> pathlib.Path:
    """Returns the local copy of a step, made if it is absent or another. An object that the digests
    name and the bucket lacks is absent in the copy as well."""
    folder, remote = local(directory) / str(step), directory / str(step)
    there = set(remote.files())
    digests = (remote / DIGESTS).read_bytes() if DIGESTS in there else b""
    if digests and (folder / DIGESTS).is_file() and (folder / DIGESTS).read_bytes() == digests:
        return folder
    partial = folder.with_name(f".{step}.{uuid.uuid4().hex[:8]}")
    partial.mkdir()
    try:
        try:
            named = {DIGESTS, *map(str, json.loads(digests)["sha256"])}
            names = {n for n in there if n in named or n.split("/")[-1] == COMMITTED}
        except (ValueError, KeyError, TypeError):  # the check of the copy will say so
            names = there
        each(lambda name: (remote / name).download(partial / name), names)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def upload(folder: pathlib.Path, directory: BucketPath, name: str) -> None:
    """Writes a local step below ``<directory>/<name>``."""
    remote = directory / name
    _delete_all(remote)  # what a killed process left there
    (remote / UNFINISHED).write_text("")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    each(lambda file: (remote / file).upload(folder / file), files - {COMMITTED})
    (remote / COMMITTED).write_text("")
    (remote / UNFINISHED).unlink()


def delete(directory: BucketPath, steps: Iterable[int]) -> None:
    """Deletes steps; a reader sees each whole or not finished."""
    for step in steps:
        _delete_all(directory / str(step))


def delete_unfinished(directory: BucketPath) -> None:
    """Deletes what killed processes left. Only the process that saves there may call it."""
    delete(directory, [step for step, names in _by_step(directory).items() if UNFINISHED in names])


def move(directory: BucketPath, step: int, name: str) -> None:
    """Moves a step, of which there is a local copy, to another name."""
    upload(local(directory) / str(step), directory, name)
    delete(directory, [step])


def _delete_all(remote: BucketPath) -> None:
    if names := set(remote.files()):
        (remote / UNFINISHED).write_text("")
        each(lambda name: (remote / name).unlink(), names - {UNFINISHED})
        (remote / UNFINISHED).unlink()


def each(job: Callable[[str], None], names: Iterable[str]) -> None:
    """Calls a function with every name, in threads; raises the first error."""
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(job, name) for name in sorted(names)]:
            done.result()
