"""Chooses the levels of each kind of shift by the loss of a policy of clean data alone.

The policy ``clean_noised`` sees clean demonstrations only, with observations noised at all levels.
A pair of levels is admissible where its loss on the source exceeds that on held-out clean
demonstrations by a share of at most tau. It needs no rollout, but clean data that it did not see.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import jax.numpy as jnp
import numpy as np
from absl import logging

from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.shifted import judge, losses
from experiments.table import cache
from experiments.table.experiment import Table

POLICY = "clean_noised"
RHOS = judge.RHOS[[0, 2, 4, 6, 8, 10, 12]]
SAMPLES = 1024


def annotate(table: Table) -> dict[str, judge.Judged]:
    """Returns what was found about each kind, by ``name``, from ``<workdir>/excess/<kind>.npz``;
    makes what is missing, except in report_only."""
    task, found = table.config.task, {}
    for kind in task.kinds:
        path = table.workdir / "excess" / f"{kind}.npz"
        sources = [_source(table, name) for name in (f"shifted_{kind}", losses.DATA)]
        about = {"data": [s.fingerprint for s in sources], "steps": table.config.train.steps}
        about |= {"samples": SAMPLES, "seed": task.seeds[0]}
        if cache.is_left_out(path, about, task.report_only):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = table.folder(POLICY, task.seeds[0])
        arrays = cache.kept(path, about, functools.partial(_made, folder, sources))
        found[name(kind)] = choose(arrays["excess"], task.excess)
        logging.info("%s: sigma_min %.3f by loss", kind, found[name(kind)].sigma_min)
    return found


def name(kind: str) -> str:
    """Returns the name of what was found about a kind."""
    return f"{kind} by loss"


def choose(excess: np.ndarray, tau: float) -> judge.Judged:
    """Returns the levels chosen from the excess [M, L] at ``RHOS`` and ``judge.SIGMAS``: the share
    by which the loss on the source is larger. Their ``probability`` is 0.5 less the excess."""
    chosen = judge.choose(0.5 - np.clip(excess, 0, 0.5), tau, RHOS)
    return dataclasses.replace(chosen, probability=0.5 - excess)


def _source(table, path):
    data = rlds.open_dataset(pathlib.Path(expanded(table.config.data.root)) / path)
    return RldsSource(data, observation=judge.OBSERVATION, action="action", delta=())


def _made(folder, sources):
    policy = Policy.from_checkpoint(folder)
    loss = []
    for source in sources:
        chunks = evaluation.recorded(source, policy, padding="hold", samples=SAMPLES)
        observed = policy.check(chunks.observation, (policy.history,))
        inputs = policy.params, observed, policy.normalised(chunks.action)
        levels = jnp.asarray(RHOS), jnp.asarray(judge.SIGMAS)
        loss.append(np.asarray(losses.plane(policy, *inputs, *levels)))
    return {"excess": loss[0] / loss[1] - 1}
