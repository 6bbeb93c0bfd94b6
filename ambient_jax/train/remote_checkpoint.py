"""Checkpoints of a run whose workdir is in a bucket.

Orbax saves to a local folder of process 0, which then writes the files to the bucket
(``remote_files``): what a bucket lacks, such as renaming, is not needed, and every store does.
Every process downloads what it restores, so that the files are checked as local ones are.
"""

import contextlib
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from ambient_jax.data.bucket import BucketPath
from ambient_jax.train import checkpoint, remote_files
from ambient_jax.train import checkpoint_files as files
from ambient_jax.train import state as state_lib


class BucketCheckpointer(checkpoint.Checkpointer):
    """As ``Checkpointer``, with its rules for keeping checkpoints, for a directory in a bucket."""

    def __init__(
        self, directory: str | os.PathLike, *, keep: int = 2, keep_every: int | None = None
    ):
        self._remote = BucketPath.of(directory)
        self._keep, self._keep_every = keep, keep_every
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"bucket_{me}"
        )
        super().__init__(remote_files.local(self._remote), keep=1, processes=alone)

    def latest_step(self) -> int | None:
        return max(self.all_steps(), default=None)

    def all_steps(self) -> list[int]:
        return remote_files.steps_in(self._remote)

    def drop_after(self, step: int) -> None:
        super().drop_after(step)
        if jax.process_index() == 0:
            later = [other for other in self.all_steps() if other > step]
            remote_files.delete(self._remote, later)
            remote_files.delete_unfinished(self._remote)

    def _set_aside(self, at_most):
        return files.set_aside_damaged(
            self._remote,
            self.all_steps(),
            lambda step: files.damage(remote_files.fetched(self._remote, step), checkpoint.RUN),
            lambda step, name: remote_files.move(self._remote, step, name),
            at_most,
        )

    def save(self, step: int, state: state_lib.TrainState, assets: dict, data: Any = None) -> None:
        if jax.process_index() == 0:
            super().save(step, state, assets, data)
        else:
            checkpoint.check_finite(step, state)

    def _complete(self):
        folder = super()._complete()
        remote_files.upload(folder, self._remote, str(self._saving))
        steps = self.all_steps()
        kept = {*steps[-self._keep :], self._best()}
        every = self._keep_every
        remote_files.delete(
            self._remote, [s for s in steps if s not in kept and not (every and s % every == 0)]
        )
        return folder

    def _best(self):
        try:
            return files.best_step(self._remote.parent)
        except (ValueError, OSError) as error:  # the training must not stop
            logging.warning("%s", error)
            return None

    def restore(self, step: int, like: state_lib.TrainState) -> tuple[state_lib.TrainState, Any]:
        folder = remote_files.fetched(self._remote, step)
        self._manager.reload()
        with _named(f"{folder}", f"{self._remote / str(step)}"):
            return super().restore(step, like)


@contextlib.contextmanager
def _named(folder: str, url: str):
    """Replaces the local folder by the URL in an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(folder, url)) from error


def open_run(
    directory: str | os.PathLike, *, keep: int, keep_every: int | None
) -> checkpoint.Checkpointer:
    """Opens the checkpoints of a run, in a folder or a bucket."""
    in_bucket = isinstance(directory, BucketPath)
    make = BucketCheckpointer if in_bucket else checkpoint.Checkpointer
    return make(directory, keep=keep, keep_every=keep_every)
