"""What the policies of a run leave in their workdirs, and read from there to resume."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from ambient_jax import optim
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import checkpoint, guard, lock, metrics, parallel, runs
from ambient_jax.train import state as state_lib


class Outputs:
    """A policy's checkpoints, and from ``open`` on its metrics.

    Args:
      config: of the policy, checked.
      workdir: of the policy.

    Raises:
      ValueError: the workdir holds a run that cannot go on with the config. Data are not read.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: pathlib.Path):
        self.config, self.workdir = config, workdir
        try:
            _, step = checkpoint.find(workdir)
            saved = checkpoint.load_assets(workdir)["config"]
        except (ValueError, OSError):  # none yet; a damaged one is reported when it is restored
            pass
        else:
            runs.check_config(saved, config, workdir, step)
        self._writer: metrics.Writer | None = None

    def open_checkpoints(self) -> None:
        """Opens ``checkpoints``, kept as the config says."""
        keep = dict(keep=self.config.train.keep, keep_every=self.config.train.keep_every)
        self.checkpoints = checkpoint.Checkpointer(self.workdir / "checkpoints", **keep)

    def check_same(self, mixture: mixtures.Mixture) -> None:
        """Raises ValueError if the newest checkpoint is of other data, see ``runs.check_same``."""
        if (latest := self.checkpoints.latest_step()) is not None:
            assets = self.checkpoints.assets(latest)
            runs.check_same(assets, self.config, mixture, self.workdir, latest)

    def open(self, mixture: mixtures.Mixture, start: int) -> None:
        """Deletes what is beyond step ``start``; writes the config and what is wrong with the data,
        opens the metrics."""
        self.checkpoints.drop_after(start)
        chain = mixture.chain.cropped(self.config.augmentation.crop)
        self._assets = checkpoint.make_assets(self.config, chain.to_json(), runs.marks(mixture))
        if jax.process_index() == 0:
            runs.write_config(self.config, self.workdir)
            runs.write_problems(mixture, self.workdir)
            self._writer = metrics.Writer(self.workdir, start, self.config)

    def report(self, row: dict, timing: dict) -> None:
        """Adds a row to the metrics (process 0)."""
        if self._writer:
            self._writer.write(row, timing)

    def save(self, step: int, state: state_lib.TrainState, position: object) -> None:
        """Saves a checkpoint of a state on the host; returns before it is written."""
        self.checkpoints.save(step, state, self._assets, position)

    def close(self) -> None:
        """Waits for pending saves."""
        self.checkpoints.close()
        if self._writer:
            self._writer.close()


def common_step(policies: Sequence[Outputs], workdir: pathlib.Path) -> int:
    """The newest step at which all policies have a sound checkpoint; 0: none.

    A run may have died after only some policies of a step were saved.

    Raises:
      ValueError: damage beyond that, with which trained policies would begin anew.
    """
    at_most = None
    while len(steps := {p.checkpoints.sound_step(at_most) or 0 for p in policies}) > 1:
        at_most = min(steps)
    [step] = steps
    latest = {
        p.workdir.relative_to(workdir).as_posix(): p.checkpoints.latest_step() for p in policies
    }
    for name, newest in latest.items():
        # A death between two policies' saves takes none of them back by more than one save.
        if not step and (newest or 0) > policies[0].config.train.checkpoint_every:
            lost = ", ".join(n for n, s in latest.items() if s is None) or "a step that all have"
            raise ValueError(
                f"{workdir} has policy {name!r} at step {newest} and no checkpoint of {lost}, with "
                "which it would begin anew: bring it back, or train what is missing in another "
                "workdir"
            )
    return step


class Recorder:
    """Reports and saves for all policies of a run; stops it at the first number not finite.

    Args:
      policies: of the run, opened.
      position: returns the position of the feed, see ``feeds``.
      rows_at: ``(step, policy) -> rows`` of the feed.
      names: of the sources.
      stacked: whether states are those of several policies, see ``parallel.fetch``.
    """

    def __init__(
        self,
        policies: Sequence[Outputs],
        position: Callable[[], Any],
        rows_at: Callable[[int, int], guard.Rows],
        names: Sequence[str],
        stacked: bool,
    ):
        self._policies, self._position, self._rows_at = policies, position, rows_at
        self._names, self._stacked = names, stacked
        self._rate = optim.learning_rate(policies[0].config.train)

    def report(self, step: int, sums: state_lib.Sums, timing: dict) -> None:
        """Writes a row of each policy's metrics."""
        each = parallel.fetch(sums, self._stacked)
        self._stop_if_marked(each)
        rate = float(self._rate(step - 1))
        rows = [metrics.summarize(step, own, self._names, rate) for own in each]
        for policy, row in zip(self._policies, rows, strict=True):
            policy.report(row, timing | ({"policies": len(rows)} if self._stacked else {}))
        losses = np.round([row["loss"] for row in rows], 4).tolist()
        logging.log_every_n_seconds(logging.INFO, "step %d, loss %s", 30, step, losses)

    def save(self, step: int, state: state_lib.TrainState) -> None:
        """Saves a checkpoint of each policy."""
        for policy in self._policies:
            lock.check(policy.workdir)
        states = parallel.fetch(state, self._stacked)
        self._stop_if_marked([own.sums for own in states])
        position = self._position()
        for policy, own in zip(self._policies, states, strict=True):
            policy.save(step, own, position)

    def _stop_if_marked(self, each):
        for k, (policy, sums) in enumerate(zip(self._policies, each, strict=True)):
            if first := int(sums.nonfinite):
                rows, rate = self._rows_at(first, k), float(self._rate(first - 1))
                guard.stop(policy.workdir, first, rows, self._names, rate)
