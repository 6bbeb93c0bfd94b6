"""Local copies of workdirs in buckets, for what reads and writes local folders: evaluations."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from ambient_jax.data import paths
from ambient_jax.data.bucket import BucketPath, is_bucket
from ambient_jax.train import checkpoint_files as files
from ambient_jax.train import lock, remote_files

_CHECKPOINTS = "checkpoints"
_LEFT_OUT = (f"{_CHECKPOINTS}/", "tensorboard/", lock.NAME)


@contextlib.contextmanager
def local_path(
    path: str | os.PathLike[str], every_step: bool = False
) -> Iterator[str | os.PathLike[str]]:
    """Yields a path of ``checkpoint.find`` in the ``local_copy`` of its workdir, or, if it is in no
    bucket, the path as it is."""
    if not is_bucket(path):
        yield path
        return
    remote = BucketPath.of(path)
    directory, step = files.where(remote)
    with local_copy(directory.parent, every_step, step) as folder:
        yield folder / remote.relative_to(directory.parent)


@contextlib.contextmanager
def local_copy(
    workdir: str | os.PathLike[str], every_step: bool = False, step: int | None = None
) -> Iterator[pathlib.Path]:
    """Yields a workdir as a local folder.

    One in a bucket is copied: all but TensorBoard's files and checkpoints other than the newest,
    the best and that of ``step``, unless ``every_step`` is set. What the block adds or changes is
    written to the bucket when it ends, except checkpoints. A local workdir is yielded as it is.
    """
    remote = paths.folder(workdir)
    if not isinstance(remote, BucketPath):
        yield remote
        return
    with tempfile.TemporaryDirectory(prefix="ambient_jax-workdir-") as name:
        folder = pathlib.Path(name, remote.name)
        folder.mkdir()
        remote_files.each(
            lambda file: (remote / file).download(folder / file),
            [file for file in remote.files() if not file.startswith(_LEFT_OUT)],
        )
        steps = files.steps_in(remote / _CHECKPOINTS)
        best = files.best_step(folder)
        chosen = [s for s in steps if every_step or s in (steps[-1], best, step)]
        (folder / _CHECKPOINTS).mkdir()
        for number in chosen:
            copy = remote_files.fetched(remote / _CHECKPOINTS, number)
            (folder / _CHECKPOINTS / str(number)).symlink_to(copy)
        before = _marks(folder)
        yield folder
        changed = [file for file, mark in _marks(folder).items() if before.get(file) != mark]
        remote_files.each(lambda file: (remote / file).upload(folder / file), changed)


def _marks(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(_LEFT_OUT):
            found[name] = (path.stat().st_mtime_ns, path.stat().st_size)
    return found
