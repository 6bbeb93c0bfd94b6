"""The data sets whose cameras were found (``align``), in ``<workdir>/aligned``."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import numpy as np
from absl import logging

from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.data.write import rlds_features
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments import demos
from experiments.shifted import align, shifts
from experiments.shifted.judge import OBSERVATION
from experiments.table import cache
from experiments.table.experiment import Table

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Aligned:
    """Demonstrations of one kind whose cameras were found.

    Attributes:
      path: of the data set, absolute.
      before, after: distance [m] and angle [rad] between the slider as reported and as it was,
        means of each episode, [E, 2]. Nothing is chosen by them.
    """

    path: str
    before: np.ndarray
    after: np.ndarray


def annotate(table: Table) -> dict[str, Aligned]:
    """Returns the aligned demonstrations of each kind, by ``name``; makes what is missing, except
    in ``report_only``."""
    task, seed = table.config.task, table.config.task.seeds[0]
    options = align.Options(**task.align)
    found = {}
    for kind in filter(lambda kind: shifts.KINDS[kind].camera, task.kinds):
        path = table.workdir / "aligned" / f"{kind}.npz"
        if task.report_only and not path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        reported = _opened(table, kind)
        about = {"kind": kind, "data": reported.fingerprint, "seed": seed}
        about |= {"steps": table.config.train.steps, "options": list(dataclasses.astuple(options))}
        make = functools.partial(_made, table, reported, table.folder("clean", seed), options)
        arrays = cache.kept(path, about, make)
        written = _write(path.parent, kind, reported, arrays["cameras"])
        found[name(kind)] = Aligned(str(written), arrays["before"], arrays["after"])
        ends = [1000 * np.median(arrays[n][:, 0]) for n in ("before", "after")]
        logging.info("%s: the slider is %.1f mm off as reported, then %.1f mm", kind, *ends)
    return found


def name(kind: str) -> str:
    """Returns the name of a kind's aligned demonstrations among the annotations."""
    return f"{kind}, aligned"


def _opened(table, kind, split="train"):
    root = pathlib.Path(expanded(table.config.data.root))
    data = rlds.open_dataset(root / f"shifted_{kind}", split)
    return RldsSource(data, observation=OBSERVATION, action="action", delta=())


def _made(table, reported, folder, options):
    policy = Policy.from_checkpoint(folder)
    everything = dict(padding=table.config.data.padding, episodes=10**9, samples=10**9)
    cameras = align.find(policy, evaluation.recorded(reported, policy, **everything), options)
    true = _opened(table, "clean", f"train[{table.config.task.clean}:]")
    pairs = [(_observed(reported[i]), _observed(true[i])) for i in range(len(reported))]
    before = [align.apart(r["slider"], t["slider"]) for r, t in pairs]
    after = [
        align.apart(np.asarray(align.seen_from(r, camera)["slider"]), t["slider"])
        for (r, t), camera in zip(pairs, cameras, strict=True)
    ]
    return {"cameras": cameras, "before": np.stack(before), "after": np.stack(after)}


def _observed(episode):
    return {n: np.asarray(episode["steps"]["observation"][n]) for n in OBSERVATION}


def _write(root, kind, reported, cameras):
    episode = reported[0]
    shapes = {n: v[0] for n, v in _observed(episode).items()}
    features = rlds_features(shapes, np.asarray(episode["steps"]["action"])[0])

    def episodes():
        for i, camera in enumerate(cameras):
            put = align.seen_from(_observed(reported[i]), camera)
            arrays = {n: np.asarray(v, np.float32) for n, v in put.items()}
            yield {"steps": demos.steps(arrays, np.asarray(reported[i]["steps"]["action"]))}

    key = {"cameras": np.round(cameras, 9).tolist(), "data": reported.fingerprint}
    return demos.write(root, f"shifted_{kind}_aligned", VERSION, key, features, episodes())
