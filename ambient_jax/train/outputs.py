"""Writes the outputs of a run's policies to their workdirs, and reads them to resume."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from ambient_jax import optim
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import AnyPath
from ambient_jax.train import (
    checkpoint,
    guard,
    lock,
    metrics,
    pictures,
    publication,
    remote_checkpoint,
    runs,
)
from ambient_jax.train import layout as layouts
from ambient_jax.train import state as state_lib


class Outputs:
    """A policy's checkpoints and, from ``open`` on, its metrics. Raises ValueError if the workdir
    has a run that cannot resume with the config."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: AnyPath):
        self.config, self.workdir = config, workdir
        try:
            _, step = checkpoint.find(workdir)
            saved = checkpoint.load_assets(workdir)["config"]
        except (ValueError, OSError):  # there is none, or restoring it will report the damage
            pass
        else:
            runs.check_config(saved, config, workdir, step)
        self.writer: metrics.Writer | None = None

    def open_checkpoints(self) -> None:
        """Opens ``checkpoints`` with the config's rules for keeping them."""
        keep = dict(keep=self.config.train.keep, keep_every=self.config.train.keep_every)
        self.checkpoints = remote_checkpoint.open_run(self.workdir / "checkpoints", **keep)

    def check_same(self, mixture: mixtures.Mixture) -> None:
        """Raises ValueError if the newest checkpoint has other data (``runs.check_same``)."""
        if (latest := self.checkpoints.latest_step()) is not None:
            assets = checkpoint.load_assets(self.workdir / "checkpoints" / str(latest))
            runs.check_same(assets, self.config, mixture, self.workdir, latest)

    def open(self, mixture: mixtures.Mixture, start: int) -> None:
        """Deletes checkpoints after ``start``; writes config and problems; opens the metrics."""
        self.checkpoints.drop_after(start)
        chain = mixture.chain.cropped(self.config.augmentation.crop)
        self.assets = checkpoint.make_assets(self.config, chain.to_json(), runs.marks(mixture))
        self.assets |= publication.recorded(mixture)
        if jax.process_index() == 0:
            runs.write_config(self.config, self.workdir)
            runs.write_problems(mixture, self.workdir)
            self.writer = metrics.Writer(self.workdir, start, self.config)

    def close(self) -> None:
        """Waits for pending saves."""
        self.checkpoints.close()
        if self.writer:
            self.writer.close()


def common_step(policies: Sequence[Outputs], workdir: AnyPath) -> int:
    """Returns the newest step at which all policies have an undamaged checkpoint; 0 for none.

    A run may have ended after it saved only some. Raises ValueError if trained policies would begin
    anew.
    """
    at_most = None
    while len(steps := {p.checkpoints.sound_step(at_most) or 0 for p in policies}) > 1:
        at_most = min(steps)
    [step] = steps
    latest = {
        p.workdir.relative_to(workdir).as_posix(): p.checkpoints.latest_step() for p in policies
    }
    for name, newest in latest.items():
        # A crash between two policies' saves costs a policy at most one save.
        if not step and (newest or 0) > policies[0].config.train.checkpoint_every:
            lost = ", ".join(n for n, s in latest.items() if s is None) or "a step that all have"
            raise ValueError(
                f"{workdir} has policy {name!r} at step {newest} and no checkpoint of {lost}, with "
                "which it would begin anew: bring it back, or train what is missing in another "
                "workdir"
            )
    return step


@dataclasses.dataclass(frozen=True)
class Recorder:
    """Reports and saves for all policies of a run; stops it at the first number not finite.
    ``position`` and ``rows_at`` are those of the feed. ``drawn`` draws what is saved, where there
    are to be pictures."""

    policies: Sequence[Outputs]
    position: Callable[[], Any]
    rows_at: Callable[[int, int], guard.Rows]
    names: Sequence[str]
    layout: layouts.Layout
    drawn: pictures.Pictures | None = None

    def _rate(self, step: int) -> float:
        return float(optim.learning_rate(self.policies[0].config.train)(step - 1))

    def report(self, step: int, sums: state_lib.Sums, timing: dict) -> None:
        """Writes a row of each policy's metrics."""
        by_policy = self.layout.fetch(sums)
        self._stop_if_marked(by_policy)
        rate = self._rate(step)
        rows = [metrics.summarize(step, s, self.names, rate) for s in by_policy]
        timing = timing | ({"policies": len(rows)} if len(rows) > 1 else {})
        for policy, row in zip(self.policies, rows, strict=True):
            if policy.writer:
                policy.writer.write(row, timing)
        losses = np.round([row["loss"] for row in rows], 4).tolist()
        logging.log_every_n_seconds(logging.INFO, "step %d, loss %s", 30, step, losses)

    def save(self, step: int, state: state_lib.TrainState) -> None:
        """Saves a checkpoint of each policy."""
        for policy in self.policies:
            lock.check(policy.workdir)
        states = self.layout.fetch(state)
        self._stop_if_marked([s.sums for s in states])
        for policy in self.policies:
            if policy.writer:
                policy.writer.flush()
        position = self.position()
        for policy, state in zip(self.policies, states, strict=True):
            policy.checkpoints.save(step, state, policy.assets, position)
        if self.drawn:
            self.drawn.draw(step, [state.ema_params for state in states])

    def _stop_if_marked(self, by_policy):
        for k, (policy, sums) in enumerate(zip(self.policies, by_policy, strict=True)):
            if first := int(sums.nonfinite):
                rows, rate = self.rows_at(first, k), self._rate(first)
                guard.stop(policy.workdir, first, rows, self.names, rate)
